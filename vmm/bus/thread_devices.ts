/**
 * The devices as one thread has them: the same shared state on every thread, with objects of the
 * thread's own over it.
 *
 * @module
 */
import type { AttachedDisk } from "../../devices/block/disk.ts";
import { openSink, type SinkDescription } from "../../devices/chardev/sink.ts";
import {
  type DescriptorWatch,
  type DescriptorWatcher,
  type Device,
  type DeviceContext,
  type GuestRequest,
  type Interrupt,
  layoutFor,
  type Properties,
} from "../../devices/device.ts";
import { type NetPortDescription, openPort } from "../../devices/net/port.ts";
import { lock, unlock } from "../../devices/mutex.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { type VhostUserDescription, VhostUserPort } from "../../devices/vhost_user/port.ts";
import { openVsockPort, type VsockPortDescription } from "../../devices/virtio/vsock_port.ts";
import { armTimerfd, monotonicNs, realtimeNs, signalEventfd } from "../../ffi/event.ts";
import type { IoUring } from "../../ffi/io_uring.ts";
import type { InterruptLines, InterruptsDescription } from "../accel/accelerator.ts";
import { IOAPIC2_GSI, IOAPIC2_ID } from "../machine/microvm.ts";
import { RangeBases } from "./bases.ts";
import { Bus, type Claim, type PlacedRange } from "./bus.ts";
import { SharedLine } from "./shared_line.ts";
import { GuestEvent, type ThreadControl, Wanted } from "../threads/control_block.ts";
import { MovingDoorbells } from "./moving_doorbells.ts";
import { GuestRam, type RamRange } from "./device_memory.ts";

/** A device as plain data, to be built on any thread. */
export interface DeviceDescription {
  /** The device type's name. */
  readonly type: string;
  readonly id: string;
  readonly properties: Properties;
  readonly ranges: readonly PlacedRange[];
  /** The memory that its state is in, unless it is the one of all, and the offset there. */
  readonly state?: SharedArrayBuffer;
  readonly stateOffset: number;
  /** Index of its mutex among the mutex words. */
  readonly mutex: number;
  /** The timerfd of each of its timers. */
  readonly timerFds: readonly number[];
  /** The eventfd of each of its doorbells. */
  readonly doorbellFds: readonly number[];
  /** Indices of its other locks among the mutex words. */
  readonly locks: readonly number[];
  /** The id of the device whose bus it is on; it comes before. */
  readonly parent?: string;
  readonly chardev?: SinkDescription;
  readonly netdev?: NetPortDescription;
  readonly vsock?: VsockPortDescription;
  readonly disk?: AttachedDisk;
  readonly vhostUser?: VhostUserDescription;
  readonly content?: Uint8Array<SharedArrayBuffer>;
}

/** Interrupt lines that several devices drive. */
export interface SharedLines {
  /** Their words, one line's after the other's. */
  readonly words: SharedArrayBuffer;
  /** By line (GSI): its first word, and the ids of the devices. */
  readonly lines: ReadonlyMap<number, { readonly at: number; readonly ids: readonly string[] }>;
}

/** Everything that a thread needs to build the devices. */
export interface DeviceSetDescription {
  /** The chips whose lines the devices drive. */
  readonly interrupts: InterruptsDescription;
  /** Readable on the main thread when a thread has left an event. */
  readonly eventFd: number;
  readonly ram: readonly RamRange[];
  readonly state: SharedArrayBuffer;
  readonly mutexes: SharedArrayBuffer;
  /** Where the ranges that move are. */
  readonly bases: SharedArrayBuffer;
  /** Of the doorbells in ranges that move. */
  readonly movingDoorbells: SharedArrayBuffer;
  /** The lines that several devices drive. */
  readonly sharedLines: SharedLines;
  readonly devices: readonly DeviceDescription[];
  /** Whether devices can come and go. */
  readonly isPluggable: boolean;
}

/** An I/O thread, as the devices see it that it works for. */
export interface IoService {
  /** The id of the object that it is; undefined for the machine's own. */
  readonly ioThread?: string;
  readonly watcher: DescriptorWatcher & {
    /**
     * Watches a descriptor no more, which may be closed.
     *
     * @param watch given, only if this is what watches it
     */
    unwatch(fd: number, watch?: DescriptorWatch): void;
  };
  /** For its disks that make requests at once, if it has any. */
  readonly uring?: IoUring;
}

