/**
 * Declares virtio devices: ordinary device types out of what is a virtio device's own.
 *
 * @module
 */
import type { Fields } from "../../ffi/struct.ts";
import type { DeviceType } from "../device.ts";
import { behindMmio, type MmioFields } from "./mmio_device.ts";
import { behindPci } from "./pci_device.ts";
import type { VirtioBackend, VirtioDeviceType } from "./virtio_kind.ts";

export type { VirtioBackend, VirtioDeviceType };

/** A device behind a virtio-mmio transport, and the same as a PCI function. */
export interface VirtioDevice<F extends Fields> extends DeviceType<MmioFields<F>> {
  readonly pci: DeviceType;
}

/** Makes both device types of a kind of virtio device. */
export function defineVirtioDevice<F extends Fields>(kind: VirtioDeviceType<F>): VirtioDevice<F> {
  return { ...behindMmio(kind), pci: behindPci(kind) };
}
