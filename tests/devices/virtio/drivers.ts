/**
 * The driver's side of virtqueues, as a guest would write it: for tests.
 *
 * @module
 */
import type { RingMemory } from "../../../devices/virtio/chain.ts";
import { DescriptorFlag } from "../../../devices/virtio/chain.ts";
import { FakeMemory } from "../fake_context.ts";
import { openQueue } from "../../../devices/virtio/queue.ts";
import {
  type QueueState,
  resetQueue,
  type RingFeatures,
  type VirtQueue,
  virtqueue,
} from "../../../devices/virtio/ring.ts";

/** Where the guest's RAM begins. */
export const RAM = 0x10_0000;
/** How much there is. */
export const RAM_SIZE = 0x10_0000;

/** Guest RAM. */
export class TestMemory extends FakeMemory {
  readonly data: DataView<ArrayBuffer> = new DataView(this.bytes.buffer);

  constructor() {
    super(RAM, RAM_SIZE);
  }

  /** Writes bytes. */
  put(gpa: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, gpa - RAM);
  }

  /** Reads bytes. */
  get(gpa: number, length: number): Uint8Array {
    return this.bytes.slice(gpa - RAM, gpa - RAM + length);
  }

  /** Makes it all zeros. */
  clear(): void {
    this.bytes.fill(0);
  }
}

/** A buffer of a request. */
export interface Buffer {
  readonly gpa: number;
  readonly length: number;
  readonly writable?: boolean;
}

/** Where the rings of these drivers are. */
export const DESC = RAM + 0x1000;
export const DRIVER = RAM + 0x4000;
export const DEVICE = RAM + 0x6000;
/** Where their tables of indirect descriptors are. */
export const TABLE = RAM + 0x8000;

/** Descriptor flags as given, beside those that the buffers ask for. */
function flagsOf(buffer: Buffer, isLast: boolean): number {
  return (buffer.writable ? DescriptorFlag.WRITE : 0) | (isLast ? 0 : DescriptorFlag.NEXT);
}

/** A driver with its queue. */
export interface TestDriver {
  /** How far its rings are from where others are: queues of one device lie behind each other. */
  readonly shift: number;
  readonly queue: VirtQueue;
  readonly state: QueueState;
  /** Makes a request available; returns its id, and whether the device wants to be told. */
  add(buffers: readonly Buffer[], indirect?: boolean): { id: number; kick: boolean };
  /** Takes what was given back. */
  take(): { id: number; written: number }[];
  /** Says when it wants the next interrupt: after `ahead` more than it has taken, or never. */
  wantInterrupt(ahead: number | undefined): void;
}

function prepare(
  memory: RingMemory,
  size: number,
  features: RingFeatures,
  shift: number,
): { state: QueueState; open(): VirtQueue } {
  const { view: state } = virtqueue.alloc();
  resetQueue(state, size);
  const [desc_low, driver_low, device_low] = [DESC, DRIVER, DEVICE].map((area) => area + shift);
  Object.assign(state, { desc_low, driver_low, device_low, ready: 1 });
  return { state, open: () => openQueue(state, memory, features) };
}

/** A split ring's. */
export class SplitDriver implements TestDriver {
  readonly state: QueueState;
  readonly #open: () => VirtQueue;
  readonly #free: number[];
  readonly #chains = new Map<number, number[]>();
  #queue: VirtQueue | undefined;
  #avail = 0;
  #used = 0;

  constructor(
    readonly memory: TestMemory,
    readonly size: number,
    readonly features: RingFeatures,
    readonly shift = 0,
  ) {
    const { state, open } = prepare(memory, size, features, shift);
    this.state = state;
    this.#open = open;
    this.#free = Array.from({ length: size }, (_, i) => i);
  }

  get queue(): VirtQueue {
    return this.#queue ??= this.#open();
  }

  /** The device is another one, over the same state. */
  reopen(): void {
    this.#queue = undefined;
  }

  /** Writes a descriptor anywhere. */
  describe(at: number, gpa: number, length: number, flags: number, next: number): void {
    const { data } = this.memory;
    data.setBigUint64(at - RAM, BigInt(gpa), true);
    data.setUint32(at - RAM + 8, length, true);
    data.setUint16(at - RAM + 12, flags, true);
    data.setUint16(at - RAM + 14, next, true);
  }