/** Whether a device's work is done by an I/O thread. */
export function isServedBy(
  { properties }: Pick<DeviceDescription, "properties">,
  ioThread: string | undefined,
): boolean {
  return properties.iothread === ioThread;
}

/** What is asked for; nothing where the main thread finds it by looking. */
const requestEvents: Record<GuestRequest["kind"], number | undefined> = {
  reset: GuestEvent.RESET,
  shutdown: GuestEvent.SHUTDOWN,
  suspend: GuestEvent.SUSPEND,
  "debug-exit": GuestEvent.DEBUG_EXIT,
  "disk-error": GuestEvent.DISK_ERROR,
  "port-change": undefined,
  "balloon-change": undefined,
  "slot-change": undefined,
};

/** What threads are told while the machine stands still: a device has come, or gone. */
export type DeviceNews =
  | { readonly added: DeviceDescription; readonly lines: SharedLines["lines"] }
  | { readonly removed: string };

/** A device on this thread. */
interface ThreadDevice {
  readonly device: Device;
  readonly entry: DeviceDescription;
  /** Descriptors that it watches. */
  readonly watches: ReadonlyMap<number, DescriptorWatch>;
}

/** The devices on this thread. */
export class ThreadDevices {
  /** Address decoding over the devices. */
  readonly bus: Bus;
  readonly #devices = new Map<string, ThreadDevice>();
  readonly #mutexes: Int32Array<SharedArrayBuffer>;
  readonly #doorbells: MovingDoorbells;
  readonly #description: DeviceSetDescription;
  readonly #surroundings: Surroundings;

  /**
   * Builds the devices.
   *
   * @param description plain data from the main thread
   * @param control where this thread reports what devices ask for
   * @param lines the interrupt lines on this thread
   * @param service on an I/O thread
   */
  constructor(
    description: DeviceSetDescription,
    control: ThreadControl,
    lines: InterruptLines,
    service?: IoService,
  ) {
    this.#mutexes = new Int32Array(description.mutexes);
    this.#description = description;
    const bases = new RangeBases(description.bases);
    const doorbells = new MovingDoorbells(description.movingDoorbells, bases, lines);
    this.#doorbells = doorbells;
    this.#surroundings = {
      eventFd: description.eventFd,
      memory: new GuestRam(description.ram, () => lines.ramWritten()),
      control,
      lines,
      doorbells,
      mutexes: this.#mutexes,
      service,
    };
    for (const entry of description.devices) this.#create(entry, description.sharedLines);
    this.#doorbells.change(this.entries);
    this.bus = new Bus(this.#claims, this.#mutexes, bases);
  }

