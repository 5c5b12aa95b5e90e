/**
 * What all virtio devices do, on one thread: features, status, queues, interrupts (virtio 1.2, 2 and 3).
 *
 * Registers are written by vCPU threads, with the device's mutex. Queues are worked on by the I/O thread,
 * without it, so that a slow request keeps no vCPU waiting. Two locks more see to it that they do not
 * meet: `work` is held while queues are worked on, and by whoever sets one up or takes it away; `line`
 * while the status or the interrupt's causes change. They are taken in this order: mutex, work, line.
 *
 * @module
 */
import type { Doorbell, Interrupt, Lock } from "../device.ts";
import { Chain, MalformedRing, type RingMemory } from "./chain.ts";
import { openQueue } from "./queue.ts";
import { type QueueState, resetQueue, type RingFeatures, type VirtQueue } from "./ring.ts";
import { Feature, InterruptCause, Status, type VirtioState } from "./virtio_state.ts";

/** What a virtio device is on this thread, beside its state. */
export interface VirtioParts {
  /** For messages. */
  readonly name: string;
  readonly state: VirtioState;
  readonly queues: readonly QueueState[];
  /** Entries that each queue has at most. */
  readonly queueSizes: readonly number[];
  /** Feature bits that the device offers. */
  readonly features: bigint;
  readonly memory: RingMemory;
  readonly interrupt: Interrupt;
  /** What may take the interrupt's place. */
  readonly messages?: InterruptMessages;
  /** One for each queue. */
  readonly doorbells: readonly Doorbell[];
  readonly work: Lock;
  readonly line: Lock;
  /** Whether the device may read and write memory; always unless given. */
  mayUseMemory?(): boolean;
  /** See {@linkcode VirtioBackend.halt}. */
  halt(): void;
  /** Whether this thread shall park, or is not the one that works on queues. */
  isParking(): boolean;
  /** Tells the user. */
  warn(text: string): void;
}

/** Requests that were taken from a queue together. */
export class TakenRequests {
  /** The first `count` are requests, in the driver's order. */
  readonly chains: Chain[] = [];
  count = 0;
  /** How many of them are done. */
  finished = 0;

  /** The next request is done. @param written bytes written to it */
  finish(written: number): void {
    this.chains[this.finished++].written = written;
  }

  /** Forgets them. */
  clear(): void {
    this.count = this.finished = 0;
  }

  /** What the next one goes into. Chains are large: they are made when they are needed. */
  next(): Chain {
    return this.chains[this.count] ??= new Chain();
  }
}

/** Interrupt messages of a transport that has them. */
export interface InterruptMessages {
  /** Whether the driver takes them in place of the interrupt. */
  readonly isEnabled: boolean;
  /** Sends the one of a queue, or else that of the configuration. `line` is held. */
  send(queue: number | undefined): void;
}

/** A queue as its device uses it, on the I/O thread. */
export class DeviceQueue {
  readonly #virtio: Virtio;
  readonly #index: number;
  readonly #taken = new TakenRequests();
  #ring: VirtQueue | undefined;
  /** Of the ring that is open. */
  #place: Place | undefined;

  /**
   * @param virtio whose it is
   * @param index its number
   */
  constructor(virtio: Virtio, index: number) {
    this.#virtio = virtio;
    this.#index = index;
  }

