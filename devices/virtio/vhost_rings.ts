/**
 * A virtio device's queues that the kernel serves in the VMM's place, by way of vhost.
 *
 * The I/O thread begins it; whoever takes queues from the device, on whatever thread, ends it first
 * (see `VirtioBackend.halt`). Meanwhile the kernel, and not the I/O thread, hears the doorbells, and an
 * eventfd of each queue tells the I/O thread to interrupt the driver. What is in the rings stays there:
 * where the kernel has got to is written into the queues' state, so that anybody goes on from it.
 *
 * @module
 */
import { Errno, OsError } from "../../ffi/errno.ts";
import { drainEvent, Epoll, signalEventfd } from "../../ffi/event.ts";
import { MOST_RANGES, type VhostDevice, type VhostRing } from "../../ffi/vhost.ts";
import type { DeviceContext } from "../device.ts";
import { ringAddresses, ringIndices } from "../vhost/vring.ts";
import type { QueueState } from "./ring.ts";
import type { Virtio } from "./virtio.ts";
import { Feature, InterruptCause } from "./virtio_state.ts";

const bitsOf = (features: readonly number[]) =>
  features.reduce((bits, feature) => bits | 1n << BigInt(feature), 0n);

/** Features of rings that the kernel must know of, where the driver has accepted them. */
const RING_FEATURES = bitsOf([
  Feature.INDIRECT_DESC,
  Feature.EVENT_IDX,
  Feature.VERSION_1,
  Feature.RING_PACKED,
]);

/** Features of rings that are not offered where the kernel that serves them has them not. */
const OPTIONAL = bitsOf([
  Feature.INDIRECT_DESC,
  Feature.EVENT_IDX,
  Feature.RING_PACKED,
  Feature.RING_RESET,
]);

/**
 * What of a device's features can be offered.
 *
 * @param kernels what the kernel has
 * @param more bits of the device's kind that the kernel must have, too
 */
export function withoutLacking(wanted: bigint, kernels: bigint, more: bigint): bigint {
  return wanted & ~((OPTIONAL | more) & ~kernels);
}

/** The words that all threads share about a device. */
const Word = { PHASE: 0, OWNED: 1, LEFT: 2 } as const;
/** Bytes of them. */
export const VHOST_WORDS: number = 4 * Object.keys(Word).length;

const Phase = { IDLE: 0, SERVED: 1, FAILED: 2 } as const;

/** Some of a device's queues, which one vhost device serves. */
export interface VhostParts {
  readonly device: VhostDevice;
  readonly virtio: Virtio;
  readonly context: Pick<DeviceContext, "doorbells" | "memory" | "watcher" | "warn">;
  /** {@linkcode VHOST_WORDS} bytes, zeros at first. */
  readonly words: SharedArrayBuffer;
  /** The queues' numbers; the first is the vhost device's ring 0. */
  readonly queues: readonly number[];
  /** An eventfd of each. */
  readonly calls: readonly number[];
  /** Feature bits beside those of rings that the kernel must know of, where the driver accepted them. */
  readonly features: bigint;
  /** Further feature bits that it is told. */
  readonly always: bigint;
  /** What the kernel serves, in words. */
  readonly what: string;
  /** What becomes of the queues where the kernel fails, in words. */
  readonly instead: string;
  /** Whether the kernel's device is this process's also while the thread rests, and becomes no other's. */
  readonly keepsOwner?: boolean;
  /** Begins to serve these rings, by their numbers within the vhost device. @throws {OsError} */
  begin(rings: readonly number[]): void;
  /** Serves none of them any more; they may not have been served. @throws {OsError} */
  end(rings: readonly number[]): void;
  /** The kernel has begun, or ended. Called on the I/O thread, with `work` held. */
  changed(isServed: boolean): void;
}

