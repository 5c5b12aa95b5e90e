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
import type { VsockPortDescription } from "../../devices/virtio/vsock_port.ts";
import { drainEvent, Epoll, makeEventfd, makeTimerfd, monotonicNs } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { AcceleratorVm } from "../accel/accelerator.ts";
import { RangeBases } from "./bases.ts";
import { Room } from "./room.ts";
import { type LineUser, shareLines, withoutUser, withUser } from "./shared_lines.ts";
import { checkOverlap, type PlacedRange, placeRanges } from "./bus.ts";
import type { ThreadControl } from "../threads/control_block.ts";
import { MovingDoorbells } from "./moving_doorbells.ts";
import type { RamRange } from "./device_memory.ts";
import {
  type DeviceDescription,
  type DeviceNews,
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
  readonly properties: Properties;
  /** The id of the device whose bus it is on, where that is one; it comes before. */
  readonly parent?: string;
  /** Where the device's character output goes. */
  readonly sink?: SinkDescription;
  /** Where its frames go, and come from. */
  readonly netdev?: NetPortDescription;
  /** The kernel's half of a socket device. */
  readonly vsock?: VsockPortDescription;
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

/**
 * Whether there are devices that want work done beside the vCPUs, and name no thread for it.
 *
 * @param isPluggable whether such devices may come while the guest runs
 */
export function needIoThread(requests: readonly DeviceRequest[], isPluggable: boolean): boolean {
  return isPluggable ||
    requests.some(({ type, properties }) =>
      findDeviceType(type).doorbells !== undefined && properties.iothread === undefined
    );
}

/** How many devices can have come while the guest runs. */
const MOST_PLUGGED = 64;
/** How many mutexes, and ranges that move, each may have. */
const MOST_LOCKS = 3;
const MOST_RANGES = 3;

/** A device's descriptors. */
interface DeviceFds {
  readonly timers: readonly OwnedFd[];
  readonly doorbells: readonly OwnedFd[];
}

/** All devices, as the main thread sees them. */
export class DeviceSet implements Disposable {
  readonly #devices: DeviceInstance[];
  #description: DeviceSetDescription;
  readonly #fds = new Map<string, DeviceFds>();
  readonly #reactor: Reactor;
  readonly #vm: AcceleratorVm;
  readonly #own: ThreadDevices;
  readonly #mutexRoom: Room;
  readonly #rangeRoom: Room;

  /**
   * Makes the devices, in their power-on state.
   *
   * @param requests the devices
   * @param vm the VM whose interrupt lines they drive
   * @param ram guest RAM
   * @param eventFd readable on the main thread when a device asks for something
   * @param control the main thread's mailbox
   * @param reactor runs the devices' timers
   * @param wires interrupts (GSIs) of devices that may come while the guest runs; none if none may
   * @throws {Error} when two devices claim one address
   */
  constructor(
    requests: readonly DeviceRequest[],
    vm: AcceleratorVm,
    ram: readonly RamRange[],
    eventFd: number,
    control: ThreadControl,
    reactor: Reactor,
    wires: readonly number[] = [],
  ) {
    checkDevices(requests);
    const { devices, offsets, state } = placeStates(requests);
    this.#devices = devices;
    this.#reactor = reactor;
    this.#vm = vm;
    const fds = devices.map((device) => this.#open(device));
    const { locks, words } = numberLocks(devices);
    const { ranges, slots } = numberRanges(devices);
    const room = wires.length > 0 ? MOST_PLUGGED : 0;
    this.#mutexRoom = new Room("lock", words, room * MOST_LOCKS);
    this.#rangeRoom = new Room("range of addresses", slots, room * MOST_RANGES);
    this.#description = {
      interrupts: vm.interruptsDescription,
      eventFd,
      ram,
      state,
      mutexes: new SharedArrayBuffer(4 * Math.max(1, words + room * MOST_LOCKS)),
      bases: RangeBases.allocate(slots + room * MOST_RANGES),
      movingDoorbells: MovingDoorbells.allocate(),
      sharedLines: shareLines(devices.flatMap(linesOf), wires),
      isPluggable: wires.length > 0,
      devices: devices.map((device, i): DeviceDescription => ({
        ...describe(requests[i], device, fds[i]),
        ranges: ranges[i],
        stateOffset: offsets[i],
        mutex: i,
        locks: locks[i],
      })),
    };
    this.#own = new ThreadDevices(this.#description, control, vm.interrupts);
    for (const device of devices) this.#watchTimers(device);
  }

  /** The devices that there are now. */
  get devices(): readonly DeviceInstance[] {
    return this.#devices;
  }

  /** Plain data from which any thread builds its own devices. */
  get description(): DeviceSetDescription {
    return this.#description;
  }

  /**
   * Makes one more device, in its power-on state. All threads are parked.
   *
   * @returns what the other threads are to be told
   * @throws {Error} if there is no room for it
   */
  plug(request: DeviceRequest): DeviceNews {
    checkDevices([...this.#description.devices, request]);
    const { devices: [device], state } = placeStates([request]);
    // What was taken for a device that does not come is not lost.
    using undo = new DisposableStack();
    const take = (room: Room) => undo.adopt(room.take(), (number) => room.giveBack([number]));
    const ranges = device.type.ranges(device.properties).map((range): PlacedRange =>
      range.base === undefined ? { ...range, slot: take(this.#rangeRoom) } : range
    );
    const lines = withUser(this.#description.sharedLines.lines, linesOf(device));
    const [mutex, ...locks] = Array.from(
      { length: 1 + (device.type.locks ?? 0) },
      () => take(this.#mutexRoom),
    );
    const fds = this.#open(device);
    undo.defer(() => this.#closeFds(device.id));
    this.#watchTimers(device);
    const added: DeviceDescription = {
      ...describe(request, device, fds),
      ...{ ranges, state, stateOffset: 0, mutex, locks },
    };
    const news: DeviceNews = { added, lines };
    this.#own.learn(news);
    undo.move();
    const { sharedLines, devices } = this.#description;
    this.#description = {
      ...this.#description,
      sharedLines: { ...sharedLines, lines },
      devices: [...devices, added],
    };
    this.#devices.push(device);
    this.with(device.id, (one) => one.reset());
    return news;
  }

  /**
   * Takes a device out. All threads are parked, and nobody drives anything of it.
   *
   * @returns what the other threads are to be told
   */
  unplug(id: string): DeviceNews {
    const entry = this.#description.devices.find((device) => device.id === id)!;
    // It lets go of its lines, and nobody finds it at an address.
    this.with(id, (device) => device.reset());
    this.#own.clear(id);
    const news: DeviceNews = { removed: id };
    this.#own.learn(news);
    const { sharedLines, devices } = this.#description;
    this.#description = {
      ...this.#description,
      sharedLines: { ...sharedLines, lines: withoutUser(sharedLines.lines, id) },
      devices: devices.filter((device) => device !== entry),
    };
    this.#devices.splice(this.#devices.findIndex((device) => device.id === id), 1);
    this.#closeFds(id);
    this.#mutexRoom.giveBack([entry.mutex, ...entry.locks]);
    this.#rangeRoom.giveBack(entry.ranges.flatMap(({ slot }) => slot === undefined ? [] : [slot]));
    return news;
  }

  #open(device: DeviceInstance): DeviceFds {
    using opened = new DisposableStack();
    const timers = Array.from({ length: device.type.timers ?? 0 }, () => opened.use(makeTimerfd()));
    const fds = { timers, doorbells: connectDoorbells(device, this.#vm, opened) };
    this.#fds.set(device.id, fds);
    opened.move();
    return fds;
  }

  #watchTimers({ id }: DeviceInstance): void {
    this.#fds.get(id)!.timers.forEach(({ fd }, index) =>
      this.#reactor.add(fd, Epoll.IN, () => this.#timerExpired(fd, index, id))
    );
  }

  #closeFds(id: string): void {
    const { timers, doorbells } = this.#fds.get(id)!;
    this.#fds.delete(id);
    for (const doorbell of doorbells) doorbell.close();
    for (const timer of timers) {
      this.#reactor.remove(timer.fd);
      timer.close();
    }
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
    for (const id of [...this.#fds.keys()]) this.#closeFds(id);
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

/** What a description says of a device, but for its places in shared memory. */
function describe(
  { parent, sink, netdev, vsock, disk, vhostUser, content }: DeviceRequest,
  { type, id, properties }: DeviceInstance,
  { timers, doorbells }: DeviceFds,
) {
  return {
    type: type.name,
    id,
    properties,
    timerFds: timers.map(({ fd }) => fd),
    doorbellFds: doorbells.map(({ fd }) => fd),
    ...{ parent, netdev, vsock, disk, vhostUser, content },
    chardev: sink,
  };
}

/** Makes a device's doorbells. */
function connectDoorbells(
  { type, properties }: DeviceInstance,
  vm: AcceleratorVm,
  opened: DisposableStack,
): OwnedFd[] {
  const ranges = type.ranges(properties);
  return (type.doorbells?.(properties) ?? []).map(({ range, offset, value }) => {
    const { space, base, name } = ranges[range];
    if (space !== "mmio") {
      throw new RangeError(`Range '${name}' of a '${type.name}' cannot have doorbells`);
    }
    const event = opened.use(makeEventfd());
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

/** The lines that a device drives. */
function linesOf({ type, id, properties }: DeviceInstance): LineUser[] {
  return type.irqs(properties).map((gsi) => ({ gsi, id }));
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
