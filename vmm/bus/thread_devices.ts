/**
 * The devices as one thread has them: the same shared state on every thread, with objects of the
 * thread's own over it.
 *
 * @module
 */
import { nullSink, openSink, type SinkDescription } from "../../devices/chardev/sink.ts";
import type { Device, DeviceContext, GuestRequest, PropertyValue } from "../../devices/device.ts";
import { lock, unlock } from "../../devices/mutex.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { armTimerfd, monotonicNs, realtimeNs, signalEventfd } from "../../ffi/event.ts";
import type { InterruptLines, InterruptsDescription } from "../accel/accelerator.ts";
import { Bus, type Claim } from "./bus.ts";
import { GuestEvent, type ThreadControl } from "../threads/control_block.ts";
import { GuestRam, type RamRange } from "./device_memory.ts";

/** A device as plain data, to be built on any thread. */
export interface DeviceDescription {
  /** The device type's name. */
  readonly type: string;
  readonly id: string;
  readonly properties: Readonly<Record<string, PropertyValue>>;
  /** Byte offset of its state in the shared state buffer. */
  readonly stateOffset: number;
  /** Index of its mutex among the mutex words. */
  readonly mutex: number;
  /** The timerfd that `armTimer` sets. */
  readonly timerFd: number;
  readonly chardev?: SinkDescription;
  readonly content?: Uint8Array<SharedArrayBuffer>;
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
  readonly devices: readonly DeviceDescription[];
}

const requestEvents: Record<GuestRequest["kind"], number> = {
  reset: GuestEvent.RESET,
  shutdown: GuestEvent.SHUTDOWN,
  "debug-exit": GuestEvent.DEBUG_EXIT,
};

/** The devices on this thread. */
export class ThreadDevices {
  /** Address decoding over the devices. */
  readonly bus: Bus;
  readonly #devices = new Map<string, { device: Device; mutex: number }>();
  readonly #mutexes: Int32Array<SharedArrayBuffer>;

  /**
   * Builds the devices.
   *
   * @param description plain data from the main thread
   * @param control where this thread reports what devices ask for
   * @param lines the interrupt lines on this thread
   */
  constructor(description: DeviceSetDescription, control: ThreadControl, lines: InterruptLines) {
    this.#mutexes = new Int32Array(description.mutexes);
    const claims: Claim[] = [];
    const memory = new GuestRam(description.ram);
    for (const entry of description.devices) {
      const type = deviceTypes.find((type) => type.name === entry.type)!;
      const irqs = type.irqs(entry.properties);
      const context = makeContext(description, entry, irqs, memory, control, lines);
      const state = type.state.view(description.state, entry.stateOffset);
      const device = type.create(state, context, entry.properties);
      this.#devices.set(entry.id, { device, mutex: entry.mutex });
      type.ranges(entry.properties).forEach((range, number) =>
        claims.push({ ...range, range: number, device, mutex: entry.mutex })
      );
    }
    this.bus = new Bus(claims, this.#mutexes);
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
}

const nothing = new Uint8Array();

function makeContext(
  set: DeviceSetDescription,
  entry: DeviceDescription,
  irqs: readonly number[],
  memory: GuestRam,
  control: ThreadControl,
  lines: InterruptLines,
): DeviceContext {
  return {
    setIrq: (level, line = 0) => lines.setLine(irqs[line], level),
    memory,
    content: entry.content ?? nothing,
    chardev: entry.chardev ? openSink(entry.chardev) : nullSink,
    realtimeNs,
    monotonicNs,
    armTimer: (deadlineNs) => armTimerfd(entry.timerFd, deadlineNs),
    request(request) {
      control.post(requestEvents[request.kind], request.kind === "debug-exit" ? request.status : 0);
      signalEventfd(set.eventFd);
    },
  };
}
