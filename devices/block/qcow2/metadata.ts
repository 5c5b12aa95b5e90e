/**
 * What a qcow2 image's users know of its tables, in memory that all threads see, and the next VMM as
 * well: a memfd that is handed over as guest RAM is. So what is not yet in the file at an update need
 * not be written while the guest stands still.
 *
 * It is a cache of slices of tables. Two kinds of them may be newer than the file: refcounts, which may be
 * written at any time, since clusters are counted before they are used and after they are not; and
 * mappings (L1 and L2), which are written only when the data and the refcounts that they rest on are on the
 * disk. So an image is never worse after a power cut than by clusters that nobody uses; one with lazy
 * refcounts has a mark in its header before its mappings are written, and then they rest on the data alone.
 *
 * All of it is used under the image's mutex.
 *
 * @module
 */
import { viewMemory } from "../../../ffi/memory.ts";
import { clusterSize, MAX_HOST_OFFSET, type Qcow2Format } from "./format.ts";
import { CorruptImage, type Storage } from "./storage.ts";

/** Numbers (f64) by their index. */
export const Field = {
  /** {@linkcode LAYOUT} when the rest is filled in. */
  LAYOUT: 0,
  CLUSTER_BITS: 1,
  REFCOUNT_ORDER: 2,
  /** Bytes of the guest's disk. */
  SIZE: 3,
  L1_OFFSET: 4,
  L1_SIZE: 5,
  REFTABLE_OFFSET: 6,
  REFTABLE_CLUSTERS: 7,
  /** The end of the last cluster that is in the file, in bytes. */
  FILE_END: 8,
  /** No cluster before this one is free. */
  FREE_HINT: 9,
  DIRTY_MAPPINGS: 10,
  DIRTY_REFCOUNTS: 11,
  /** How many clusters wait to be let go. */
  PENDING: 12,
  /** Counts uses of slots. */
  TICK: 13,
  /** Counts changes of where tables are. */
  GENERATION: 14,
  /** Whose image it is to write: a number of each VMM's own. */
  OWNER: 15,
  /** The image contradicts itself: nothing is done any more. */
  FAILED: 16,
  /** The user has been told that it does. */
  TOLD: 17,
  /** Bytes of the text that says in what. */
  REASON_LENGTH: 18,
  /** The header says that refcounts are to be counted again, since mappings were written before them. */
  UNCOUNTED: 19,
} as const;

/** Changes with the layout of this memory. */
const LAYOUT = 0x71636f77_0001;
const FIELDS_SIZE = 4096;
/** Where that text is, behind the numbers. */
const REASON = 2048;
const WAYS = 8;
const SETS = 256;
const SLOTS = WAYS * SETS;
const MAX_SLICE = 4096;
/** Clusters that may wait to be let go. */
export const MAX_PENDING = 4096;

const TAGS = FIELDS_SIZE;
const STAMPS = TAGS + SLOTS * 8;
const DIRTY = STAMPS + SLOTS * 8;
const PENDING_LIST = DIRTY + 4096;
const SLICES = PENDING_LIST + MAX_PENDING * 8;

/** Bytes of the memory. */
export const METADATA_SIZE: number = SLICES + SLOTS * MAX_SLICE;

/** What a slice holds, by which it is known when it may be written. */
export const SliceKind = { REFCOUNT: 1, MAPPING: 2 } as const;
type SliceKind = typeof SliceKind[keyof typeof SliceKind];

/** An image's tables, as one thread sees them. */
export class Metadata {
  /** {@linkcode Field}s */
  readonly fields: Float64Array<ArrayBuffer>;
  /** Clusters that wait to be let go, by their number. */
  readonly pending: Float64Array<ArrayBuffer>;
  readonly #address: number;
  readonly #storage: Storage;
  readonly #markUncounted: (() => void) | undefined;
  readonly #slice: number;
  readonly #tags: Float64Array<ArrayBuffer>;
  readonly #stamps: Float64Array<ArrayBuffer>;
  readonly #dirty: Uint8Array<ArrayBuffer>;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;

