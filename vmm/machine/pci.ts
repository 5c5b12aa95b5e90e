/**
 * Where on the PCI Express root bus, or behind which port of it, each function is.
 *
 * @module
 */
import { ECAM_SIZE } from "../../devices/pci/config_space.ts";
import { type DeviceRequest, findDeviceType } from "../bus/device_set.ts";
import type { MachineConfig } from "../config.ts";
import { PCIE_ECAM, PCIE_ID, pcieIrqs } from "./microvm.ts";

/** The ports' type. */
export const ROOT_PORT = "pcie-root-port";

/** Devices of a bus, which have 8 functions each. */
const SLOTS = 32;
const FUNCTIONS = 8;

/** A bus as it fills: what is in its slots. */
interface PciBus {
  readonly slots: Map<number, string>;
  /** The port before it; undefined for the root bus. */
  readonly port?: DeviceRequest;
}

/**
 * Puts PCI devices into the slots that they ask for, or else into the first free ones, in their order.
 *
 * @param requests all devices
 * @throws {Error} in QEMU's words if one cannot be put there
 */
export function placePci(
  requests: readonly DeviceRequest[],
  machine: MachineConfig["machine"],
): DeviceRequest[] {
  const buses = new Map<string, PciBus>();
  if (machine.pcie) buses.set(PCIE_ID, { slots: new Map([[0, "gpex-root,id="]]) });
  const chassisSlots = new Set<string>();
  return requests.map((request) => {
    if (findDeviceType(request.type).bus !== "PCI") return request;
    const bus = findBus(request, machine, buses);
    const slot = takeSlot(request, bus);
    const placed = bus.port ? behindPort(request, bus.port) : onRootBus(request, slot, machine);
    if (request.type === ROOT_PORT) {
      checkChassis(request, chassisSlots);
      buses.set(request.id, { slots: new Map(), port: placed });
    }
    return placed;
  });
}

/** The slot of a function that was placed on the root bus. */
export function slotOf(configBase: number): number {
  return (configBase - PCIE_ECAM.base) / (FUNCTIONS * ECAM_SIZE);
}

function onRootBus(
  request: DeviceRequest,
  slot: number,
  machine: MachineConfig["machine"],
): DeviceRequest {
  const irqs = pcieIrqs(machine);
  const properties = {
    ...request.properties,
    "config-base": PCIE_ECAM.base + slot * FUNCTIONS * ECAM_SIZE,
    // Every slot's pin A is another wire.
    irq: irqs[slot % irqs.length],
    ...request.type === ROOT_PORT && { "ecam-base": PCIE_ECAM.base },
  };
  return { ...request, properties };
}

/** Pin A of device 0 behind a port goes on as pin A of the port (PCI-to-PCI Bridge 1.2, table 9-1). */
function behindPort(request: DeviceRequest, port: DeviceRequest): DeviceRequest {
  const { irq } = port.properties;
  return { ...request, parent: port.id, properties: { ...request.properties, irq } };
}

function findBus(
  { type, properties: { bus: name = PCIE_ID } }: DeviceRequest,
  machine: MachineConfig["machine"],
  buses: ReadonlyMap<string, PciBus>,
): PciBus {
  const bus = buses.get(String(name));
  if (!bus && (machine.pcie || name !== PCIE_ID)) throw new Error(`Bus '${name}' not found`);
  if (!bus) {
    const here = type.replace(/-pci$/, "-device");
    const hint = here === type ? "" : `${here}, or `;
    throw new Error(`No 'PCI' bus found for device '${type}': say ${hint}-machine pcie=on`);
  }
  if (bus.port && type === ROOT_PORT) {
    throw new Error(`Device '${type}' can't go on bus '${name}': root ports are on ${PCIE_ID}`);
  }
  return bus;
}

function takeSlot({ type, id, properties: { addr } }: DeviceRequest, bus: PciBus): number {
  const { slots, port } = bus;
  const slot = addr === undefined ? freeSlot(type, bus) : readSlot(type, String(addr));
  if (port && slot !== 0) {
    throw new Error(
      `PCI: slot ${slot} is not valid for ${type}, parent device only allows plugging into slot 0.`,
    );
  }
  const other = slots.get(slot);
  if (other !== undefined) {
    throw new Error(`PCI: slot ${slot} function 0 not available for ${type}, in use by ${other}`);
  }
  slots.set(slot, `${type},id=${id}`);
  return slot;
}

function freeSlot(type: string, { slots, port }: PciBus): number {
  for (let slot = 0; slot < (port ? 1 : SLOTS); slot++) if (!slots.has(slot)) return slot;
  throw new Error(`PCI: no slot/function available for ${type}, all in use or reserved`);
}

/** Slots of a chassis have numbers that differ; QEMU's error is the system's EBUSY. */
function checkChassis({ properties }: DeviceRequest, taken: Set<string>): void {
  const { chassis = 0, slot = 0 } = properties;
  const place = `${chassis}.${slot}`;
  if (taken.has(place)) {
    throw new Error(
      `Can't add chassis slot, error -16: slot ${slot} of chassis ${chassis} is another port's`,
    );
  }
  taken.add(place);
}

/** `SLOT` or `SLOT.FUNCTION`, both hexadecimal. */
function readSlot(type: string, text: string): number {
  const [, slot, part = "0"] = /^(?:0x)?([0-9a-f]{1,2})(?:\.([0-7]))?$/i.exec(text) ?? [];
  const number = parseInt(slot, 16);
  if (slot === undefined || number >= SLOTS) {
    throw new Error(`Property '${type}.addr' doesn't take value '${text}'`);
  }
  if (part !== "0") {
    throw new Error(
      `Property '${type}.addr' doesn't take value '${text}': devices here have function 0 only`,
    );
  }
  return number;
}
