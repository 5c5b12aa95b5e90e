/**
 * Which disk each device has, and what its guest is told of it.
 *
 * @module
 */
import type { AttachedDisk } from "../../devices/block/disk.ts";
import type { DiskUser } from "../block_set.ts";
import type { DeviceRequest } from "../bus/device_set.ts";
import type { DeviceConfig, MachineConfig } from "../config.ts";
import { readBool } from "../options/values.ts";

/**
 * Gives a device its disk, and properties that say what is told of it.
 *
 * @param drive a drive's id or a node's name
 * @param attach finds the disk
 * @throws {Error} in QEMU's words if it cannot be had
 */
export function withDisk(
  request: DeviceRequest,
  drive: string,
  config: MachineConfig,
  attach: (drive: string, user: DiskUser) => AttachedDisk,
): DeviceRequest {
  const { properties } = request;
  const shareWrites = properties["share-rw"] === true;
  const disk = attach(drive, { device: qomName(request.id, config), shareWrites });
  const cache = properties["write-cache"] ?? "auto";
  const writeback = cache === "auto" ? disk.drive?.writeCache ?? true : readBool(String(cache));
  if (writeback === undefined) {
    throw new Error(`Parameter 'write-cache' does not accept value '${cache}'`);
  }
  return {
    ...request,
    disk,
    properties: { ...properties, "read-only": disk.disk.readOnly, writeback },
  };
}

/** A device's path among QEMU's objects. */
export function qomPath(id: string, config: MachineConfig): string {
  const name = qomName(id, config);
  return name.startsWith("/") ? name : `/machine/peripheral/${name}`;
}

/** What QEMU calls a device: its id, or its place among those without one. */
function qomName(id: string, { devices }: MachineConfig): string {
  const anonymous = devices.filter((device) => device.id === undefined);
  const index = anonymous.findIndex((device) => userDeviceId(device, devices) === id);
  return index === -1 ? id : `/machine/peripheral-anon/device[${index}]`;
}

/** The id of a device of the user's, made up if it has none. */
export function userDeviceId(device: DeviceConfig, devices: readonly DeviceConfig[]): string {
  return device.id ?? `${device.driver}.${devices.indexOf(device)}`;
}
