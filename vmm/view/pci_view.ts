/**
 * The PCI bus as the monitor shows it: what the functions' configuration spaces say.
 *
 * @module
 */
import { Command, Register } from "../../devices/pci/config_space.ts";
import { BarNumber, Range } from "../../devices/virtio/pci_function.ts";
import type { DeviceInstance } from "../bus/device_set.ts";
import type { Machine } from "../machine/machine.ts";
import { PCIE_ID } from "../machine/microvm.ts";
import { slotOf } from "../machine/pci.ts";
import type { PciFunctionInfo, PciRegionInfo } from "../monitor/control.ts";

/** The number of every function's range that is its configuration space. */
const CONFIG = 0;
/** The memories of a virtio function, by their registers' numbers. */
const memories = [
  { bar: BarNumber.MSIX, range: Range.MSIX, wide: false },
  { bar: BarNumber.REGISTERS, range: Range.REGISTERS, wide: true },
];
/** The bits of a base address register that are not of the address. */
const FLAGS = 0xf;

/** The functions on the bus, by their slots; none if there is no bus. */
export function pciFunctions(machine: Machine): PciFunctionInfo[] {
  const { devices } = machine.devices;
  return devices.filter(({ id, type }) => id === PCIE_ID || type.bus === "PCI")
    .map((device) => describe(machine, device))
    .sort((a, b) => a.slot - b.slot);
}

function describe(machine: Machine, device: DeviceInstance): PciFunctionInfo {
  const read = (offset: number, size: number) =>
    machine.devices.with(device.id, (one) => one.read(CONFIG, offset, size));
  return {
    slot: slotOf(Number(device.properties["config-base"])),
    id: device.id === PCIE_ID ? "" : device.id,
    config: {
      vendorId: read(Register.VENDOR_ID, 2),
      deviceId: read(Register.DEVICE_ID, 2),
      class: read(Register.CLASS + 1, 2),
      subsystemVendorId: read(Register.SUBSYSTEM_VENDOR_ID, 2),
      subsystemId: read(Register.SUBSYSTEM_ID, 2),
      interruptLine: read(Register.INTERRUPT_LINE, 1),
      interruptPin: read(Register.INTERRUPT_PIN, 1),
    },
    regions: regionsOf(device, read),
  };
}

function regionsOf(
  { type, properties }: DeviceInstance,
  read: (offset: number, size: number) => number,
): PciRegionInfo[] {
  const ranges = type.ranges(properties);
  const isDecoded = (read(Register.COMMAND, 2) & Command.MEMORY) !== 0;
  return memories.filter(({ range }) => range < ranges.length).map(({ bar, range, wide }) => {
    const at = Register.BAR0 + 4 * bar;
    const low = read(at, 4);
    const address = low - (low & FLAGS) + (wide ? read(at + 4, 4) * 2 ** 32 : 0);
    const isThere = isDecoded && address !== 0;
    return { bar, size: ranges[range].size, wide, ...isThere && { address } };
  });
}