  /**
   * @param address {@linkcode METADATA_SIZE} bytes
   * @param storage where the image is
   * @param markUncounted has the header say that refcounts are to be counted again: they need not be on the
   *   disk before mappings then
   */
  constructor(
    address: number,
    storage: Storage,
    clusterBits: number,
    markUncounted?: () => void,
  ) {
    this.#markUncounted = markUncounted;
    const { buffer, byteOffset } = this.#bytes = viewMemory(address, METADATA_SIZE);
    this.fields = new Float64Array(buffer, byteOffset, FIELDS_SIZE / 8);
    this.#tags = new Float64Array(buffer, byteOffset + TAGS, SLOTS);
    this.#stamps = new Float64Array(buffer, byteOffset + STAMPS, SLOTS);
    this.#dirty = this.#bytes.subarray(DIRTY, DIRTY + SLOTS);
    this.pending = new Float64Array(buffer, byteOffset + PENDING_LIST, MAX_PENDING);
    this.#view = new DataView(buffer, byteOffset, METADATA_SIZE);
    this.#address = address;
    this.#storage = storage;
    this.#slice = Math.min(MAX_SLICE, 2 ** clusterBits);
  }

  /** Fills the memory in for an image as it is in its file. */
  begin(format: Qcow2Format, fileSize: number): void {
    const cluster = clusterSize(format);
    const { fields } = this;
    const { FAILED, GENERATION, OWNER } = Field;
    this.forget();
    const kept = { owner: fields[OWNER], generation: fields[GENERATION] };
    fields.fill(0);
    fields[Field.CLUSTER_BITS] = format.clusterBits;
    fields[Field.REFCOUNT_ORDER] = format.refcountOrder;
    fields[Field.SIZE] = format.size;
    fields[Field.L1_OFFSET] = format.l1Offset;
    fields[Field.L1_SIZE] = format.l1Size;
    fields[Field.REFTABLE_OFFSET] = format.reftableOffset;
    fields[Field.REFTABLE_CLUSTERS] = format.reftableClusters;
    fields[Field.FILE_END] = Math.ceil(fileSize / cluster) * cluster;
    fields[OWNER] = kept.owner;
    fields[GENERATION] = kept.generation + 1;
    fields[FAILED] = 0;
    fields[Field.LAYOUT] = LAYOUT;
  }

  /**
   * Checks memory that another VMM has filled in.
   *
   * @throws {Error} if it is not this image's
   */
  checkKept(format: Qcow2Format, nodeName: string): void {
    const { fields } = this;
    const bounded = [Field.SIZE, Field.L1_OFFSET, Field.L1_SIZE, Field.REFTABLE_OFFSET]
      .every((field) => Number.isSafeInteger(fields[field]) && fields[field] >= 0);
    const counts = fields[Field.PENDING] >= 0 && fields[Field.PENDING] <= MAX_PENDING &&
      Number.isInteger(fields[Field.PENDING]) && fields[Field.FREE_HINT] >= 0;
    if (
      fields[Field.LAYOUT] === LAYOUT && fields[Field.CLUSTER_BITS] === format.clusterBits &&
      fields[Field.REFCOUNT_ORDER] === format.refcountOrder && bounded && counts
    ) return;
    throw new Error(`Tables of block node '${nodeName}' in the old VMM make no sense`);
  }

