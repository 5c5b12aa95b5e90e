/**
 * The machine's devices: where their shared state lies, their timers, and how they are saved.
 *
 * @module
 */
import type { AttachedDisk } from "../../devices/block/disk.ts";
import type { SinkDescription } from "../../devices/chardev/sink.ts";
import {
  type AddressRange,
  type Device,
  type DeviceLayout,
  type DeviceType,
  layoutFor,
  type Properties,
  type RangeDeclaration,
  withDefaults,
} from "../../devices/device.ts";
import type { NetPortDescription } from "../../devices/net/port.ts";
import { deviceTypes } from "../../devices/registry.ts";
import type { VhostUserDescription } from "../../devices/vhost_user/port.ts";
import { drainEvent, Epoll, makeEventfd, makeTimerfd, monotonicNs } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { AcceleratorVm } from "../accel/accelerator.ts";
import { RangeBases } from "./bases.ts";
import { SHARED_LINE_WORDS } from "./shared_line.ts";
import { checkOverlap, type PlacedRange, placeRanges } from "./bus.ts";
import type { ThreadControl } from "../threads/control_block.ts";
import { MovingDoorbells } from "./moving_doorbells.ts";
import type { RamRange } from "./device_memory.ts";
import {
  type DeviceDescription,
  type DeviceSetDescription,
  type SharedLines,
  ThreadDevices,
} from "./thread_devices.ts";

/** A device to be made. */
export interface DeviceRequest {
  /** The device type's name. */
  readonly type: string;
  /** Unique among the machine's devices; saved state is keyed by (type, id). */
  readonly id: string;
  /** Properties that differ from their defaults. */
  readonly properties: Properties;
  /** The id of the device whose bus it is on, where that is one; it comes before. */
  readonly parent?: string;
  /** Where the device's character output goes. */
  readonly sink?: SinkDescription;
  /** Where its frames go, and come from. */
  readonly netdev?: NetPortDescription;
  /** The disk that the device has. */
  readonly disk?: AttachedDisk;
  /** The back-end that works on its queues. */
  readonly vhostUser?: VhostUserDescription;
  /** What the device is given, and never changes. */
  readonly content?: Uint8Array<SharedArrayBuffer>;
}

/** A device of the machine. */
export interface DeviceInstance {
  readonly type: DeviceType;
  readonly id: string;
  /** All properties. */
  readonly properties: Properties;
  /** How its state is laid out. */
  readonly layout: DeviceLayout;
  /** Its state, shared with all threads. */
  readonly state: Uint8Array<SharedArrayBuffer>;
}

/** Finds a device type. @throws {Error} with QEMU's words if there is none */
export function findDeviceType(name: string): DeviceType {
  const type = deviceTypes.find((type) => type.name === name);
  if (!type) throw new Error(`'${name}' is not a valid device model name`);
  return type;
}

/** The addresses and the interrupts of a device to be made. */
export function devicePlaces(
  { type: name, properties }: DeviceRequest,
): { ranges: readonly RangeDeclaration[]; irqs: readonly number[] } {
  const type = findDeviceType(name);
  const all = withDefaults(type, properties);
  return { ranges: type.ranges(all), irqs: type.irqs(all) };
}

/** Throws when a device's type is unknown, or two devices claim one address. */
export function checkDevices(requests: readonly DeviceRequest[]): void {
  const ranges = requests.flatMap((request) => devicePlaces(request).ranges);
  checkOverlap(
    ranges.flatMap(({ base, ...range }) => base === undefined ? [] : [{ ...range, base }]),
  );
}

/** Whether there are devices that want work done beside the vCPUs, and name no thread for it. */
export function needIoThread(requests: readonly DeviceRequest[]): boolean {
  return requests.some(({ type, properties }) =>
    findDeviceType(type).doorbells !== undefined && properties.iothread === undefined
  );
}