/** The queues on one thread. */
export class VhostRings {
  readonly #parts: VhostParts;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #all: readonly number[];
  /** @param parts what it is */
  constructor(parts: VhostParts) {
    this.#parts = parts;
    this.#words = new Int32Array(parts.words);
    this.#all = parts.queues.map((_, ring) => ring);
    for (const [ring, call] of parts.calls.entries()) {
      parts.context.watcher?.watch(call, Epoll.IN, () => this.#called(ring));
    }
  }

  /** Says that this process is the owner already, which goes with `keepsOwner`. */
  static setOwned(words: SharedArrayBuffer): void {
    new Int32Array(words)[Word.OWNED] = 1;
  }

  /** Whether the kernel serves the queues now. `work` is held. */
  get isServed(): boolean {
    return this.#words[Word.PHASE] === Phase.SERVED;
  }

  /**
   * Has the kernel serve the queues, if it shall, or else not. Called on the I/O thread with `work` held.
   *
   * @param shall whether there is reason to
   * @returns whether it does
   * @throws {MalformedRing}
   */
  look(shall: boolean): boolean {
    if (this.isServed && !shall) this.#stop();
    else if (shall && this.#words[Word.PHASE] === Phase.IDLE) this.#start();
    this.#listen();
    return this.isServed;
  }

  /** See `VirtioBackend.halt`. `work` is held. */
  halt(): void {
    // Who listens to the doorbells again is the I/O thread.
    if (this.#stop()) signalEventfd(this.#parts.calls[0]);
  }

  /** See `VirtioBackend.rest`: a successor, or this process as another program, may be the next owner. */
  rest(): void {
    const { calls, virtio, device, keepsOwner } = this.#parts;
    virtio.locked(() => {
      this.#stop();
      this.#listen();
      if (keepsOwner) return;
      if (this.#words[Word.OWNED]) this.#try("", () => device.resetOwner());
      this.#words[Word.OWNED] = 0;
    });
    for (const [ring, call] of calls.entries()) if (drainEvent(call)) this.#interrupt(ring);
  }

  /** @returns whether the queues were served */
  #stop(): boolean {
    const { end } = this.#parts;
    const phase = this.#words[Word.PHASE];
    this.#words[Word.PHASE] = Phase.IDLE;
    if (phase !== Phase.SERVED) return false;
    this.#try("", () => end(this.#all));
    for (const ring of this.#all) if (this.#queue(ring).ready) this.#keepPlace(ring);
    return true;
  }

  #called(ring: number): void {
    const { calls, virtio } = this.#parts;
    drainEvent(calls[ring]);
    this.#interrupt(ring);
    virtio.locked(() => this.#listen());
    // What the doorbells say by now is heard, and if nothing, the device looks once more.
    if (!this.#words[Word.LEFT]) this.#ring();
  }

  /** That the driver has nothing to see is no harm (virtio 1.2, 2.7.7.2). */
  #interrupt(ring: number): void {
    const { virtio, queues, context } = this.#parts;
    if (!virtio.isRunning) return;
    context.memory.changed();
    virtio.raise(InterruptCause.USED_BUFFER, queues[ring]);
  }

  #start(): void {
    const { device, virtio, context, begin, end, what, instead } = this.#parts;
    // What the driver has set up is looked at first: for that the VMM answers.
    const rings = this.#all.filter((ring) => virtio.queues[this.#parts.queues[ring]].ring);
    const described = rings.map((ring) => this.#describe(ring));
    if (rings.length === 0) return;
    const { ranges } = context.memory;
    this.#words[Word.PHASE] = Phase.FAILED;
    const isServed = this.#try(
      `unable to start ${what}: ${instead}: `,
      () => {
        if (ranges.length > MOST_RANGES) throw new OsError("VHOST_SET_MEM_TABLE", Errno.E2BIG);
        if (!this.#words[Word.OWNED]) device.setOwner();
        this.#words[Word.OWNED] = 1;
        device.setFeatures(this.#features());
        device.setMemory(ranges);
        for (const ring of described) device.setRing(ring);
        try {
          begin(rings);
        } catch (error) {
          end(rings);
          throw error;
        }
      },
    );
    if (!isServed) return;
    this.#words[Word.PHASE] = Phase.SERVED;
    // Of what was made available before, nobody tells the kernel but this.
    this.#ring();
  }

  #features(): bigint {
    const { virtio, features, always, device } = this.#parts;
    const { driver_features_low: low, driver_features_high: high } = virtio.parts.state;
    const accepted = BigInt(low) | BigInt(high) << 32n;
    const used = accepted & (RING_FEATURES | features);
    if (used & ~device.features) throw new OsError("VHOST_SET_FEATURES", Errno.EOPNOTSUPP);
    return used | always;
  }

  #describe(ring: number): VhostRing {
    const { context, queues, calls } = this.#parts;
    const index = queues[ring];
    const state = this.#queue(ring);
    return {
      ...ringAddresses(state, context.memory),
      index: ring,
      size: state.size,
      base: state.next_avail,
      kick: context.doorbells[index].fd,
      call: calls[ring],
    };
  }

  /** Writes down how far the kernel is: all that it has taken, it has answered. */
  #keepPlace(ring: number): void {
    const { device, context } = this.#parts;
    const state = this.#queue(ring);
    const indices = ringIndices(state, context.memory);
    if (indices) state.next_used = indices.used;
    // What was taken and not answered is taken again, if the kernel does not tell.
    state.next_avail = state.next_used;
    this.#try(`vhost VQ ${ring} ring restore failed: `, () => state.next_avail = device.base(ring));
  }

  /** The doorbells are the kernel's or the I/O thread's. */
  #listen(): void {
    const { context, queues, changed } = this.#parts;
    const isLeft = this.isServed;
    if (Number(isLeft) === this.#words[Word.LEFT] || !context.watcher) return;
    this.#words[Word.LEFT] = Number(isLeft);
    for (const index of queues) context.watcher.leave(context.doorbells[index].fd, isLeft);
    changed(isLeft);
  }

  #ring(): void {
    const { context, queues } = this.#parts;
    for (const index of queues) context.doorbells[index].ring();
  }

  #queue(ring: number): QueueState {
    return this.#parts.virtio.parts.queues[this.#parts.queues[ring]];
  }

  /** @returns false if a call to the kernel failed, of which the user is told */
  #try(failure: string, action: () => void): boolean {
    const { context, virtio } = this.#parts;
    try {
      action();
      return true;
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      context.warn(`${virtio.parts.name}: ${failure}${error.message}`);
      return false;
    }
  }
}
