/**
 * Drivers that break the rules of rings at random, for the tests and for `deno task fuzz -- virtio`.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Chain, MalformedRing } from "../../../devices/virtio/chain.ts";
import { openQueue } from "../../../devices/virtio/queue.ts";
import { resetQueue, type VirtQueue, virtqueue } from "../../../devices/virtio/ring.ts";
import { DESC, DEVICE, DRIVER, RAM, RAM_SIZE, TABLE, TestMemory } from "./drivers.ts";

/** Numbers that a seed repeats (xorshift32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761 ^ 0x9e37_79b9) >>> 0 || 1;
  }

  /** A number from 0 to `below` - 1. */
  next(below: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state % below;
  }

  /** One of several. */
  of<T>(list: readonly T[]): T {
    return list[this.next(list.length)];
  }
}

const lengths = [0, 1, 15, 16, 17, 32, 160, 0x1000, 0xffff, RAM_SIZE, 0x7fff_ffff, 0xffff_ffff];
const places = [
  0,
  RAM - 1,
  RAM,
  TABLE,
  TABLE + 8,
  DESC,
  DEVICE,
  RAM + RAM_SIZE - 1,
  RAM + RAM_SIZE,
];
/** What the driver may write anywhere: what only it shall write. */
const areas = [DESC, DESC, DESC, TABLE, DRIVER, DEVICE];

function address(random: Random): bigint {
  if (random.next(16) === 0) return 2n ** 64n - BigInt(random.next(0x2000));
  return BigInt(random.of(places) + random.next(3) * random.next(64));
}

function writeDescriptor(memory: TestMemory, random: Random, packed: boolean, size: number): void {
  const base = random.next(3) === 0 ? TABLE : DESC;
  const at = base - RAM + 16 * random.next(Math.min(size, 16));
  const { data } = memory;
  const isRight = random.next(4) > 0;
  data.setBigUint64(at, isRight ? BigInt(RAM + 0x1_0000) : address(random), true);
  data.setUint32(at + 8, isRight ? 1 + random.next(64) : random.of(lengths), true);
  const flags = (random.next(3) > 0 ? random.of([0, 2]) : random.next(8)) |
    (packed ? random.of([0, 0x80, 0x8000, 0x8080]) : 0);
  data.setUint16(at + (packed ? 14 : 12), flags, true);
  data.setUint16(at + (packed ? 12 : 14), random.next(size + 1), true);
}

function mutate(memory: TestMemory, random: Random, packed: boolean, size: number): void {
  for (let i = random.next(6); i >= 0; i--) writeDescriptor(memory, random, packed, size);
  const { data } = memory;
  if (!packed) {
    data.setUint16(DRIVER - RAM + 4 + 2 * random.next(size), random.next(size + 1), true);
    data.setUint16(
      DRIVER - RAM + 2,
      (data.getUint16(DRIVER - RAM + 2, true) + random.next(3)) & 0xffff,
      true,
    );
  }
  if (random.next(8) === 0) {
    data.setUint16(random.of(areas) - RAM + 2 * random.next(64), random.next(0x1_0000), true);
  }
}

/** What a device does with a queue: takes, gives back, puts back, in any order. */
function serve(queue: VirtQueue, random: Random, chains: readonly Chain[]): void {
  let taken = 0;
  while (taken < chains.length && queue.pop(chains[taken])) taken++;
  if (taken > 0 && random.next(4) === 0) queue.unpop(chains[--taken]);
  for (const chain of chains.slice(0, taken)) {
    const bytes = new Uint8Array(Math.min(64, chain.readable.length));
    chain.readable.copyOut(bytes);
    queue.push(chain, Math.max(0, chain.writable.copyIn(new Uint8Array(16))));
  }
  queue.flush();
  if (random.next(2) === 0) queue.suppress();
  else queue.listen();
}

/**
 * Plays one driver against one ring.
 *
 * @returns how often the ring was found malformed, and how many requests were taken
 * @throws {Error} if anything else goes wrong
 */
export function fuzzRing(seed: number): { malformed: number; taken: number } {
  const random = new Random(seed);
  const memory = new TestMemory();
  const packed = random.next(2) === 0;
  const size = packed ? random.of([1, 2, 3, 7, 16, 100]) : random.of([1, 2, 4, 16, 128]);
  const features = { packed, indirect: random.next(4) > 0, eventIndex: random.next(2) === 0 };
  const { view: state } = virtqueue.alloc();
  const chains = Array.from({ length: 1 + random.next(3) }, () => new Chain());
  const count = { malformed: 0, taken: 0 };
  let queue: VirtQueue | undefined;
  for (let step = 0; step < 60; step++) {
    if (!queue) {
      memory.clear();
      resetQueue(state, size);
      Object.assign(state, { desc_low: DESC, driver_low: DRIVER, device_low: DEVICE });
      queue = openQueue(state, memory, features);
    }
    mutate(memory, random, packed, size);
    const before = state.next_avail;
    try {
      serve(queue, random, chains);
    } catch (error) {
      if (!(error instanceof MalformedRing)) throw error;
      count.malformed++;
      queue = undefined;
    }
    if (state.next_avail !== before) count.taken++;
    if (packed) assert(state.next_avail < size && state.next_used < size);
  }
  return count;
}
