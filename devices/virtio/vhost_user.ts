/**
 * Virtio devices whose queues a back-end works on, in a process of its own behind a vhost-user socket.
 *
 * The I/O thread sets the rings up when the driver is ready, passes the driver's doorbells on, and
 * interrupts the driver when the back-end says so. Where the back-end begins in a ring is what the driver
 * has seen of it, the used index: so nothing has to be asked of a back-end that has died, and one that
 * comes in its place takes up all that was not answered.
 *
 * @module
 */
import { Epoll } from "../../ffi/event.ts";
import { OsError } from "../../ffi/errno.ts";
import { writeAt } from "../../ffi/fd.ts";
import { shutdownSocket } from "../../ffi/socket.ts";
import { type Struct, struct, u8, type View } from "../../ffi/struct.ts";
import type { DescriptorWatch, DeviceContext } from "../device.ts";
import { readLittleEndian } from "../little_endian.ts";
import { type RingAddresses, ringAddresses, ringIndices } from "../vhost/vring.ts";
import { ask, REPLY_LIMIT_MS, send } from "../vhost_user/connection.ts";
import {
  configRange,
  F_PROTOCOL_FEATURES,
  type InflightRegion,
  inflightRegion,
  memoryTable,
  readRingNumber,
  Request,
  ringNumber,
  ringPlace,
  wideNumber,
} from "../vhost_user/message.ts";
import type { VhostUserPort } from "../vhost_user/port.ts";
import type { Virtio } from "./virtio.ts";
import type { VirtioBackend } from "./virtio_kind.ts";
import { InterruptCause } from "./virtio_state.ts";

const fields = {
  /** Whether the back-end behind the connection works on the rings. */
  started: u8,
};

/** The state of such a device. */
export const vhostUserState: Struct<typeof fields> = struct("vhost-user", fields);

/** As much as is written at a time. */
const zeros = new Uint8Array(1 << 16);
/** Nobody wakes it. */
const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** What a device can offer of its features: what the back-end has. */
export function offeredFeatures(wanted: bigint, { vhostUser }: DeviceContext): bigint {
  return vhostUser ? wanted & vhostUser.description.features : wanted;
}

/** How long a back-end may take for requests that a reset finds: milliseconds. */
const RESET_PATIENCE_MS = 1_000;
/** The same before a copy, which fails otherwise. */
const COPY_PATIENCE_MS = 30_000;

/** A ring as the driver has set it up. */
interface PlacedRing extends RingAddresses {
  readonly index: number;
  readonly size: number;
  /** Where the back-end begins. */
  readonly base: number;
}

/** Such a device on one thread. */
export class VhostUserDevice implements VirtioBackend {
  readonly #state: View<typeof fields>;
  readonly #virtio: Virtio;
  readonly #context: DeviceContext;
  readonly #port: VhostUserPort | undefined;
  /** Watches the connection, on the thread that works on queues, and which one. */
  #watched: { readonly connection: number; readonly watch?: DescriptorWatch } | undefined;
  #watchesCalls = false;

  constructor(state: View<typeof fields>, virtio: Virtio, context: DeviceContext) {
    this.#state = state;
    this.#virtio = virtio;
    this.#context = context;
    this.#port = context.vhostUser;
  }

