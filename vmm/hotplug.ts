/**
 * Devices that come and go while the guest runs, in the slots of PCI Express ports. The guest is asked to
 * give a device up; it is taken out when it has done so.
 *
 * @module
 */
import { type Slot, withDefaults } from "../devices/device.ts";
import type { BlockSet } from "./block_set.ts";
import { type DeviceInstance, type DeviceRequest, findDeviceType } from "./bus/device_set.ts";
import type { DeviceConfig, MachineConfig } from "./config.ts";
import type { DeviceChanges } from "./device_changes.ts";
import type { EventHub } from "./events.ts";
import { machineDevices, withBackends } from "./machine/devices.ts";
import { qomPath, userDeviceId } from "./machine/disks.ts";
import { openEntropy } from "./machine/entropy.ts";
import type { Machine } from "./machine/machine.ts";
import { ROOT_PORT } from "./machine/pci.ts";
import type { NetdevSet } from "./netdev_set.ts";
import type { RunState } from "./run_state.ts";

/** What can be plugged in: the machine has looked for all others when it was made. */
const pluggable = [ROOT_PORT, "virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci"];

/** Milliseconds for which a guest that is asked to give a device up is not asked again, as QEMU's. */
const ASKED_MS = 5000;
/** Milliseconds until a look is repeated that could not be taken. */
const AGAIN_MS = 100;

/** States in which the guest has not run yet: what comes then is there when it starts. */
const beforeGuest: readonly RunState[] = ["inmigrate", "prelaunch"];

/** The VM whose devices they are. */
export interface HotplugOwner {
  readonly config: MachineConfig;
  readonly runState: RunState;
  readonly machine: Machine;
  readonly blocks: BlockSet;
  readonly netdevs: NetdevSet;
  readonly events: EventHub;
  readonly ending: AbortSignal;
  /** What the VM is made of from now on. */
  setDevices(devices: readonly DeviceConfig[]): void;
}

/** Devices that come and go. */
export class Hotplug {
  readonly #vm: HotplugOwner;
  /** Those that the VM was made with. */
  readonly #first: readonly DeviceConfig[];
  /** When the guest was asked to give a device up. */
  readonly #asked = new Map<string, number>();
  /** What is open for a device that has come. */
  readonly #opened = new Map<string, DisposableStack>();
  #again: ReturnType<typeof setTimeout> | undefined;
  /** Whether the machine's parts must stay as they are now, since its state is on its way. */
  isFrozen: () => boolean = () => false;

  /** @param vm the VM */
  constructor(vm: HotplugOwner) {
    this.#vm = vm;
    this.#first = vm.config.devices;
  }