/** All devices, as the main thread sees them. */
export class DeviceSet implements Disposable {
  readonly devices: readonly DeviceInstance[];
  /** Plain data from which any thread builds its own devices. */
  readonly description: DeviceSetDescription;
  /** Of each device. */
  readonly #timers: readonly (readonly OwnedFd[])[];
  /** Of each device. */
  readonly #doorbells: readonly (readonly OwnedFd[])[];
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
    checkDevices(requests);
    const { devices, offsets, state } = placeStates(requests);
    this.devices = devices;
    this.#timers = devices.map(({ type }) => Array.from({ length: type.timers ?? 0 }, makeTimerfd));
    this.#doorbells = devices.map((device) => connectDoorbells(device, vm));
    this.#reactor = reactor;
    const { locks, words } = numberLocks(devices);
    const { ranges, slots } = numberRanges(devices);
    this.description = {
      interrupts: vm.interruptsDescription,
      eventFd,
      ram,
      state,
      mutexes: new SharedArrayBuffer(4 * Math.max(1, words)),
      bases: RangeBases.allocate(slots),
      movingDoorbells: MovingDoorbells.allocate(),
      sharedLines: shareLines(devices),
      devices: devices.map((device, i): DeviceDescription => ({
        type: device.type.name,
        id: device.id,
        properties: device.properties,
        ranges: ranges[i],
        stateOffset: offsets[i],
        mutex: i,
        timerFds: this.#timers[i].map(({ fd }) => fd),
        doorbellFds: this.#doorbells[i].map(({ fd }) => fd),
        locks: locks[i],
        parent: requests[i].parent,
        chardev: requests[i].sink,
        netdev: requests[i].netdev,
        disk: requests[i].disk,
        vhostUser: requests[i].vhostUser,
        content: requests[i].content,
      })),
    };
    this.#own = new ThreadDevices(this.description, control, vm.interrupts);
    this.#timers.forEach((timers, i) =>
      timers.forEach(({ fd }, index) =>
        reactor.add(fd, Epoll.IN, () => this.#timerExpired(fd, index, devices[i].id))
      )
    );
  }

  /** Where the devices' ranges are now, by device: those that are somewhere. */
  ranges(): ReadonlyMap<string, readonly AddressRange[]> {
    const { devices, bases } = this.description;
    const all = devices.flatMap(({ id, ranges }) => ranges.map((range) => ({ ...range, id })));
    return Map.groupBy(placeRanges(all, new RangeBases(bases)), ({ id }) => id);
  }

  /** Calls a device with its mutex held. */
  with<T>(id: string, action: (device: Device) => T): T {
    return this.#own.with(id, action);
  }

  /** A network backend has a connection that it had not. */
  netdevConnected(netdev: string): void {
    const device = this.netDevice(netdev);
    if (device) this.with(device.id, (one) => one.connected?.());
  }

  /** A back-end has a connection that it had not. */
  vhostUserConnected(chardev: string): void {
    const device = this.devices.find(({ type, properties }) =>
      type.vhostUser && properties.chardev === chardev
    );
    if (device) this.with(device.id, (one) => one.connected?.());
  }

  /** The device that uses a network backend. */
  netDevice(netdev: string): DeviceInstance | undefined {
    return this.devices.find(({ properties }) => properties.netdev === netdev);
  }

  /** Nobody works on devices' queues beside the parked threads any more. @throws {Error} if somebody does */
  quiesce(): void {
    for (const { id } of this.devices) this.with(id, (device) => device.quiesce?.());
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

  /** Ends the timers, and closes doorbells. */
  close(): void {
    for (const doorbell of this.#doorbells.flat()) doorbell.close();
    for (const timer of this.#timers.flat()) {
      this.#reactor.remove(timer.fd);
      timer.close();
    }
  }

  /** Ends the timers at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }

  #timerExpired(fd: number, index: number, id: string): void {
    if (drainEvent(fd)) this.with(id, (device) => device.timer?.(index, monotonicNs()));
  }
}

/** The devices, with their states one after another in memory that all threads share. */
function placeStates(requests: readonly DeviceRequest[]) {
  const described = requests.map((request) => {
    const type = findDeviceType(request.type);
    const properties = withDefaults(type, request.properties);
    return { type, id: request.id, properties, layout: layoutFor(type, properties) };
  });
  const offsets: number[] = [];
  let size = 0;
  for (const { layout } of described) {
    offsets.push(align(size));
    size = align(size) + layout.state.size;
  }
  const state = new SharedArrayBuffer(size);
  const devices = described.map((device, i): DeviceInstance => ({
    ...device,
    state: new Uint8Array(state, offsets[i], device.layout.state.size),
  }));
  return { devices, offsets, state };
}

/** Makes a device's doorbells. */
function connectDoorbells({ type, properties }: DeviceInstance, vm: AcceleratorVm): OwnedFd[] {
  const ranges = type.ranges(properties);
  return (type.doorbells?.(properties) ?? []).map(({ range, offset, value }) => {
    const { space, base, name } = ranges[range];
    if (space !== "mmio") {
      throw new RangeError(`Range '${name}' of a '${type.name}' cannot have doorbells`);
    }
    const event = makeEventfd();
    if (base !== undefined) vm.connectDoorbell({ address: base + offset, value, fd: event.fd });
    return event;
  });
}

/** Where the devices' other locks are behind their mutexes, and how many words that makes. */
function numberLocks(devices: readonly DeviceInstance[]) {
  let words = devices.length;
  const locks = devices.map(({ type }) => Array.from({ length: type.locks ?? 0 }, () => words++));
  return { locks, words };
}

/** The lines that several devices drive. */
function shareLines(devices: readonly DeviceInstance[]): SharedLines {
  const all = devices.flatMap(({ type, id, properties }) =>
    type.irqs(properties).map((gsi) => ({ gsi, id }))
  );
  const shared = [...Map.groupBy(all, ({ gsi }) => gsi)].filter(([, users]) => users.length > 1);
  const lines = shared.map(([gsi, users], i) =>
    [gsi, { at: SHARED_LINE_WORDS * i, ids: users.map(({ id }) => id) }] as const
  );
  const words = new SharedArrayBuffer(4 * SHARED_LINE_WORDS * Math.max(1, lines.length));
  return { words, lines: new Map(lines) };
}

/** The devices' ranges, those that move with their slots, and how many slots there are. */
function numberRanges(devices: readonly DeviceInstance[]) {
  let slots = 0;
  const ranges = devices.map(({ type, properties }) =>
    type.ranges(properties).map((range): PlacedRange =>
      range.base === undefined ? { ...range, slot: slots++ } : range
    )
  );
  return { ranges, slots };
}

/** States start on cache lines of their own: vCPUs on different devices shall not share one. */
function align(offset: number): number {
  return Math.ceil(offset / 64) * 64;
}
