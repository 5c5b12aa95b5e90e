/**
 * Virtio devices in the device tree: a transport each, with its bus, as `info qtree` shows them.
 *
 * @module
 */
import { isSerialBus } from "../../devices/virtio/serial.ts";
import type { DeviceInstance } from "../bus/device_set.ts";
import type { Machine } from "../machine/machine.ts";
import type { BusInfo, DeviceInfo } from "../monitor/control.ts";

/**
 * All transports, the last one first, each with the device that is behind it.
 *
 * @param describe describes one device
 */
export function virtioTree(
  machine: Machine,
  describe: (device: DeviceInstance) => DeviceInfo,
): DeviceInfo[] {
  const { devices } = machine.devices;
  const behind = (base: number) =>
    devices.filter(({ properties }) => properties["mmio-base"] === base);
  const isKvm = machine.accelerator.name === "kvm";
  return machine.transports.map(({ place }, number): DeviceInfo => ({
    driver: "virtio-mmio",
    id: "",
    properties: [
      ["format_transport_address", "true"],
      ["force-legacy", "false"],
      ["ioeventfd", `${isKvm}`],
    ],
    mmio: [{ start: BigInt(place.base), size: BigInt(place.size) }],
    buses: [{
      name: `virtio-mmio-bus.${number}`,
      type: "virtio-mmio-bus",
      devices: behind(place.base).map((device) => withPorts(machine, device, describe)),
    }],
  })).reverse();
}

/** A virtio device, with what is on its own bus if it has one. */
export function withPorts(
  machine: Machine,
  device: DeviceInstance,
  describe: (device: DeviceInstance) => DeviceInfo,
): DeviceInfo {
  if (!isSerialBus(device.type.name)) return describe(device);
  const { devices, description } = machine.devices;
  const parents = new Map(description.devices.map(({ id, parent }) => [id, parent]));
  const ports = devices.filter(({ id }) => parents.get(id) === device.id).map(describe);
  const bus: BusInfo = { name: `${device.id}.0`, type: "virtio-serial-bus", devices: ports };
  return { ...describe(device), buses: [bus] };
}
