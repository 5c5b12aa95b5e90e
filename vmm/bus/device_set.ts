/**
 * The machine's devices: where their shared state lies, their timers, and how they are saved.
 *
 * @module
 */
import type { SinkDescription } from "../../devices/chardev/sink.ts";
import type { AddressRange, Device, DeviceType, PropertyValue } from "../../devices/device.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { drainEvent, Epoll, makeTimerfd, monotonicNs } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { AcceleratorVm } from "../accel/accelerator.ts";
import { checkOverlap } from "./bus.ts";
import type { ThreadControl } from "../threads/control_block.ts";
import type { RamRange } from "./device_memory.ts";
import {
  type DeviceDescription,
  type DeviceSetDescription,
  ThreadDevices,
} from "./thread_devices.ts";

/** A device to be made. */
export interface DeviceRequest {
  /** The device type's name. */
  readonly type: string;
  /** Unique among the machine's devices; saved state is keyed by (type, id). */
  readonly id: string;
  /** Properties that differ from their defaults. */
  readonly properties: Readonly<Record<string, PropertyValue>>;
  /** Where the device's character output goes. */
  readonly sink?: SinkDescription;
  /** What the device is given, and never changes. */
  readonly content?: Uint8Array<SharedArrayBuffer>;
}

/** A device of the machine. */
export interface DeviceInstance {
  readonly type: DeviceType;
  readonly id: string;
  /** All properties. */
  readonly properties: Readonly<Record<string, PropertyValue>>;
  readonly ranges: readonly AddressRange[];
  /** Its state, shared with all threads. */
  readonly state: Uint8Array<SharedArrayBuffer>;
}

/** Finds a device type. @throws {Error} with QEMU's words if there is none */
export function findDeviceType(name: string): DeviceType {
  const type = deviceTypes.find((type) => type.name === name);
  if (!type) throw new Error(`'${name}' is not a valid device model name`);
  return type;
}

/** Throws when a device's type is unknown, or two devices claim one address. */
export function checkDevices(requests: readonly DeviceRequest[]): void {
  checkOverlap(requests.flatMap((request) => {
    const type = findDeviceType(request.type);
    return type.ranges(withDefaults(type, request.properties));
  }));
}

/** All devices, as the main thread sees them. */
export class DeviceSet implements Disposable {
  readonly devices: readonly DeviceInstance[];
  /** Plain data from which any thread builds its own devices. */
  readonly description: DeviceSetDescription;
  readonly #timers: OwnedFd[];
  readonly #reactor: Reactor;
  readonly #own: ThreadDevices;

  /**
   * Makes the devices, in their power-on state.
   *
   * @param requests the devices
   * @param vm the VM whose interrupt lines they drive
   * @param ram guest RAM
   * @param eventFd readable on the main thread when a device asks for something
   * @param control the main thread's mailbox
   * @param reactor runs the devices' timers
   * @throws {Error} when two devices claim one address
   */
  constructor(
    requests: readonly DeviceRequest[],
    vm: AcceleratorVm,
    ram: readonly RamRange[],
    eventFd: number,
    control: ThreadControl,
    reactor: Reactor,
  ) {
    const types = requests.map((request) => findDeviceType(request.type));
    const offsets: number[] = [];
    const size = types.reduce(
      (end, type, i) => (offsets[i] = align(end), offsets[i] + type.state.size),
      0,
    );
    const state = new SharedArrayBuffer(size);
    this.devices = requests.map((request, i) => {
      const properties = withDefaults(types[i], request.properties);
      return {
        type: types[i],
        id: request.id,
        properties,
        ranges: types[i].ranges(properties),
        state: new Uint8Array(state, offsets[i], types[i].state.size),
      };
    });
    checkDevices(requests);
    this.#timers = requests.map(makeTimerfd);
    this.#reactor = reactor;
    this.description = {
      interrupts: vm.interruptsDescription,
      eventFd,
      ram,
      state,
      mutexes: new SharedArrayBuffer(4 * Math.max(1, requests.length)),
      devices: this.devices.map((device, i): DeviceDescription => ({
        type: device.type.name,
        id: device.id,
        properties: device.properties,
        stateOffset: offsets[i],
        mutex: i,
        timerFd: this.#timers[i].fd,
        chardev: requests[i].sink,
        content: requests[i].content,
      })),
    };
    this.#own = new ThreadDevices(this.description, control, vm.interrupts);
    this.#timers.forEach((timer, i) =>
      reactor.add(timer.fd, Epoll.IN, () => this.#timerExpired(timer.fd, this.devices[i].id))
    );
  }

  /** Calls a device with its mutex held. */
  with<T>(id: string, action: (device: Device) => T): T {
    return this.#own.with(id, action);
  }

  /** Puts every device into its power-on state. */
  reset(): void {
    for (const { id } of this.devices) this.with(id, (device) => device.reset());
  }

  /**
   * Gives a device saved state.
   *
   * @throws {RangeError} if it has not the size of this version's state
   */
  restore(device: DeviceInstance, state: Uint8Array): void {
    if (state.length !== device.state.length) {
      throw new RangeError(
        `State of device '${device.id}' has ${state.length} bytes, expected ${device.state.length}`,
      );
    }
    device.state.set(state);
  }

  /** After all state is in: lets the devices drive their interrupt lines and timers from it. */
  restored(): void {
    for (const { id } of this.devices) this.with(id, (device) => device.restored?.());
  }

  /** Ends the timers. */
  close(): void {
    for (const timer of this.#timers) {
      this.#reactor.remove(timer.fd);
      timer.close();
    }
  }

  /** Ends the timers at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }

  #timerExpired(fd: number, id: string): void {
    if (drainEvent(fd)) this.with(id, (device) => device.timer?.(monotonicNs()));
  }
}

/** States start on cache lines of their own: vCPUs on different devices shall not share one. */
function align(offset: number): number {
  return Math.ceil(offset / 64) * 64;
}

function withDefaults(
  type: DeviceType,
  given: Readonly<Record<string, PropertyValue>>,
): Readonly<Record<string, PropertyValue>> {
  const all: Record<string, PropertyValue> = {};
  for (const [name, declaration] of Object.entries(type.properties)) {
    const value = given[name] ?? declaration.default;
    if (value !== undefined) all[name] = value;
  }
  return all;
}
