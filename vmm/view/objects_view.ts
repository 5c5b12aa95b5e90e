/**
 * Objects that a monitor adds and removes while the VM is there: memory backends and throttle groups.
 *
 * @module
 */
import type { ObjectConfig } from "../config.ts";
import { openBackend } from "../machine/guest_memory.ts";
import { DEFAULT_RAM_ID, ROM_ID } from "../machine/memory_set.ts";
import { QmpError } from "../monitor/errors.ts";
import { isRng } from "../options/object.ts";
import type { VirtualMachine } from "../virtual_machine.ts";

/** Makes an object. @throws {QmpError} in QEMU's words if there is one, or it is not to be had now */
export function addObject(
  { backends, blocks, config: { iothreads, rngs } }: VirtualMachine,
  config: ObjectConfig,
): void {
  const { id } = config;
  if (isRng(config) || config.qomType === "iothread") {
    throw new QmpError(
      `Object '${id}' of type '${config.qomType}' is for devices: give it on the command line`,
    );
  }
  const isTaken = [...iothreads, ...rngs].some((other) => other.id === id);
  if (isTaken || backends.has(id) || blocks.throttles.object(id)) {
    throw new QmpError(`attempt to add duplicate property '${id}' to object (type 'container')`);
  }
  if (config.qomType === "throttle-group") blocks.throttles.add(config);
  else backends.set(id, openBackend(config));
}

/** Removes an object. @throws {QmpError} in QEMU's words if there is none, or it is in use */
export function removeObject(vm: VirtualMachine, id: string): void {
  const { backends, blocks, config, netdevs } = vm;
  const inUse = () => new QmpError(`object '${id}' is in use, can not be deleted`);
  if (blocks.throttles.object(id)) {
    const nodes = blocks.nodes.map((node) => node.config);
    const networks = [...netdevs.backends.values()];
    const isUsed = nodes.some((node) => node.driver === "throttle" && node.group === id) ||
      networks.some((one) => one.config.throttleGroup === id);
    if (isUsed) throw inUse();
    return blocks.throttles.remove(id);
  }
  const backend = backends.get(id);
  if (!backend || id === ROM_ID) throw new QmpError(`object '${id}' not found`);
  if (id === (config.machine.memoryBackend ?? DEFAULT_RAM_ID)) throw inUse();
  backends.delete(id);
  backend.mapping.close();
  backend.fd?.close();
}