  /** Makes a head available, whatever it is. */
  show(head: number): boolean {
    const { data } = this.memory;
    data.setUint16(DRIVER + this.shift - RAM + 4 + 2 * (this.#avail % this.size), head, true);
    const old = this.#avail++;
    data.setUint16(DRIVER + this.shift - RAM + 2, this.#avail & 0xffff, true);
    if (!this.features.eventIndex) {
      return (data.getUint16(DEVICE + this.shift - RAM, true) & 1) === 0;
    }
    const event = data.getUint16(DEVICE + this.shift - RAM + 4 + 8 * this.size, true);
    return event === (old & 0xffff);
  }

  add(buffers: readonly Buffer[], indirect = false): { id: number; kick: boolean } {
    const ids = Array.from({ length: indirect ? 1 : buffers.length }, () => this.#free.shift()!);
    const place = (i: number) =>
      indirect ? TABLE + this.shift + ids[0] * 0x100 + 16 * i : DESC + this.shift + 16 * ids[i];
    buffers.forEach((buffer, i) => {
      const next = indirect ? i + 1 : ids[i + 1] ?? 0;
      const flags = flagsOf(buffer, i === buffers.length - 1);
      this.describe(place(i), buffer.gpa, buffer.length, flags, next);
    });
    const [id] = ids;
    if (indirect) {
      const table = TABLE + this.shift + id * 0x100;
      this.describe(
        DESC + this.shift + 16 * id,
        table,
        16 * buffers.length,
        DescriptorFlag.INDIRECT,
        0,
      );
    }
    this.#chains.set(id, ids);
    return { id, kick: this.show(id) };
  }

  take(): { id: number; written: number }[] {
    const { data } = this.memory;
    const taken = [];
    for (
      ;
      this.#used !== data.getUint16(DEVICE + this.shift - RAM + 2, true);
      this.#used++, this.#used &= 0xffff
    ) {
      const at = DEVICE + this.shift - RAM + 4 + 8 * (this.#used % this.size);
      const id = data.getUint32(at, true);
      taken.push({ id, written: data.getUint32(at + 4, true) });
      this.#free.push(...this.#chains.get(id) ?? []);
      this.#chains.delete(id);
    }
    return taken;
  }

  wantInterrupt(ahead: number | undefined): void {
    const { data } = this.memory;
    data.setUint16(DRIVER + this.shift - RAM, ahead === undefined ? 1 : 0, true);
    const event = this.#used + (ahead ?? 0x8000);
    data.setUint16(DRIVER + this.shift - RAM + 4 + 2 * this.size, event & 0xffff, true);
  }
}

const AVAIL = 1 << 7;
const USED = 1 << 15;

/** A packed ring's. */
export class PackedDriver implements TestDriver {
  readonly state: QueueState;
  readonly #open: () => VirtQueue;
  readonly #chains = new Map<number, number>();
  #queue: VirtQueue | undefined;
  #next = 0;
  #wrap = true;
  #used = 0;
  #usedWrap = true;
  #id = 0;

  constructor(
    readonly memory: TestMemory,
    readonly size: number,
    readonly features: RingFeatures,
    readonly shift = 0,
  ) {
    const { state, open } = prepare(memory, size, features, shift);
    this.state = state;
    this.#open = open;
  }

  get queue(): VirtQueue {
    return this.#queue ??= this.#open();
  }

  /** The device is another one, over the same state. */
  reopen(): void {
    this.#queue = undefined;
  }

  /** Writes a descriptor anywhere. */
  describe(at: number, gpa: number, length: number, id: number, flags: number): void {
    const { data } = this.memory;
    data.setBigUint64(at - RAM, BigInt(gpa), true);
    data.setUint32(at - RAM + 8, length, true);
    data.setUint16(at - RAM + 12, id, true);
    data.setUint16(at - RAM + 14, flags, true);
  }

  /** Writes the next descriptor of the ring, available; a head's flags come last. */
  place(gpa: number, length: number, id: number, flags: number): void {
    const turn = this.#wrap ? AVAIL : USED;
    this.describe(DESC + this.shift + 16 * this.#next, gpa, length, id, flags | turn);
    if (++this.#next < this.size) return;
    this.#next = 0;
    this.#wrap = !this.#wrap;
  }

  add(buffers: readonly Buffer[], indirect = false): { id: number; kick: boolean } {
    const id = 0x8000 + this.#id++;
    const first = this.#next | (this.#wrap ? 0x8000 : 0);
    if (indirect) {
      const table = TABLE + this.shift + (this.#id % 16) * 0x100;
      buffers.forEach(({ gpa, length, writable }, i) =>
        this.describe(table + 16 * i, gpa, length, 0, writable ? DescriptorFlag.WRITE : 0)
      );
      this.place(table, 16 * buffers.length, id, DescriptorFlag.INDIRECT);
    } else {
      buffers.forEach((buffer, i) =>
        this.place(buffer.gpa, buffer.length, id, flagsOf(buffer, i === buffers.length - 1))
      );
    }
    this.#chains.set(id, indirect ? 1 : buffers.length);
    const { data } = this.memory;
    const flags = data.getUint16(DEVICE + this.shift - RAM + 2, true);
    const isEvent = data.getUint16(DEVICE + this.shift - RAM, true) === first;
    return { id, kick: flags === 0 || (flags === 2 && isEvent) };
  }

  take(): { id: number; written: number }[] {
    const { data } = this.memory;
    const taken = [];
    for (;;) {
      const at = DESC + this.shift - RAM + 16 * this.#used;
      const turn = this.#usedWrap ? AVAIL | USED : 0;
      if ((data.getUint16(at + 14, true) & (AVAIL | USED)) !== turn) return taken;
      const id = data.getUint16(at + 12, true);
      if (!this.#chains.has(id)) return taken;
      taken.push({ id, written: data.getUint32(at + 8, true) });
      this.#used += this.#chains.get(id)!;
      this.#chains.delete(id);
      if (this.#used < this.size) continue;
      this.#used -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
  }

  wantInterrupt(ahead: number | undefined): void {
    const { data } = this.memory;
    if (ahead === undefined || !this.features.eventIndex) {
      return data.setUint16(DRIVER + this.shift - RAM + 2, ahead === undefined ? 1 : 0, true);
    }
    const at = this.#used + ahead;
    const isWrapped = at >= this.size;
    const wrap = this.#usedWrap !== isWrapped;
    data.setUint16(
      DRIVER + this.shift - RAM,
      (isWrapped ? at - this.size : at) | (wrap ? 0x8000 : 0),
      true,
    );
    data.setUint16(DRIVER + this.shift - RAM + 2, 2, true);
  }
}
