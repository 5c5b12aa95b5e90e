/**
 * Which devices the machine has, and what each of them is given.
 *
 * @module
 */
import type { AttachedDisk } from "../../devices/block/disk.ts";
import type { SinkDescription } from "../../devices/chardev/sink.ts";
import type { NetPortDescription } from "../../devices/net/port.ts";
import type { VhostUserDescription } from "../../devices/vhost_user/port.ts";
import type { VsockPortDescription } from "../../devices/virtio/vsock_port.ts";
import type { DiskUser } from "../block_set.ts";
import { type DeviceRequest, findDeviceType } from "../bus/device_set.ts";
import type { MachineConfig } from "../config.ts";
import type { FirmwareItems } from "../firmware/firmware_items.ts";
import { userDeviceId, withDisk } from "./disks.ts";
import { checkGenerationId, generationOf } from "./generation.ts";
import { IOAPIC2_BASE, IOAPIC2_ID, LOW_RAM_LIMIT, PCIE_ECAM, PCIE_ID } from "./microvm.ts";
import { addressCards, connectNetwork, connectSockets } from "./network.ts";
import { placePci } from "./pci.ts";
import { placeVirtio } from "./virtio.ts";
import { plugPorts } from "./virtio_serial.ts";

/** The id of the generic event device. */
export const GED_ID = "ged";

/** What is behind the devices. */
export interface DeviceParts {
  /** The character sink behind a chardev id. @throws {Error} if there is no such chardev */
  sink(chardev: string): SinkDescription;
  /** The network backend of an id. @throws {Error} if there is none */
  netPort(id: string): NetPortDescription;
  /** The back-end behind a chardev id that works on a device's queues. */
  vhostUser(chardev: string): VhostUserDescription;
  /** The kernel's half of a socket device. @throws {Error} if it cannot be had */
  vsockPort(id: string, cid: number): VsockPortDescription;
  /** The disk behind a drive's id or a node's name. @throws {Error} if it cannot be had */
  disk(drive: string, user: DiskUser): AttachedDisk;
}

/** The machine's own devices, then the user's, each bound to its character device. */
export function deviceRequests(
  config: MachineConfig,
  parts: DeviceParts,
  firmware: FirmwareItems,
): DeviceRequest[] {
  return machineDevices(config).map((request): DeviceRequest => {
    if (request.type === "fw_cfg") return { ...request, content: firmware.content };
    if (request.type === "vmgenid") return { ...request, content: generationOf(request) };
    return withBackends(request, config, parts);
  });
}

/** Gives a device what is behind it. @throws {Error} if it cannot be had */
export function withBackends(
  request: DeviceRequest,
  config: MachineConfig,
  parts: DeviceParts,
): DeviceRequest {
  const { chardev, drive } = request.properties;
  const disk = (name: string, user: DiskUser) => parts.disk(name, user);
  const connected = connectNetwork({
    ...request,
    ...(typeof chardev === "string" &&
      (findDeviceType(request.type).vhostUser
        ? { vhostUser: parts.vhostUser(chardev) }
        : { sink: parts.sink(chardev) })),
    ...(typeof drive === "string" && withDisk(request, drive, config, disk)),
  }, (id) => parts.netPort(id));
  return connectSockets(connected, (id, cid) => parts.vsockPort(id, cid));
}

/** The devices that a configuration asks for: the machine's own, then the user's. */
export function machineDevices(config: MachineConfig): DeviceRequest[] {
  const own: DeviceRequest[] = [
    { type: "fw_cfg", id: "fw_cfg", properties: {} },
    { type: "i8042", id: "i8042", properties: {} },
    { type: "port92", id: "port92", properties: {} },
    { type: "pci-config", id: "pci-config", properties: {} },
  ];
  if (config.machine.acpi) {
    own.push({ type: "acpi-ged", id: GED_ID, properties: {} });
    if (config.machine.ioapic2) {
      own.push({ type: "ioapic", id: IOAPIC2_ID, properties: { base: IOAPIC2_BASE } });
    }
  }
  if (config.machine.pcie) {
    own.push({ type: "gpex-pcihost", id: PCIE_ID, properties: { "config-base": PCIE_ECAM.base } });
  }
  if (config.machine.rtc) {
    own.push({ type: "mc146818rtc", id: "rtc", properties: rtcProperties(config) });
  }
  if (config.machine.isaSerial) {
    config.serials.forEach((chardev, index) => {
      if (chardev === "none") return;
      own.push({ type: "isa-serial", id: `serial${index}`, properties: { index, chardev } });
    });
  }
  if (config.debugcon !== undefined) {
    const properties = { chardev: config.debugcon };
    own.push({ type: "isa-debugcon", id: "debugcon", properties });
  }
  const user = config.devices.map((device): DeviceRequest => ({
    type: device.driver,
    id: userDeviceId(device, config.devices),
    properties: device.properties,
  }));
  checkGenerationId(user, config.machine.acpi);
  return addressCards(
    plugPorts(placePci(placeVirtio([...own, ...user], config.machine), config.machine)),
    config.netdevs,
  );
}

/** RAM sizes and CPUs as the CMOS tells firmware, and the time. */
function rtcProperties({ memory, rtcBase, smp }: MachineConfig): DeviceRequest["properties"] {
  const low = Math.min(memory, LOW_RAM_LIMIT);
  return {
    "ram-below-4g": low / 1024,
    "ram-above-4g": (memory - low) / 1024,
    cpus: smp.cpus,
    base: `${rtcBase}`,
  };
}
