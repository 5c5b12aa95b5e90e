/**
 * What can be said of a configuration before anything is made of it, and whatever the host has.
 *
 * @module
 */
import { isBalloon } from "../../devices/virtio/balloon.ts";
import { checkDevices } from "../bus/device_set.ts";
import type { MachineConfig } from "../config.ts";
import { readCpu } from "../cpu/definition.ts";
import { acpiOptions } from "../firmware/acpi/options.ts";
import { apicId } from "../cpu/topology.ts";
import { machineDevices } from "./devices.ts";
import { BootImages } from "./power_on.ts";

/**
 * Checks the CPU model, the devices, and the images that will be loaded.
 *
 * @param incoming whether a predecessor's state will come: images are its own affair then
 * @throws {Error} that says what is wrong
 */
export function checkMachine(config: MachineConfig, incoming: boolean): void {
  readCpu(config.cpu);
  const devices = machineDevices(config);
  checkDevices(devices);
  if (devices.filter(({ type }) => isBalloon(type)).length > 1) {
    throw new Error("Only one balloon device is supported");
  }
  if (incoming) return;
  const apicIds = Array.from({ length: config.smp.cpus }, (_, index) => apicId(config.smp, index));
  // What the processors can do changes words of tables, and not whether images fit.
  const processors = { apicIds, signature: 0, features: 0 };
  using _images = new BootImages(config, processors, acpiOptions(config, devices, apicIds, 40));
}
