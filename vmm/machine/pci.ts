/**
 * Where on the PCI Express root bus each function is.
 *
 * @module
 */
import { ECAM_SIZE } from "../../devices/pci/config_space.ts";
import { type DeviceRequest, findDeviceType } from "../bus/device_set.ts";
import type { MachineConfig } from "../config.ts";
import { PCIE_ECAM, PCIE_ID, pcieIrqs } from "./microvm.ts";

/** Devices of a bus, which have 8 functions each. */
const SLOTS = 32;
const FUNCTIONS = 8;

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
  const slots = new Map<number, string>([[0, "gpex-root,id="]]);
  return requests.map((request) => {
    const { type, id, properties } = request;
    if (findDeviceType(type).bus !== "PCI") return request;
    checkBus(request, machine);
    const slot = properties.addr === undefined
      ? freeSlot(type, slots)
      : readSlot(type, String(properties.addr));
    const other = slots.get(slot);
    if (other !== undefined) {
      throw new Error(
        `PCI: slot ${slot} function 0 not available for ${type}, in use by ${other}`,
      );
    }
    slots.set(slot, `${type},id=${id}`);
    const irqs = pcieIrqs(machine);
    const base = PCIE_ECAM.base + slot * FUNCTIONS * ECAM_SIZE;
    return {
      ...request,
      // Every slot's pin A is another wire.
      properties: { ...properties, "config-base": base, irq: irqs[slot % irqs.length] },
    };
  });
}

/** The slot of a function that was placed. */
export function slotOf(configBase: number): number {
  return (configBase - PCIE_ECAM.base) / (FUNCTIONS * ECAM_SIZE);
}

function checkBus(
  { type, properties: { bus } }: DeviceRequest,
  machine: MachineConfig["machine"],
): void {
  if (bus !== undefined && !(machine.pcie && bus === PCIE_ID)) {
    throw new Error(`Bus '${bus}' not found`);
  }
  if (machine.pcie) return;
  const here = type.replace(/-pci$/, "-device");
  throw new Error(`No 'PCI' bus found for device '${type}': say ${here}, or -machine pcie=on`);
}

function freeSlot(type: string, slots: ReadonlyMap<number, string>): number {
  for (let slot = 0; slot < SLOTS; slot++) if (!slots.has(slot)) return slot;
  throw new Error(`PCI: no slot/function available for ${type}, all in use or reserved`);
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