  /** The ring, while the driver has it running. @throws {MalformedRing} */
  get ring(): VirtQueue | undefined {
    const state = this.#virtio.parts.queues[this.#index];
    if (state.ready === 0 || !this.#virtio.isRunning) return undefined;
    if (this.#ring && this.#place && isPlace(this.#place, this.#virtio, state)) return this.#ring;
    const features = this.#virtio.ringFeatures;
    this.#ring = openQueue(state, this.#virtio.parts.memory, features);
    this.#place = placeOf(this.#virtio, state);
    return this.#ring;
  }

  /** The ring is broken: what is not given back is lost, until the driver sets up another. */
  forget(): void {
    this.#ring = undefined;
  }

  /**
   * Answers requests until there is none, or the thread shall park: what is not begun then is found when
   * a thread begins anew.
   *
   * @param answer carries a request out; returns how many bytes were written to it, or undefined to leave
   *   it and all behind it for later
   * @throws {MalformedRing}
   */
  serve(answer: (chain: Chain) => number | undefined): void {
    this.serveMany(1, (taken) => {
      const written = answer(taken.chains[0]);
      if (written !== undefined) taken.finish(written);
      return written !== undefined;
    });
  }

  /**
   * Answers requests as `serve` does, but several that are there together at once.
   *
   * @param most how many at once
   * @param answer carries them out, finishing each; returns whether what it leaves is to be taken again
   *   now, instead of later
   * @throws {MalformedRing}
   */
  serveMany(most: number, answer: (taken: TakenRequests) => boolean): void {
    const { ring } = this;
    if (!ring) return;
    const { parts } = this.#virtio;
    const taken = this.#taken;
    // A driver that always has one more shall not keep others waiting.
    let left = parts.queueSizes[this.#index];
    do {
      ring.suppress();
      while (left > 0 && this.#take(ring, Math.min(most, left))) {
        const goesOn = this.#answer(ring, answer);
        left -= taken.finished;
        if (!goesOn) return;
      }
      if (left === 0 && !parts.isParking()) return parts.doorbells[this.#index].ring();
    } while (ring.listen() && !parts.isParking());
  }

  /** Takes requests, unless the thread shall park. @returns whether there are any */
  #take(ring: VirtQueue, most: number): boolean {
    const { parts } = this.#virtio;
    const taken = this.#taken;
    taken.clear();
    while (taken.count < most && !parts.isParking()) {
      try {
        if (!ring.pop(taken.next())) break;
      } catch (error) {
        // It is found again when those before it are answered.
        if (!(error instanceof MalformedRing) || taken.count === 0) throw error;
        break;
      }
      taken.count++;
    }
    return taken.count > 0;
  }

  /** Gives back what is finished when `answer` returns, or fails; the rest was not looked at. */
  #answer(ring: VirtQueue, answer: (taken: TakenRequests) => boolean): boolean {
    const taken = this.#taken;
    try {
      return answer(taken);
    } finally {
      const { chains, count, finished } = taken;
      for (let i = count; i > finished; i--) ring.unpop(chains[i - 1]);
      for (let i = 0; i < finished; i++) ring.push(chains[i], chains[i].written);
      this.flush(ring);
    }
  }

  /** Shows the driver what was given back, and interrupts it if it wants that. */
  flush(ring: VirtQueue): void {
    if (ring.flush()) this.#virtio.raise(InterruptCause.USED_BUFFER, this.#index);
  }
}

/** What a ring is opened by. */
type Place =
  & Pick<VirtioState, "driver_features_low" | "driver_features_high">
  & Omit<QueueState, "next_avail" | "next_used" | "ready" | "wrap">;

function placeOf({ parts: { state } }: Virtio, queue: QueueState): Place {
  return {
    driver_features_low: state.driver_features_low,
    driver_features_high: state.driver_features_high,
    size: queue.size,
    desc_low: queue.desc_low,
    desc_high: queue.desc_high,
    driver_low: queue.driver_low,
    driver_high: queue.driver_high,
    device_low: queue.device_low,
    device_high: queue.device_high,
  };
}

/** Rings of the same place are the same: what they hold is in memory. */
function isPlace(place: Place, { parts: { state } }: Virtio, queue: QueueState): boolean {
  return place.size === queue.size &&
    place.desc_low === queue.desc_low && place.desc_high === queue.desc_high &&
    place.driver_low === queue.driver_low && place.driver_high === queue.driver_high &&
    place.device_low === queue.device_low && place.device_high === queue.device_high &&
    place.driver_features_low === state.driver_features_low &&
    place.driver_features_high === state.driver_features_high;
}

/** A virtio device on one thread. */
export class Virtio {
  readonly queues: readonly DeviceQueue[];
  /** For whoever takes requests itself, one at a time. */
  readonly chain: Chain = new Chain();

  /** @param parts what it is */
  constructor(readonly parts: VirtioParts) {
    this.queues = parts.queues.map((_, index) => new DeviceQueue(this, index));
  }

  /** Whether the driver is ready for what the device does, and the device well. */
  get isRunning(): boolean {
    const { status } = this.parts.state;
    return (status & (Status.DRIVER_OK | Status.NEEDS_RESET)) === Status.DRIVER_OK &&
      (this.parts.mayUseMemory?.() ?? true);
  }

  /** Whether the driver has accepted a feature. */
  hasFeature(bit: number): boolean {
    const { driver_features_low: low, driver_features_high: high } = this.parts.state;
    return ((bit < 32 ? low >>> bit : high >>> (bit - 32)) & 1) !== 0;
  }

  /** What rings are like that the driver sets up. */
  get ringFeatures(): RingFeatures {
    return {
      packed: this.hasFeature(Feature.RING_PACKED),
      indirect: this.hasFeature(Feature.INDIRECT_DESC),
      eventIndex: this.hasFeature(Feature.EVENT_IDX),
    };
  }

  /** Works on queues, if the driver has them running: no other thread does meanwhile. */
  work(action: () => void): void {
    this.locked(() => {
      if (this.isRunning) action();
    });
  }

  /** Does something while nobody works on queues. */
  locked(action: () => void): void {
    const { work } = this.parts;
    work.lock();
    try {
      action();
    } catch (error) {
      if (!(error instanceof MalformedRing)) throw error;
      this.#needsReset(error.message);
    } finally {
      work.unlock();
    }
  }

  /** Sees to it that nobody works on queues, here or elsewhere. */
  halt(): void {
    this.locked(() => this.parts.halt());
  }

  /**
   * Interrupts the driver.
   *
   * @param queue the queue that it is about; the configuration unless given
   */
  raise(cause: number, queue?: number): void {
    const { state, line, interrupt, messages } = this.parts;
    line.lock();
    const before = state.isr;
    if (messages?.isEnabled) {
      // Of a queue the message says all (4.1.5.3.1).
      if (queue === undefined) state.isr = before | cause;
      messages.send(queue);
    } else {
      state.isr = before | cause;
      if (before === 0) interrupt.set(true);
    }
    line.unlock();
  }

  /**
   * The driver has seen causes of its interrupt. What is left is told by an edge: not every interrupt
   * controller's input repeats a level.
   */
  acknowledge(causes: number): void {
    const { state, line, interrupt } = this.parts;
    line.lock();
    const before = state.isr;
    state.isr = before & ~causes;
    if (state.isr !== before) interrupt.set(false);
    if (state.isr !== before && state.isr !== 0) interrupt.set(true);
    line.unlock();
  }

  /** The configuration space is another one. */
  configChanged(): void {
    const { state } = this.parts;
    state.config_generation += 1;
    if (this.isRunning) this.raise(InterruptCause.CONFIG_CHANGE);
  }

  /** Drives the interrupt as the state says. */
  driveInterrupt(): void {
    const { state, line, interrupt } = this.parts;
    line.lock();
    interrupt.set(state.isr !== 0);
    line.unlock();
  }

  /** The driver accepts features, 32 of them at a time; without effect once they are agreed on. */
  acceptFeatures(word: number, bits: number): void {
    const { state } = this.parts;
    if (state.status & Status.FEATURES_OK) return;
    if (word === 0) state.driver_features_low = bits;
    else if (word === 1) state.driver_features_high = bits;
  }

  /** The driver sets its status, which is not 0: 0 is a reset. */
  setStatus(value: number): void {
    const { state, line, doorbells } = this.parts;
    line.lock();
    const before = state.status;
    // The driver takes no bit back, and the device's own is not the driver's (2.1.1).
    let status = before | value & ~Status.NEEDS_RESET & 0xff;
    if (status & ~before & Status.FEATURES_OK && !this.#areFeaturesGood()) {
      status &= ~Status.FEATURES_OK;
    }
    state.status = status;
    line.unlock();
    if (status & ~before & Status.DRIVER_OK) { for (const doorbell of doorbells) doorbell.ring(); }
  }

  /** Puts everything back to how a driver finds it. Waits for what is being worked on. */
  reset(): void {
    const { state, line, work, queues, queueSizes, interrupt } = this.parts;
    work.lock();
    this.parts.halt();
    queues.forEach((queue, i) => resetQueue(queue, queueSizes[i]));
    line.lock();
    Object.assign(state, { driver_features_low: 0, driver_features_high: 0, status: 0 });
    if (state.isr !== 0) interrupt.set(false);
    state.isr = 0;
    line.unlock();
    work.unlock();
  }

  /** Changes a queue while nobody works on it. */
  change(index: number, action: (queue: QueueState) => void): void {
    const { work, queues } = this.parts;
    work.lock();
    this.parts.halt();
    action(queues[index]);
    work.unlock();
  }

  /** The driver says how many entries a queue has. More than there can be is no size: see `openQueue`. */
  setQueueSize(index: number, size: number): void {
    this.parts.queues[index].size = size > this.parts.queueSizes[index] ? 0 : size;
  }

  /** The driver switches a queue on, or off. */
  setQueueReady(index: number, isReady: boolean): void {
    this.change(index, (queue) => queue.ready = isReady ? 1 : 0);
    if (isReady && this.isRunning) this.parts.doorbells[index].ring();
  }

  /** Sets one queue back (2.6.1). */
  resetQueue(index: number): void {
    this.change(index, (queue) => resetQueue(queue, this.parts.queueSizes[index]));
  }

  /** Only what was offered, and virtio 1 in any case (6.2). */
  #areFeaturesGood(): boolean {
    const { driver_features_low: low, driver_features_high: high } = this.parts.state;
    const accepted = BigInt(low) | BigInt(high) << 32n;
    return (accepted & ~this.parts.features) === 0n && this.hasFeature(Feature.VERSION_1);
  }

  /** The driver broke a rule: nothing is done for it until it resets the device (2.1.2). */
  #needsReset(reason: string): void {
    const { state, line, name } = this.parts;
    this.parts.warn(`${name}: ${reason}`);
    this.parts.halt();
    for (const queue of this.queues) queue.forget();
    line.lock();
    state.status |= Status.NEEDS_RESET;
    line.unlock();
    this.raise(InterruptCause.CONFIG_CHANGE);
  }
}
