/**
 * Which virtio-mmio transport each virtio device has, and how the guest's kernel is told.
 *
 * @module
 */
import type { DeviceRequest } from "../bus/device_set.ts";
import { findDeviceType } from "../bus/device_set.ts";
import type { MachineConfig } from "../config.ts";
import { virtioTransports } from "./microvm.ts";

/**
 * Gives virtio devices their transports: the last one to the first device, as in QEMU.
 *
 * @param requests all devices
 * @param machine whether ACPI tells of the transports, and whether there are many
 * @throws {Error} in QEMU's words if there are more devices than transports
 */
export function placeVirtio(
  requests: readonly DeviceRequest[],
  machine: MachineConfig["machine"],
): DeviceRequest[] {
  const free = virtioTransports(machine);
  return requests.map((request) => {
    if (findDeviceType(request.type).bus !== "virtio-bus") return request;
    const transport = free.pop();
    if (!transport) throw new Error(`No 'virtio-bus' bus found for device '${request.type}'`);
    const { place, irq } = transport;
    return { ...request, properties: { ...request.properties, "mmio-base": place.base, irq } };
  });
}

/** What `auto-kernel-cmdline=on` tells a kernel of the transports in use, where ACPI does not. */
export function virtioCmdline(
  { machine }: MachineConfig,
  requests: readonly DeviceRequest[],
): string[] {
  if (machine.acpi || !machine.autoKernelCmdline) return [];
  return requests.flatMap(({ properties: { "mmio-base": base, irq } }) =>
    base === undefined ? [] : [`virtio_mmio.device=512@0x${Number(base).toString(16)}:${irq}`]
  );
}
