/**
 * Packed virtqueues (virtio 1.2, 2.8): one ring of descriptors that driver and device take turns to write.
 *
 * A descriptor's flags, read and written by Atomics, say whose it is; everything else of it is read
 * after them and written before them.
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

const AVAIL = 1 << 7;
const USED = 1 << 15;

/** RING_EVENT_FLAGS_*: what an event suppression area says (2.8.10). */
const EventFlag = { ENABLE: 0, DISABLE: 1, DESC: 2 } as const;
/** u16 words of such an area. */
const OFFSET = 0;
const FLAGS = 1;

/** Bits of the state's `wrap`. */
const DRIVER_WRAP = 1;
const DEVICE_WRAP = 2;

/** A packed virtqueue. */
export class PackedRing implements VirtQueue {
  readonly #state: QueueState;
  readonly #memory: RingMemory;
  readonly #features: RingFeatures;
  readonly #size: number;
  readonly #desc32: Uint32Array<ArrayBuffer>;
  readonly #desc16: Uint16Array<ArrayBuffer>;
  readonly #driver: Uint16Array<ArrayBuffer>;
  readonly #device: Uint16Array<ArrayBuffer>;
  /** How far the ring is used by what was given back, beyond what the driver sees. */
  #pushed = 0;
  /** The flags that show the driver all of it. */
  #firstFlags = 0;

  /** @param parts the areas, of the sizes that the queue's size asks for */
  constructor({ state, memory, features, desc, driver, device }: RingParts) {
    this.#state = state;
    this.#memory = memory;
    this.#features = features;
    this.#size = state.size;
    this.#desc32 = new Uint32Array(desc);
    this.#desc16 = new Uint16Array(desc);
    this.#driver = new Uint16Array(driver);
    this.#device = new Uint16Array(device);
  }

  pop(chain: Chain): boolean {
    if (!this.#isAvailable()) return false;
    chain.clear();
    this.#walk(chain);
    this.#moveAvail(chain.descriptors);
    return true;
  }

  unpop({ descriptors }: Chain): void {
    this.#moveAvail(-descriptors);
  }

  push({ id, descriptors }: Chain, written: number): void {
    // A driver that makes descriptors available again before it got them back.
    if (this.#pushed + descriptors > this.#size) throw new MalformedRing("Looped descriptor");
    if (written > 0) this.#memory.changed();
    const at = this.#state.next_used + this.#pushed;
    const isWrapped = at >= this.#size;
    const index = isWrapped ? at - this.#size : at;
    const wrap = ((this.#state.wrap & DEVICE_WRAP) !== 0) !== isWrapped;
    this.#desc32[4 * index + 2] = written;
    this.#desc16[8 * index + 6] = id;
    const flags = (wrap ? AVAIL | USED : 0) | (written > 0 ? DescriptorFlag.WRITE : 0);
    // What the driver looks at first is written last.
    if (this.#pushed === 0) this.#firstFlags = flags;
    else Atomics.store(this.#desc16, 8 * index + 7, flags);
    this.#pushed += descriptors;
  }

  flush(): boolean {
    const count = this.#pushed;
    if (count === 0) return false;
    const old = this.#position(this.#state.next_used, (this.#state.wrap & DEVICE_WRAP) !== 0);
    Atomics.store(this.#desc16, 8 * this.#state.next_used + 7, this.#firstFlags);
    this.#pushed = 0;
    this.#moveUsed(count);
    const flags = Atomics.load(this.#driver, FLAGS) & 3;
    if (!this.#features.eventIndex || flags !== EventFlag.DESC) return flags !== EventFlag.DISABLE;
    const event = Atomics.load(this.#driver, OFFSET);
    const position = this.#position(event & 0x7fff, event >> 15 !== 0);
    return modulo(position - old, 2 * this.#size) < count;
  }

  suppress(): void {
    Atomics.store(this.#device, FLAGS, EventFlag.DISABLE);
  }

  listen(): boolean {
    const { next_avail, wrap } = this.#state;
    if (this.#features.eventIndex) {
      this.#device[OFFSET] = next_avail | (wrap & DRIVER_WRAP) << 15;
      Atomics.store(this.#device, FLAGS, EventFlag.DESC);
    } else Atomics.store(this.#device, FLAGS, EventFlag.ENABLE);
    return this.#isAvailable();
  }

  /** Descriptors are available whose flags are the driver's wrap counter, and its opposite. */
  #isAvailable(): boolean {
    const { next_avail, wrap } = this.#state;
    const flags = Atomics.load(this.#desc16, 8 * next_avail + 7) & (AVAIL | USED);
    return flags === ((wrap & DRIVER_WRAP) !== 0 ? AVAIL : USED);
  }

  /** The driver shows a chain by its head: the rest is there. Each word is read once. */
  #walk(chain: Chain): void {
    let index = this.#state.next_avail;
    for (let count = 1;; count++) {
      if (count > this.#size) throw new MalformedRing("Looped descriptor");
      const gpa = wide(this.#desc32[4 * index], this.#desc32[4 * index + 1]);
      const length = this.#desc32[4 * index + 2];
      const flags = this.#desc16[8 * index + 7];
      chain.id = this.#desc16[8 * index + 6];
      chain.descriptors = count;
      if (flags & DescriptorFlag.INDIRECT) {
        // A table stands alone (2.8.8).
        checkIndirect(count === 1 && (flags & DescriptorFlag.NEXT) === 0);
        return this.#walkTable(chain, gpa, length);
      }
      chain.add(this.#memory, gpa, length, flags);
      if ((flags & DescriptorFlag.NEXT) === 0) return;
      index = index + 1 === this.#size ? 0 : index + 1;
    }
  }

  /** All of a table's descriptors are used, in their order; of the flags only one counts (2.8.7). */
  #walkTable(chain: Chain, gpa: number, length: number): void {
    checkIndirect(this.#features.indirect);
    const { table, count } = chain.readTable(this.#memory, gpa, length);
    for (let at = 0; at < count * DESCRIPTOR_SIZE; at += DESCRIPTOR_SIZE) {
      chain.addEntry(this.#memory, table, at, table.getUint16(at + 14, true));
    }
  }

  #moveAvail(by: number): void {
    const at = this.#state.next_avail + by;
    this.#state.next_avail = modulo(at, this.#size);
    if (at < 0 || at >= this.#size) this.#state.wrap ^= DRIVER_WRAP;
  }

  #moveUsed(by: number): void {
    const at = this.#state.next_used + by;
    this.#state.next_used = modulo(at, this.#size);
    if (at >= this.#size) this.#state.wrap ^= DEVICE_WRAP;
  }

  /** A place in two rounds of the ring, after which index and wrap counter come again. */
  #position(index: number, wrap: boolean): number {
    return wrap ? index : index + this.#size;
  }
}

/** The remainder that is not negative. */
function modulo(value: number, by: number): number {
  return ((value % by) + by) % by;
}
