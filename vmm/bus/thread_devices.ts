/**
 * The devices as one thread has them: the same shared state on every thread, with objects of the
 * thread's own over it.
 *
 * @module
 */
import type { AttachedDisk } from "../../devices/block/disk.ts";
import { openSink, type SinkDescription } from "../../devices/chardev/sink.ts";
import {
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
  /** Byte offset of its state in the shared state buffer. */
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
}

/** An I/O thread, as the devices see it that it works for. */
export interface IoService {
  /** The id of the object that it is; undefined for the machine's own. */
  readonly ioThread?: string;
  readonly watcher: DescriptorWatcher;
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

/** The devices on this thread. */
export class ThreadDevices {
  /** Address decoding over the devices. */
  readonly bus: Bus;
  readonly #devices = new Map<string, { device: Device; mutex: number }>();
  readonly #mutexes: Int32Array<SharedArrayBuffer>;
  readonly #doorbells: MovingDoorbells;

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
    const claims: Claim[] = [];
    const bases = new RangeBases(description.bases);
    const doorbells = new MovingDoorbells(
      description.movingDoorbells,
      description.devices,
      bases,
      lines,
    );
    this.#doorbells = doorbells;
    const surroundings: Surroundings = {
      eventFd: description.eventFd,
      memory: new GuestRam(description.ram, () => lines.ramWritten()),
      control,
      lines,
      doorbells,
      mutexes: this.#mutexes,
      service,
    };
    for (const entry of description.devices) {
      const type = deviceTypes.find((type) => type.name === entry.type)!;
      const interrupts = type.irqs(entry.properties).map((gsi) =>
        shareLine(description.sharedLines, gsi, entry.id, this.#interrupt(gsi, lines))
      );
      const parent = entry.parent === undefined
        ? undefined
        : this.#devices.get(entry.parent)?.device;
      const context = { ...makeContext(surroundings, entry, interrupts), parent };
      const { state } = layoutFor(type, entry.properties);
      const view = state.view(description.state, entry.stateOffset);
      const device = type.create(view, context, entry.properties);
      this.#devices.set(entry.id, { device, mutex: entry.mutex });
      entry.ranges.forEach((range, number) =>
        claims.push({ ...range, range: number, device, mutex: entry.mutex })
      );
    }
    this.bus = new Bus(claims, this.#mutexes, bases);
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
    const { device, mutex } = this.#devices.get(id)!;
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

function makeContext(
  { eventFd, memory, control, lines, doorbells, mutexes, service }: Surroundings,
  entry: DeviceDescription,
  interrupts: readonly Interrupt[],
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
    watcher: served?.watcher,
    uring: served?.uring,
    memory,
    sendMsi: (address, data) => lines.sendMsi(address, data),
    content: entry.content ?? nothing,
    chardev: entry.chardev && openSink(entry.chardev),
    netdev: entry.netdev && openPort(entry.netdev),
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