  /** The image contradicts itself. @param reason in what, for whoever asks {@linkcode takeFailure} */
  fail(reason: string): void {
    const { written } = new TextEncoder().encodeInto(reason, this.#reason());
    this.fields[Field.REASON_LENGTH] = written;
    this.fields[Field.FAILED] = 1;
  }

  /** In what the image contradicts itself, if it does, and nobody has asked before. */
  takeFailure(): string | undefined {
    if (this.fields[Field.FAILED] === 0 || this.fields[Field.TOLD] !== 0) return undefined;
    this.fields[Field.TOLD] = 1;
    return new TextDecoder().decode(this.#reason().slice(0, this.fields[Field.REASON_LENGTH]));
  }

  #reason(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(REASON, FIELDS_SIZE);
  }

  /** Forgets all that is cached, changes as well. */
  forget(): void {
    this.#tags.fill(0);
    this.#dirty.fill(0);
    this.fields[Field.DIRTY_MAPPINGS] = this.fields[Field.DIRTY_REFCOUNTS] = 0;
    this.fields[Field.PENDING] = 0;
  }

  /** Whether something is newer than the file. */
  get isDirty(): boolean {
    const { DIRTY_MAPPINGS, DIRTY_REFCOUNTS, PENDING } = Field;
    return this.fields[DIRTY_MAPPINGS] + this.fields[DIRTY_REFCOUNTS] + this.fields[PENDING] > 0;
  }

  /** The upper half of a big-endian entry of 64 bits; the lower one is at `offset` + 4. */
  u32(offset: number): number {
    return this.#view.getUint32(this.#find(offset));
  }

  /** A byte of a table. */
  u8(offset: number): number {
    return this.#bytes[this.#find(offset)];
  }

  /** Changes a byte of a table. */
  setU8(offset: number, value: number, kind: SliceKind): void {
    const at = this.#find(offset);
    this.#bytes[at] = value;
    this.#mark(at, kind);
  }

  /** Changes an entry of 64 bits. */
  setU64(offset: number, high: number, low: number, kind: SliceKind): void {
    const at = this.#find(offset);
    this.#view.setUint32(at, high >>> 0);
    this.#view.setUint32(at + 4, low >>> 0);
    this.#mark(at, kind);
  }

  /** What is cached of a range is not there any more, nor are changes. */
  drop(offset: number, length: number): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      const tag = this.#tags[slot];
      if (tag < offset || tag >= offset + length) continue;
      this.#setClean(slot);
      this.#tags[slot] = 0;
    }
  }

  /** Copies a table, with changes. */
  copyOut(offset: number, into: Uint8Array<ArrayBuffer>): void {
    for (let done = 0; done < into.length; done += this.#slice) {
      const at = this.#find(offset + done);
      const length = Math.min(this.#slice, into.length - done);
      into.set(this.#bytes.subarray(at, at + length), done);
    }
  }

  /** Writes refcounts that are newer than the file. */
  writeRefcounts(): void {
    if (this.fields[Field.DIRTY_REFCOUNTS] > 0) this.#writeAll(SliceKind.REFCOUNT);
  }

  /** Writes mappings that are newer than the file, when what they rest on is on the disk. */
  writeMappings(): void {
    if (this.fields[Field.DIRTY_MAPPINGS] === 0) return;
    if (!this.#markUncounted) this.writeRefcounts();
    else if (this.fields[Field.UNCOUNTED] === 0) {
      this.#markUncounted();
      this.fields[Field.UNCOUNTED] = 1;
    }
    this.#storage.barrier();
    this.#writeAll(SliceKind.MAPPING);
  }

  #writeAll(kind: SliceKind): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.#dirty[slot] === kind) this.#write(slot);
    }
  }

  #write(slot: number): void {
    const tag = this.#tags[slot];
    if (!(tag > 0 && tag % this.#slice === 0 && tag < this.fields[Field.FILE_END])) {
      throw new CorruptImage(`A table at offset ${tag} is outside the image`);
    }
    this.#storage.store(this.#address + SLICES + slot * MAX_SLICE, this.#slice, tag);
    this.#setClean(slot);
  }

  #mark(at: number, kind: SliceKind): void {
    const slot = Math.floor((at - SLICES) / MAX_SLICE);
    if (this.#dirty[slot] === kind) return;
    this.#setClean(slot);
    this.#dirty[slot] = kind;
    this.fields[kind === SliceKind.MAPPING ? Field.DIRTY_MAPPINGS : Field.DIRTY_REFCOUNTS]++;
  }

  #setClean(slot: number): void {
    const kind = this.#dirty[slot];
    if (kind === 0) return;
    this.#dirty[slot] = 0;
    this.fields[kind === SliceKind.MAPPING ? Field.DIRTY_MAPPINGS : Field.DIRTY_REFCOUNTS]--;
  }

  /** Where a byte of the file is in this memory; it may move at the next call. */
  #find(offset: number): number {
    const tag = offset - offset % this.#slice;
    const first = (tag / this.#slice) % SETS * WAYS;
    for (let slot = first; slot < first + WAYS; slot++) {
      if (this.#tags[slot] === tag) return this.#use(slot, offset - tag);
    }
    if (tag <= 0 || tag >= Math.min(this.fields[Field.FILE_END], MAX_HOST_OFFSET)) {
      throw new CorruptImage(`A table at offset ${tag} is outside the image`);
    }
    const slot = this.#makeRoom(first);
    this.#tags[slot] = 0;
    this.#storage.load(this.#address + SLICES + slot * MAX_SLICE, this.#slice, tag);
    this.#tags[slot] = tag;
    return this.#use(slot, offset - tag);
  }

  #use(slot: number, position: number): number {
    this.#stamps[slot] = ++this.fields[Field.TICK];
    return SLICES + slot * MAX_SLICE + position;
  }

  /** The slot of a set that was not used for longest, and of those that can be had at once if one is. */
  #makeRoom(first: number): number {
    let best = first;
    for (let slot = first + 1; slot < first + WAYS; slot++) {
      const [dirty, than] = [this.#dirty[slot], this.#dirty[best]];
      if (dirty < than || (dirty === than && this.#stamps[slot] < this.#stamps[best])) best = slot;
    }
    if (this.#dirty[best] === SliceKind.MAPPING) this.writeMappings();
    if (this.#dirty[best] === SliceKind.REFCOUNT) this.#write(best);
    return best;
  }
}