  /** What has come and what has gone since the VM was made, as far as that has an id. */
  get changes(): DeviceChanges {
    const { devices } = this.#vm.config;
    const plugged = devices.filter((device) => !this.#first.includes(device));
    return {
      plugged: plugged.map(({ driver, id, properties }) => ({
        driver,
        ...id !== undefined && { id },
        ...properties,
      })),
      unplugged: this.#first.filter((device) => !devices.includes(device))
        .flatMap(({ id }) => id === undefined ? [] : [id]),
    };
  }

  /**
   * Plugs a device in.
   *
   * @throws {Error} in QEMU's words if it cannot be
   */
  add(device: DeviceConfig): void {
    const { config, machine } = this.#vm;
    if (this.isFrozen()) throw new Error("device_add not allowed while migrating");
    this.look();
    checkPluggable(device.driver);
    this.#checkId(device);
    checkValues(device, config);
    const after = { ...config, devices: [...config.devices, device] };
    const request = machineDevices(after).at(-1)!;
    const { parent } = request;
    if (parent === undefined ? this.#vm.runState !== "inmigrate" : this.#isFixed(parent)) {
      throw new Error(
        parent === undefined
          ? "Bus 'pcie.0' does not support hotplugging"
          : `Hot-plug failed: unsupported by the port device '${parent}'`,
      );
    }
    if (parent !== undefined && this.#slot(parent, ({ isBusy }) => isBusy)) {
      throw new Error("Hot-plug failed: guest is busy (power indicator blinking)");
    }
    this.#checkBackends(request);
    const opened = new DisposableStack();
    try {
      const [ready] = openEntropy([this.#withBackends(request, after, opened)], config, opened);
      machine.whileStill(() => {
        machine.plug(ready);
        if (parent !== undefined) this.#fill(parent);
      });
    } catch (error) {
      opened.dispose();
      throw error;
    }
    this.#opened.set(request.id, opened);
    this.#vm.setDevices(after.devices);
  }

  /**
   * Asks the guest to give a device up; takes it out at once where the guest does not use it.
   *
   * @param port the port that it is behind
   * @throws {Error} in QEMU's words if it cannot be taken out
   */
  remove({ id, type }: DeviceInstance, port: string): void {
    if (this.isFrozen()) throw new Error("device_del not allowed while migrating");
    checkPluggable(type.name);
    if (this.#isFixed(port)) {
      throw new Error(`Hot-unplug failed: unsupported by the port device '${port}'`);
    }
    const asked = this.#asked.get(id);
    if (asked !== undefined && performance.now() < asked + ASKED_MS) {
      throw new Error(`Device ${id} is already in the process of unplug`);
    }
    if (this.#slot(port, ({ isBusy }) => isBusy)) {
      throw new Error("Hot-unplug failed: guest is busy (power indicator blinking)");
    }
    if (beforeGuest.includes(this.#vm.runState) || this.#slot(port, ({ isOff }) => isOff)) {
      this.#slot(port, (slot) => slot.empty());
      return this.#takeOut(id);
    }
    this.#asked.set(id, performance.now());
    this.#slot(port, (slot) => slot.pressButton());
  }

  /** Takes out what the guest has given up. What stays with the machine is there again after a reset. */
  look(): void {
    clearTimeout(this.#again);
    // Slots say nothing before the guest's state is in them.
    if (this.#vm.runState === "inmigrate") return;
    for (const { id, type, parent } of this.#vm.machine.devices.description.devices) {
      if (parent === undefined || !this.#isPort(parent) || !pluggable.includes(type)) continue;
      if (this.#slot(parent, ({ isOccupied }) => isOccupied)) continue;
      if (this.isFrozen()) return this.#lookAgain();
      try {
        this.#takeOut(id);
      } catch {
        // A thread does not stop now: its disk does not answer.
        return this.#lookAgain();
      }
    }
  }

  /** Ends with the VM, before its disks are closed. */
  close(): void {
    clearTimeout(this.#again);
    for (const opened of this.#opened.values()) opened.dispose();
    this.#opened.clear();
  }

  #lookAgain(): void {
    if (this.#vm.ending.aborted) return;
    this.#again = setTimeout(() => this.look(), AGAIN_MS);
  }

  #takeOut(id: string): void {
    const { machine, events, config } = this.#vm;
    const device = machine.devices.devices.find((one) => one.id === id)!;
    machine.whileStill(() => machine.unplug(id));
    const { drive } = device.properties;
    const opened = this.#opened.get(id);
    if (opened) opened.dispose();
    else if (typeof drive === "string") this.#vm.blocks.detach(drive);
    this.#opened.delete(id);
    this.#asked.delete(id);
    const given = config.devices.find((one) => userDeviceId(one, config.devices) === id);
    const path = qomPath(id, config);
    this.#vm.setDevices(config.devices.filter((one) => one !== given));
    // Under QEMU a virtio function is two devices.
    events.emit("DEVICE_DELETED", { path: `${path}/virtio-backend` });
    events.emit("DEVICE_DELETED", { ...given?.id !== undefined && { device: given.id }, path });
  }

  /** A device that comes before the guest is there from the start; otherwise the guest is told. */
  #fill(port: string): void {
    const { machine: { devices }, runState } = this.#vm;
    if (beforeGuest.includes(runState)) devices.with(port, (device) => device.reset());
    else this.#slot(port, (slot) => slot.fill());
  }

  #slot<T>(port: string, action: (slot: Slot) => T): T {
    return this.#vm.machine.devices.with(port, ({ slot }) => action(slot!));
  }

  #isPort(id: string): boolean {
    return this.#find(id)?.type.name === ROOT_PORT;
  }

  #isFixed(port: string): boolean {
    return this.#find(port)?.properties.hotplug !== true;
  }

  #find(id: string): DeviceInstance | undefined {
    return this.#vm.machine.devices.devices.find((device) => device.id === id);
  }

  #checkId(device: DeviceConfig): void {
    const { config: { devices } } = this.#vm;
    const id = device.id ?? `${device.driver}.${devices.length}`;
    if (!this.#find(id)) return;
    throw new Error(
      device.id === undefined
        ? `Device '${device.driver}' needs an id: '${id}' is another's`
        : `Duplicate device ID '${id}'`,
    );
  }

  /** @throws {Error} if a disk or a network that it names is none, or another device's */
  #checkBackends({ type, properties: { drive, netdev } }: DeviceRequest): void {
    const { blocks, netdevs, machine: { devices } } = this.#vm;
    if (findDeviceType(type).properties.drive && drive === undefined) {
      throw new Error("drive property not set");
    }
    if (typeof drive === "string" && !blocks.has(drive)) {
      throw new Error(`Property '${type}.drive' can't find value '${drive}'`);
    }
    if (typeof netdev !== "string") return;
    if (!netdevs.backends.has(netdev)) {
      throw new Error(`Property '${type}.netdev' can't find value '${netdev}'`);
    }
    if (devices.netDevice(netdev)) {
      throw new Error(`Property '${type}.netdev' can't take value '${netdev}', it's in use`);
    }
  }

  #withBackends(
    request: DeviceRequest,
    config: MachineConfig,
    opened: DisposableStack,
  ): DeviceRequest {
    const { blocks, netdevs } = this.#vm;
    return withBackends(request, config, {
      sink: noChardev,
      vhostUser: noChardev,
      netPort: (id) => netdevs.port(id),
      vsockPort: noChardev,
      disk(drive, user) {
        const disk = blocks.attach(drive, user);
        opened.defer(() => blocks.detach(drive));
        return disk;
      },
    });
  }
}

/** @throws {Error} in QEMU's words if devices of a type come and go with the machine only */
function checkPluggable(type: string): void {
  if (!pluggable.includes(type)) throw new Error(`Device '${type}' does not support hotplugging`);
}

/** What can be plugged in has no character device, and is no socket device. */
function noChardev(id: string): never {
  throw new Error(`Property 'chardev' can't find value '${id}'`);
}

/** @throws {Error} if a property's value is none that the device takes */
function checkValues(
  { driver, properties }: DeviceConfig,
  { iothreads, rngs }: MachineConfig,
): void {
  const type = findDeviceType(driver);
  type.check?.(withDefaults(type, properties));
  const kinds = { iothread: iothreads, "rng-backend": rngs };
  for (const [name, value] of Object.entries(properties)) {
    const { to } = type.properties[name];
    if (to !== undefined && !kinds[to].some(({ id }) => id === value)) {
      throw new Error(`Device '${value}' not found`);
    }
  }
}
