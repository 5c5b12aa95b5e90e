/**
 * Split virtqueues (virtio 1.2, 2.7).
 *
 * Indices and flags are read and written by Atomics, which order everything else around them: entries
 * before the index that shows them, and our index before the driver's wish to be told of it.
 *
 * @module
 */
import {
  type Chain,
  checkIndirect,
  DESCRIPTOR_SIZE,
  DescriptorFlag,
  MalformedRing,
  type RingMemory,
  wide,
} from "./chain.ts";
import type { QueueState, RingFeatures, RingParts, VirtQueue } from "./ring.ts";

// In u16 words: flags, idx, ring[size], used_event; and flags, idx, ring[size] of two u32, avail_event.
const FLAGS = 0;
const INDEX = 1;
const RING = 2;

const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

/** A split virtqueue. */
export class SplitRing implements VirtQueue {
  readonly #state: QueueState;
  readonly #memory: RingMemory;
  readonly #features: RingFeatures;
  readonly #size: number;
  readonly #desc32: Uint32Array<ArrayBuffer>;
  readonly #desc16: Uint16Array<ArrayBuffer>;
  readonly #avail: Uint16Array<ArrayBuffer>;
  readonly #used16: Uint16Array<ArrayBuffer>;
  readonly #used32: Uint32Array<ArrayBuffer>;
  /** Entries given back that the driver does not see yet. */
  #pushed = 0;

  /** @param parts the areas, of the sizes that the queue's size asks for */
  constructor({ state, memory, features, desc, driver, device }: RingParts) {
    this.#state = state;
    this.#memory = memory;
    this.#features = features;
    this.#size = state.size;
    this.#desc32 = new Uint32Array(desc);
    this.#desc16 = new Uint16Array(desc);
    this.#avail = new Uint16Array(driver);
    this.#used16 = new Uint16Array(device);
    this.#used32 = new Uint32Array(device, 0, 1 + 2 * state.size);
  }

  pop(chain: Chain): boolean {
    const next = this.#state.next_avail;
    const index = Atomics.load(this.#avail, INDEX);
    if (index === next) return false;
    if (((index - next) & 0xffff) > this.#size) {
      throw new MalformedRing(`Guest moved used index from ${next} to ${index}`);
    }
    const head = this.#avail[RING + (next & (this.#size - 1))];
    if (head >= this.#size) throw new MalformedRing(`Guest says index ${head} is available`);
    chain.clear();
    chain.id = head;
    chain.descriptors = 1;
    this.#walk(chain, head);
    this.#state.next_avail = next + 1;
    return true;
  }

  unpop(): void {
    this.#state.next_avail -= 1;
  }

  push({ id }: Chain, written: number): void {
    if (written > 0) this.#memory.changed();
    const slot = (this.#state.next_used + this.#pushed++) & (this.#size - 1);
    this.#used32[1 + 2 * slot] = id;
    this.#used32[2 + 2 * slot] = written;
  }

  flush(): boolean {
    if (this.#pushed === 0) return false;
    const old = this.#state.next_used;
    const count = this.#pushed;
    this.#pushed = 0;
    this.#state.next_used = old + count;
    Atomics.store(this.#used16, INDEX, old + count);
    if (!this.#features.eventIndex) {
      return (Atomics.load(this.#avail, FLAGS) & NO_INTERRUPT) === 0;
    }
    const event = Atomics.load(this.#avail, RING + this.#size);
    return ((event - old) & 0xffff) < count;
  }

  suppress(): void {
    if (!this.#features.eventIndex) Atomics.store(this.#used16, FLAGS, NO_NOTIFY);
  }

  listen(): boolean {
    const next = this.#state.next_avail;
    if (this.#features.eventIndex) Atomics.store(this.#used16, RING + 4 * this.#size, next);
    else Atomics.store(this.#used16, FLAGS, 0);
    return Atomics.load(this.#avail, INDEX) !== next;
  }

  /** Each word of a descriptor is read once: the driver may change it meanwhile. */
  #walk(chain: Chain, head: number): void {
    let index = head;
    for (let count = 1;; count++) {
      if (count > this.#size) throw new MalformedRing("Looped descriptor");
      const gpa = wide(this.#desc32[4 * index], this.#desc32[4 * index + 1]);
      const length = this.#desc32[4 * index + 2];
      const flags = this.#desc16[8 * index + 6];
      const next = this.#desc16[8 * index + 7];
      if (flags & DescriptorFlag.INDIRECT) return this.#walkTable(chain, gpa, length, flags);
      chain.add(this.#memory, gpa, length, flags);
      if ((flags & DescriptorFlag.NEXT) === 0) return;
      if (next >= this.#size) throw new MalformedRing(`Desc next is ${next}`);
      index = next;
    }
  }

  /** A chain may end in one table, which has none itself (2.7.5.3). */
  #walkTable(chain: Chain, gpa: number, length: number, flags: number): void {
    checkIndirect(this.#features.indirect && (flags & DescriptorFlag.NEXT) === 0);
    const { table, count } = chain.readTable(this.#memory, gpa, length);
    for (let index = 0, seen = 1;; seen++) {
      if (seen > count) throw new MalformedRing("Looped descriptor");
      const at = index * DESCRIPTOR_SIZE;
      const flags = table.getUint16(at + 12, true);
      checkIndirect((flags & DescriptorFlag.INDIRECT) === 0);
      chain.addEntry(this.#memory, table, at, flags);
      if ((flags & DescriptorFlag.NEXT) === 0) return;
      index = table.getUint16(at + 14, true);
      if (index >= count) throw new MalformedRing(`Desc next is ${index}`);
    }
  }
}
