/**
 * Devices that come and go while the guest runs, and why others do so with the machine only.
 *
 * @module
 */
import { isSerialBus } from "../../devices/virtio/serial.ts";
import { type DeviceInstance, findDeviceType } from "../bus/device_set.ts";
import { PCIE_ID } from "../machine/microvm.ts";
import type { DeviceConfig } from "../config.ts";
import { deviceNotFound, QmpError } from "../monitor/errors.ts";
import type { VirtualMachine } from "../virtual_machine.ts";

/** Plugs a device in. @throws {Error} in QEMU's words if it cannot be */
export function addDevice(vm: VirtualMachine, device: DeviceConfig): void {
  const type = findDeviceType(device.driver);
  if (type.bus !== "PCI" || !vm.machine.hasPcie) refuseHotplug(vm, device.driver);
  vm.hotplug.add(device);
}

/** Asks the guest to give a device up. @throws {QmpError} in QEMU's words if it cannot be taken out */
export function removeDevice(vm: VirtualMachine, id: string): void {
  const { devices, description } = vm.machine.devices;
  const device = devices.find((one) => one.id === id);
  if (!device) throw deviceNotFound(id);
  const port = description.devices.find((one) => one.id === id)?.parent;
  if (device.type.bus !== "PCI" || port === undefined) refuseHotplug(vm, device.type.name, device);
  vm.hotplug.remove(device, port);
}

/**
 * Refuses to plug a device in or to unplug it where its bus cannot do that.
 *
 * @param driver the device's type
 * @param device the device, if it is there
 * @throws {QmpError} in QEMU's words, which name the bus
 */
function refuseHotplug(vm: VirtualMachine, driver: string, device?: DeviceInstance): never {
  const { bus = "isa-bus" } = findDeviceType(driver);
  const name = busName(vm, bus, device);
  throw new QmpError(
    name === undefined
      ? `No '${bus}' bus found for device '${driver}'`
      : `Bus '${name}' does not support hotplugging`,
  );
}

/** The bus that a device is on, or would be put on if it is not there yet. */
function busName(
  { machine }: VirtualMachine,
  bus: string,
  device: DeviceInstance | undefined,
): string | undefined {
  const { devices, description } = machine.devices;
  switch (bus) {
    case "virtio-bus": {
      const bases = devices.map(({ properties }) => properties["mmio-base"]);
      const number = machine.transports.findLastIndex(({ place: { base } }) =>
        device ? base === device.properties["mmio-base"] : !bases.includes(base)
      );
      return number === -1 ? undefined : `virtio-mmio-bus.${number}`;
    }
    case "virtio-serial-bus": {
      const parent = device
        ? description.devices.find(({ id }) => id === device.id)?.parent
        : devices.find(({ type }) => isSerialBus(type.name))?.id;
      return parent === undefined ? undefined : `${parent}.0`;
    }
    case "PCI":
      return machine.hasPcie ? PCIE_ID : undefined;
    case "main-system-bus":
      return bus;
    default:
      return "isa.0";
  }
}