  /** Requests wait while there is no connection. */
  handleQueue(index: number): void {
    const port = this.#port;
    const fd = port?.fd;
    if (!port || fd === undefined) return;
    this.#watch(port, fd);
    if (this.#state.started === 0) this.#start(port, fd);
    else port.kick(index);
  }

  connected(): void {
    this.#context.doorbells[0].ring();
  }

  readConfig(offset: number, size: number): number {
    const config = new Uint8Array(this.#port?.description.config ?? new ArrayBuffer(0));
    return readLittleEndian(config, offset, size);
  }

  /** Changes a byte of configuration, here and at the back-end. */
  changeConfig(offset: number, value: number): void {
    const port = this.#port;
    if (!port) return;
    this.#virtio.locked(() => {
      new Uint8Array(port.description.config)[offset] = value;
      const { fd } = port;
      if (fd === undefined) return;
      this.#attempt(fd, () => {
        send(fd, Request.SET_CONFIG, configRange(offset, Uint8Array.of(value)));
      });
    });
  }

  /** The back-end lets go of the rings, and of what it is at. */
  halt(): void {
    const port = this.#port;
    if (!port || this.#state.started === 0) return;
    this.#state.started = 0;
    const { fd, description: { inflight } } = port;
    if (fd !== undefined) {
      // Some back-ends take it ill to be stopped with requests in hand.
      this.#finishes(port, RESET_PATIENCE_MS);
      this.#attempt(fd, () => this.#stopRings(fd));
    }
    if (inflight) this.#forgetNotes(inflight, fd);
  }

  /** Zeros are a region that no back-end has used yet. What cannot be written is as bad as no answer. */
  #forgetNotes({ fd, size, offset }: InflightRegion & { readonly fd: number }, to?: number): void {
    try {
      for (let done = 0; done < size; done += zeros.length) {
        writeAt(fd, zeros.subarray(0, size - done), offset + done);
      }
    } catch (error) {
      this.#warn(error as Error);
      if (to !== undefined) shutdownSocket(to);
    }
  }

  /**
   * The back-end finishes all requests that there are. One that is not there cannot: what is noted of
   * those that it was at is with this VMM, and would be lost.
   *
   * @throws {Error}
   */
  quiesce(): void {
    const port = this.#port;
    if (!port) return;
    const { name } = this.#virtio.parts;
    this.#virtio.locked(() => {
      const wasStarted = this.#state.started !== 0;
      if (!wasStarted && !this.#virtio.isRunning) return;
      const { fd } = port;
      if (fd === undefined || !wasStarted) {
        this.#state.started = 0;
        if (this.#isIdle) return;
        throw new Error(`${name}: the vhost-user back-end is not there; try again when it is`);
      }
      if (!this.#finishes(port, COPY_PATIENCE_MS)) {
        throw new Error(`${name}: the vhost-user back-end does not finish the guest's requests`);
      }
      this.#state.started = 0;
      if (this.#attempt(fd, () => this.#stopRings(fd))) return;
      throw new Error(`${name}: the vhost-user back-end does not stop`);
    });
  }

  /** A back-end that another VMM was connected to knows nothing of the rings. */
  restored(): void {
    if (!this.#port?.description.isInherited) this.#state.started = 0;
  }

  /** Where the rings are that the driver has set up, by their numbers. */
  #rings(): PlacedRing[] {
    const { memory } = this.#context;
    return this.#virtio.parts.queues.flatMap((queue, index) =>
      queue.ready === 0 ? [] : [{
        ...ringAddresses(queue, memory),
        index,
        size: queue.size,
        base: ringIndices(queue, memory)?.used ?? 0,
      }]
    );
  }

  #start(port: VhostUserPort, fd: number): void {
    const { inflight, calls, kicks, features } = port.description;
    const { driver_features_low: low, driver_features_high: high } = this.#virtio.parts.state;
    const protocol = features & 1n << BigInt(F_PROTOCOL_FEATURES);
    const rings = this.#rings();
    const regions = this.#context.memory.ranges.filter(({ file }) => file);
    const files = regions.map(({ file }) => file!.fd);
    // One for all of it: this thread has others to serve.
    const limit = performance.now() + REPLY_LIMIT_MS;
    const say = (request: number, payload: Uint8Array, fds?: readonly number[]) =>
      send(fd, request, payload, fds, limit);
    const isSetUp = this.#attempt(fd, () => {
      const accepted = BigInt(low) | BigInt(high) << 32n | protocol;
      say(Request.SET_FEATURES, wideNumber(accepted));
      say(Request.SET_MEM_TABLE, memoryTable(regions), files);
      if (inflight) say(Request.SET_INFLIGHT_FD, inflightRegion(inflight), [inflight.fd]);
      for (const ring of rings) {
        const { index } = ring;
        const number = wideNumber(BigInt(index));
        say(Request.SET_VRING_NUM, ringNumber(index, ring.size));
        say(Request.SET_VRING_BASE, ringNumber(index, ring.base));
        say(Request.SET_VRING_ADDR, ringPlace(index, ring));
        say(Request.SET_VRING_CALL, number, [calls[index]]);
        say(Request.SET_VRING_KICK, number, [kicks[index]]);
      }
      if (protocol === 0n) return;
      for (const { index } of rings) say(Request.SET_VRING_ENABLE, ringNumber(index, 1));
    });
    if (!isSetUp) return;
    this.#state.started = 1;
    for (const { index } of rings) {
      // What the driver has made available before the back-end hears of it.
      port.kick(index);
      // What was finished, and whoever did it, or was to pass that on, is gone.
      this.#finished(index);
    }
  }

  #stopRings(fd: number): void {
    const limit = performance.now() + REPLY_LIMIT_MS;
    this.#virtio.parts.queues.forEach((_, index) => {
      readRingNumber(ask(fd, Request.GET_VRING_BASE, ringNumber(index, 0), limit), index);
    });
  }

  /** Waits until all that the driver has made available is used; false if it takes too long. */
  #finishes(port: VhostUserPort, patienceMs: number): boolean {
    // The thread that passes doorbells on may not have come to the last ones.
    this.#virtio.parts.queues.forEach((_, index) => port.kick(index));
    const limit = performance.now() + patienceMs;
    while (!this.#isIdle) {
      if (performance.now() > limit) return false;
      Atomics.wait(sleeper, 0, 0, 1);
    }
    return true;
  }

  get #isIdle(): boolean {
    return this.#virtio.parts.queues.every((queue) => {
      if (queue.ready === 0) return true;
      const indices = ringIndices(queue, this.#context.memory);
      return indices === undefined || indices.avail === indices.used;
    });
  }

  /**
   * Talks to the back-end. One that fails is not talked to any more: the connection ends, which the
   * thread that works on queues finds.
   */
  #attempt(fd: number, action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      // That of a back-end that is gone is told of where the connection is.
      if (!(error instanceof OsError)) this.#warn(error as Error);
      shutdownSocket(fd);
      return false;
    }
  }

  #warn({ message }: Error): void {
    this.#context.warn(`${this.#virtio.parts.name}: the vhost-user back-end fails: ${message}`);
  }

  /** Waits for the end of the connection, and for finished requests. */
  #watch(port: VhostUserPort, fd: number): void {
    const { watcher } = this.#context;
    const { connection } = port;
    if (this.#watched?.connection !== connection) {
      const watch = watcher?.watch(fd, Epoll.RDHUP, () => this.#lost(port));
      this.#watched = { connection, watch };
    }
    if (this.#watchesCalls) return;
    this.#watchesCalls = true;
    port.description.calls.forEach((call, index) =>
      watcher?.watch(call, Epoll.IN, () => {
        if (port.takeCall(index)) this.#virtio.work(() => this.#finished(index));
      })
    );
  }

  #finished(index: number): void {
    this.#context.memory.changed();
    this.#virtio.raise(InterruptCause.USED_BUFFER, index);
  }

  /** Nobody may wait for a descriptor that is closed: it may be another's soon. */
  #lost(port: VhostUserPort): void {
    this.#watched?.watch?.set(0);
    this.#watched = undefined;
    this.#virtio.locked(() => {
      this.#state.started = 0;
      port.drop();
    });
  }
}
