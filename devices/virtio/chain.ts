/**
 * Chains of buffers that the driver makes available, and what a ring can be wrong in.
 *
 * @module
 */
import type { DeviceMemory } from "../device.ts";
import { IoVector, MAX_PIECES } from "../../ffi/iovec.ts";

/** Guest RAM as rings and requests need it. */
export type RingMemory = Pick<DeviceMemory, "collect" | "view" | "changed">;

/** The driver broke the rules of the ring: the device needs a reset (virtio 1.2, 2.1.1). */
export class MalformedRing extends Error {
  override readonly name = "MalformedRing";
}

/** @throws {MalformedRing} unless a table may stand where one is */
export function checkIndirect(isAllowed: boolean): void {
  if (isAllowed) return;
  throw new MalformedRing("virtio: an indirect descriptor where none is allowed");
}

/** VIRTQ_DESC_F_*: flags of a descriptor, in both kinds of ring (2.7.5, 2.8). */
export const DescriptorFlag = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;

/** Bytes of a descriptor. */
export const DESCRIPTOR_SIZE = 16;
/** More than that in a chain is malformed (2.7.4.2). */
const MAX_BYTES = 0x1_0000_0000;

/** A request: what the driver wrote for the device, and the room for what the device writes. */
export class Chain {
  /** What the driver knows it by: the index of its head, or its buffer id. */
  id = 0;
  /** How many descriptors of the ring it takes. */
  descriptors = 0;
  /** Bytes that the device has written, when it is done. */
  written = 0;
  /** What the device reads. */
  readonly readable: IoVector = new IoVector();
  /** Where the device writes. */
  readonly writable: IoVector = new IoVector();
  readonly #table = new Uint8Array(DESCRIPTOR_SIZE * MAX_PIECES);
  readonly #tableView = new DataView(this.#table.buffer);
  readonly #tableVector = new IoVector(1);

  /** Makes it empty. */
  clear(): void {
    this.readable.clear();
    this.writable.clear();
  }

  /** Adds a buffer. @throws {MalformedRing} */
  add(memory: RingMemory, gpa: number, length: number, flags: number): void {
    const isWritable = (flags & DescriptorFlag.WRITE) !== 0;
    if (length === 0) throw new MalformedRing("virtio: zero sized buffers are not allowed");
    if (!isWritable && this.writable.length > 0) {
      throw new MalformedRing("Incorrect order for descriptors");
    }
    if (this.readable.length + this.writable.length + length > MAX_BYTES) {
      throw new MalformedRing("virtio: too many bytes in a chain of descriptors");
    }
    switch (memory.collect(isWritable ? this.writable : this.readable, gpa, length)) {
      case "outside":
        throw new MalformedRing(
          `virtio: no guest memory for ${length} bytes at 0x${gpa.toString(16)}`,
        );
      case "full":
        throw new MalformedRing(
          `virtio: too many ${isWritable ? "write" : "read"} descriptors in chain`,
        );
    }
  }

  /** Adds the buffer of an entry of a table. @throws {MalformedRing} */
  addEntry(memory: RingMemory, table: DataView<ArrayBuffer>, at: number, flags: number): void {
    const gpa = wide(table.getUint32(at, true), table.getUint32(at + 4, true));
    this.add(memory, gpa, table.getUint32(at + 8, true), flags);
  }

  /**
   * Copies a table of indirect descriptors, so that the driver cannot change it any more.
   *
   * @returns the table, and how many descriptors it has
   * @throws {MalformedRing}
   */
  readTable(
    memory: RingMemory,
    gpa: number,
    length: number,
  ): { readonly table: DataView<ArrayBuffer>; readonly count: number } {
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0 || length > this.#table.length) {
      throw new MalformedRing("Invalid size for indirect buffer table");
    }
    const bytes = this.#table.subarray(0, length);
    this.#tableVector.clear();
    const isRam = memory.collect(this.#tableVector, gpa, length) === "added";
    if (!isRam || this.#tableVector.copyOut(bytes) !== length) {
      throw new MalformedRing("Cannot map indirect buffer");
    }
    return { table: this.#tableView, count: length / DESCRIPTOR_SIZE };
  }
}

/** A 64-bit address of the guest's. Above 2^53 it is not exact, and no memory is there. */
export function wide(low: number, high: number): number {
  return high * 0x1_0000_0000 + low;
}
