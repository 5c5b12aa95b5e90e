/**
 * What ACPI tables tell of a machine, from its devices.
 *
 * @module
 */
import { VMGENID_ADDRESS } from "../../../devices/acpi/vmgenid.ts";
import { devicePlaces, type DeviceRequest } from "../../bus/device_set.ts";
import type { MachineConfig } from "../../config.ts";
import {
  PCIE_ECAM,
  PCIE_WINDOW32,
  pcieIrqs,
  pcieWindow64,
  type VirtioTransport,
  virtioTransports,
} from "../../machine/microvm.ts";
import type { AcpiOptions } from "./acpi.ts";
import type { IsaPlace } from "./dsdt.ts";
import { DEFAULT_OEM } from "./table.ts";

/**
 * Finds out what the tables say.
 *
 * @param config the machine
 * @param requests its devices
 * @param apicIds APIC ids, one a vCPU
 * @param physicalBits of the processors' addresses
 * @returns undefined if it has no ACPI
 */
export function acpiOptions(
  { machine }: MachineConfig,
  requests: readonly DeviceRequest[],
  apicIds: readonly number[],
  physicalBits: number,
): AcpiOptions | undefined {
  if (!machine.acpi) return undefined;
  return {
    oem: {
      id: machine.oemId ?? DEFAULT_OEM.id,
      tableId: machine.oemTableId ?? DEFAULT_OEM.tableId,
    },
    apicIds,
    ioapic2: machine.ioapic2,
    pic: machine.pic,
    serials: isaPlaces(requests, "isa-serial"),
    ...requests.some(({ type }) => type === "vmgenid") && { generationId: VMGENID_ADDRESS },
    rtc: isaPlaces(requests, "mc146818rtc")[0],
    transports: usedTransports(requests, virtioTransports(machine)),
    ...machine.pcie && {
      pci: {
        ecam: PCIE_ECAM,
        window32: PCIE_WINDOW32,
        window64: pcieWindow64(physicalBits),
        irqs: pcieIrqs(machine),
      },
    },
  };
}

function isaPlaces(requests: readonly DeviceRequest[], type: string): IsaPlace[] {
  return requests.filter((request) => request.type === type).map((request) => {
    const { ranges: [{ base }], irqs: [irq] } = devicePlaces(request);
    return { port: base!, irq };
  });
}

/** The transports that have devices, as QEMU tells only of those. */
function usedTransports(
  requests: readonly DeviceRequest[],
  transports: readonly VirtioTransport[],
): AcpiOptions["transports"] {
  const bases = new Set(
    requests.flatMap((request) => devicePlaces(request).ranges).map(({ base }) => base),
  );
  return new Map([...transports.entries()].filter(([, { place }]) => bases.has(place.base)));
}