  /** Learns of a device that has come or gone. Nobody else uses the devices meanwhile. */
  learn(news: DeviceNews): void {
    if ("added" in news) {
      const { words } = this.#description.sharedLines;
      this.#create(news.added, { words, lines: news.lines });
    } else this.#remove(news.removed);
    this.#doorbells.change(this.entries);
    this.bus.claim(this.#claims);
  }

  /** Puts a device's ranges nowhere, those that move. */
  clear(id: string): void {
    for (const { slot } of this.#devices.get(id)!.entry.ranges) {
      if (slot !== undefined) this.#doorbells.move(slot, undefined);
    }
  }

  #create(entry: DeviceDescription, sharedLines: SharedLines): void {
    const type = deviceTypes.find((type) => type.name === entry.type)!;
    const { lines } = this.#surroundings;
    const interrupts = type.irqs(entry.properties).map((gsi) =>
      shareLine(sharedLines, gsi, entry.id, this.#interrupt(gsi, lines))
    );
    const parent = entry.parent === undefined ? undefined : this.#devices.get(entry.parent)?.device;
    const watches = new Map<number, DescriptorWatch>();
    const context = { ...makeContext(this.#surroundings, entry, interrupts, watches), parent };
    const { state } = layoutFor(type, entry.properties);
    const view = state.view(entry.state ?? this.#description.state, entry.stateOffset);
    const device = type.create(view, context, entry.properties);
    this.#devices.set(entry.id, { device, entry, watches });
  }

  #remove(id: string): void {
    const { device, watches } = this.#devices.get(id)!;
    device.unplugged?.();
    for (const [fd, watch] of watches) this.#surroundings.service?.watcher.unwatch(fd, watch);
    this.#devices.delete(id);
  }

  /** The devices that there are now. */
  get entries(): DeviceDescription[] {
    return Array.from(this.#devices.values(), ({ entry }) => entry);
  }

  get #claims(): Claim[] {
    return [...this.#devices.values()].flatMap(({ device, entry: { ranges, mutex } }) =>
      ranges.map((range, number) => ({ ...range, range: number, device, mutex }))
    );
  }

  /** Lets a device look for work that one of its doorbells tells of. Its mutex is not held. */
  rung(id: string, doorbell: number): void {
    this.#doorbells.connect();
    this.#devices.get(id)!.device.rung?.(doorbell);
  }

  /** The thread that works on a device's queues stands still from now on. Its mutex is not held. */
  rest(id: string): void {
    this.#devices.get(id)!.device.rest?.();
  }

  /** Calls a device with its mutex held. */
  with<T>(id: string, action: (device: Device) => T): T {
    const { device, entry: { mutex } } = this.#devices.get(id)!;
    lock(this.#mutexes, mutex);
    try {
      return action(device);
    } finally {
      unlock(this.#mutexes, mutex);
    }
  }

  /** An input of the accelerator's chips, or of the second I/O APIC, which is a device. */
  #interrupt(gsi: number, lines: InterruptLines): Interrupt {
    const pin = gsi - IOAPIC2_GSI;
    if (pin < 0) return { set: (level) => lines.setLine(gsi, level) };
    return { set: (level) => this.with(IOAPIC2_ID, (ioapic) => ioapic.setInput!(pin, level)) };
  }
}

/** A device's end of a line, which others may drive as well. */
function shareLine(shared: SharedLines, gsi: number, id: string, line: Interrupt): Interrupt {
  const found = shared.lines.get(gsi);
  if (!found) return line;
  return new SharedLine(new Int32Array(shared.words), found.at, found.ids.indexOf(id), line);
}

const nothing = new Uint8Array();

/** What the devices on one thread have in common. */
interface Surroundings {
  readonly eventFd: number;
  readonly memory: GuestRam;
  readonly control: ThreadControl;
  readonly lines: InterruptLines;
  readonly doorbells: MovingDoorbells;
  readonly mutexes: Int32Array<SharedArrayBuffer>;
  readonly service?: IoService;
}

/** Notes what a device watches. */
function noteWatches(
  watcher: DescriptorWatcher,
  watches: Map<number, DescriptorWatch>,
): DescriptorWatcher {
  return {
    watch(fd, events, ready) {
      const watch = watcher.watch(fd, events, ready);
      watches.set(fd, watch);
      return watch;
    },
    leave: (fd, isLeft) => watcher.leave(fd, isLeft),
  };
}

function makeContext(
  { eventFd, memory, control, lines, doorbells, mutexes, service }: Surroundings,
  entry: DeviceDescription,
  interrupts: readonly Interrupt[],
  watches: Map<number, DescriptorWatch>,
): DeviceContext {
  const served = service && isServedBy(entry, service.ioThread) ? service : undefined;
  return {
    interrupts,
    timers: entry.timerFds.map((fd) => ({ arm: (deadlineNs) => armTimerfd(fd, deadlineNs) })),
    doorbells: entry.doorbellFds.map((fd) => ({ fd, ring: () => signalEventfd(fd) })),
    locks: entry.locks.map((index) => ({
      lock: () => lock(mutexes, index),
      unlock: () => unlock(mutexes, index),
    })),
    watcher: served && noteWatches(served.watcher, watches),
    uring: served?.uring,
    memory,
    sendMsi: (address, data) => lines.sendMsi(address, data),
    content: entry.content ?? nothing,
    chardev: entry.chardev && openSink(entry.chardev),
    netdev: entry.netdev && openPort(entry.netdev),
    vsock: entry.vsock && openVsockPort(entry.vsock),
    disk: entry.disk,
    vhostUser: entry.vhostUser && new VhostUserPort(entry.vhostUser),
    realtimeNs,
    monotonicNs,
    moveRange(range, base) {
      const { slot, name } = entry.ranges[range];
      if (slot === undefined) throw new RangeError(`Range '${name}' of '${entry.id}' cannot move`);
      doorbells.move(slot, base);
    },
    request(request) {
      const event = requestEvents[request.kind];
      const argument = request.kind === "debug-exit" ? request.status : 0;
      if (event !== undefined) control.post(event, argument);
      signalEventfd(eventFd);
    },
    isParking: () => control.wanted !== Wanted.RUN,
    warn: (text) => console.error(`denovo: ${text}`),
  };
}
