/**
 * Which clusters of a qcow2 image's file are in use, and how often.
 *
 * @module
 */
import { Errno } from "../../../ffi/errno.ts";
import { HeaderField } from "./format.ts";
import { Field, MAX_PENDING, type Metadata, SliceKind } from "./metadata.ts";
import { entryOffset, type Regions } from "./regions.ts";
import { CorruptImage, ImageFailure, type Storage } from "./storage.ts";

const MAX_REFTABLE_BYTES = 8 << 20;

/** Clusters one after another. */
export interface ClusterRun {
  /** Number of the first. */
  readonly first: number;
  readonly count: number;
  /** Whether they are beyond what has ever been in the file, and so are zeros. */
  readonly fresh: boolean;
}

/** The refcounts of an image. */
export class Refcounts {
  readonly #metadata: Metadata;
  readonly #storage: Storage;
  readonly #regions: Regions;
  readonly #cluster: number;
  readonly #order: number;
  /** Refcounts of a block. */
  readonly #perBlock: number;
  readonly #discard: boolean;

  /** @param discard whether the file gives clusters back that nobody uses */
  constructor(
    parts: { readonly metadata: Metadata; readonly storage: Storage; readonly regions: Regions },
    { clusterBits, refcountOrder }: {
      readonly clusterBits: number;
      readonly refcountOrder: number;
    },
    discard: boolean,
  ) {
    this.#metadata = parts.metadata;
    this.#storage = parts.storage;
    this.#regions = parts.regions;
    this.#cluster = 2 ** clusterBits;
    this.#order = refcountOrder;
    this.#perBlock = 2 ** (clusterBits + 3 - refcountOrder);
    this.#discard = discard;
  }

  /** How often a cluster is in use. */
  get(cluster: number): number {
    const block = this.#blockOf(cluster);
    if (block === 0) return 0;
    const index = cluster % this.#perBlock;
    if (this.#order < 3) {
      const perByte = 8 >> this.#order;
      const byte = this.#metadata.u8(block + Math.floor(index / perByte));
      return (byte >> (index % perByte << this.#order)) & ((1 << (1 << this.#order)) - 1);
    }
    const bytes = 1 << (this.#order - 3);
    let value = 0;
    for (let i = 0; i < bytes; i++) {
      value = value * 256 + this.#metadata.u8(block + index * bytes + i);
    }
    return value;
  }

  /**
   * Finds clusters that nobody uses, and counts them as used once.
   *
   * @param wanted how many; fewer are found if there are none so many one after another
   * @throws {ImageFailure} if there is no room
   */
  allocate(wanted: number): ClusterRun {
    const { fields } = this.#metadata;
    for (let first = Math.max(1, fields[Field.FREE_HINT]);;) {
      while (this.get(first) !== 0) first++;
      this.#checkRoom(first, 1);
      if (this.#blockOf(first) === 0) {
        this.#addBlock(first);
        continue;
      }
      const limit = this.#roomFor(wanted, first);
      let count = 1;
      while (count < limit && this.#blockOf(first + count) !== 0 && this.get(first + count) === 0) {
        count++;
      }
      // All of them, or those before the end, are old.
      const end = fields[Field.FILE_END] / this.#cluster;
      if (first < end && first + count > end) count = end - first;
      const fresh = first >= end && this.#storage.limit === undefined;
      for (let i = 0; i < count; i++) this.put(first + i, 1);
      fields[Field.FREE_HINT] = first + count;
      this.#extend(first + count);
      return { first, count, fresh };
    }
  }

  /**
   * Finds clusters that lie one after another, and counts them as used once.
   *
   * @throws {ImageFailure} if there is no room
   */
  allocateTogether(wanted: number): ClusterRun {
    // A block lies among the clusters that it counts: there are never more than the others in a row.
    if (wanted >= this.#perBlock) throw new ImageFailure(Errno.EFBIG);
    const parts: ClusterRun[] = [];
    try {
      for (;;) {
        const run = this.allocate(wanted);
        if (run.count === wanted) return run;
        parts.push(run);
      }
    } finally {
      for (const part of parts) this.release(part);
    }
  }

  /** Calls for each cluster that has a refcount other than 0. */
  each(action: (cluster: number, count: number) => void): void {
    const { fields } = this.#metadata;
    const blocks = fields[Field.REFTABLE_CLUSTERS] * this.#cluster / 8;
    for (let block = 0; block < blocks; block++) {
      const first = block * this.#perBlock;
      if (this.#blockOf(first) === 0) continue;
      for (let cluster = first; cluster < first + this.#perBlock; cluster++) {
        const count = this.get(cluster);
        if (count !== 0) action(cluster, count);
      }
    }
  }

  /** Clusters that {@linkcode allocate} found are not used after all. */
  release({ first, count }: ClusterRun, from = 0): void {
    for (let i = from; i < count; i++) this.put(first + i, 0);
    const { fields } = this.#metadata;
    fields[Field.FREE_HINT] = Math.min(fields[Field.FREE_HINT], first + from);
  }

  /** Whether as many clusters more can wait to be let go. */
  hasRoom(clusters: number): boolean {
    return this.#metadata.fields[Field.PENDING] + clusters <= MAX_PENDING;
  }

  /** A cluster is used once less, when the mappings that say so are on the disk: {@linkcode letGo}. */
  free(cluster: number): void {
    const { fields, pending } = this.#metadata;
    pending[fields[Field.PENDING]++] = cluster;
  }

  /** The mappings are on the disk: nobody finds the clusters any more that were freed. */
  letGo(): void {
    const { fields, pending } = this.#metadata;
    while (fields[Field.PENDING] > 0) {
      const cluster = pending[fields[Field.PENDING] - 1];
      const count = this.get(cluster);
      if (count > 0) this.put(cluster, count - 1);
      fields[Field.PENDING]--;
      if (count === 1) this.#freed(cluster);
    }
  }

  /**
   * A cluster is used so many times more, or less: nothing that is on the disk rests on it.
   *
   * @throws {CorruptImage} if it was not used as often
   */
  change(cluster: number, by: number): void {
    const count = this.get(cluster) + by;
    if (count < 0) throw new CorruptImage(`Cluster ${cluster} has a refcount that is too small`);
    this.put(cluster, count);
    if (count === 0) this.#freed(cluster);
  }

  #freed(cluster: number): void {
    const { fields } = this.#metadata;
    fields[Field.FREE_HINT] = Math.min(fields[Field.FREE_HINT], cluster);
    if (this.#discard) this.#storage.discard(cluster * this.#cluster, this.#cluster);
  }

  #roomFor(wanted: number, first: number): number {
    const { limit } = this.#storage;
    return limit === undefined
      ? wanted
      : Math.min(wanted, Math.floor(limit / this.#cluster) - first);
  }

  #checkRoom(first: number, count: number): void {
    const end = (first + count) * this.#cluster;
    const { limit } = this.#storage;
    if (limit !== undefined && end > limit) throw new ImageFailure(Errno.ENOSPC);
    if (!Number.isSafeInteger(end)) throw new ImageFailure(Errno.EFBIG);
  }

  #extend(end: number): void {
    const { fields } = this.#metadata;
    fields[Field.FILE_END] = Math.max(fields[Field.FILE_END], end * this.#cluster);
  }

  /** Sets how often a cluster is in use. @throws {CorruptImage} if no block counts it */
  put(cluster: number, value: number): void {
    const block = this.#blockOf(cluster);
    if (block === 0) throw new CorruptImage(`Cluster ${cluster} has no refcount`);
    const index = cluster % this.#perBlock;
    if (this.#order < 3) {
      const perByte = 8 >> this.#order;
      const at = block + Math.floor(index / perByte);
      const shift = index % perByte << this.#order;
      const mask = ((1 << (1 << this.#order)) - 1) << shift;
      const byte = (this.#metadata.u8(at) & ~mask) | (value << shift);
      return this.#metadata.setU8(at, byte, SliceKind.REFCOUNT);
    }
    const bytes = 1 << (this.#order - 3);
    for (let i = bytes - 1, rest = value; i >= 0; i--, rest = Math.floor(rest / 256)) {
      this.#metadata.setU8(block + index * bytes + i, rest % 256, SliceKind.REFCOUNT);
    }
  }

  /** The offset of the block with a cluster's refcount; 0 if there is none. */
  #blockOf(cluster: number): number {
    const { fields } = this.#metadata;
    const index = Math.floor(cluster / this.#perBlock);
    if (index >= fields[Field.REFTABLE_CLUSTERS] * this.#cluster / 8) return 0;
    const at = fields[Field.REFTABLE_OFFSET] + index * 8;
    const block = entryOffset(this.#metadata.u32(at), this.#metadata.u32(at + 4));
    if (block % this.#cluster === 0) return block;
    throw new CorruptImage(`Refblock offset ${block} unaligned (reftable index: ${index})`);
  }

  /** Makes a block, in the first cluster that it counts. */
  #addBlock(cluster: number): void {
    const { fields } = this.#metadata;
    const index = Math.floor(cluster / this.#perBlock);
    if (index >= fields[Field.REFTABLE_CLUSTERS] * this.#cluster / 8) return this.#growTable(index);
    const offset = cluster * this.#cluster;
    this.#regions.check(offset, this.#cluster);
    // It counts itself before the table has it, and that may be all of it that a power cut leaves.
    this.#storage.storeBytes(this.#blockWithOne(cluster % this.#perBlock), offset);
    this.#storage.barrier();
    this.#extend(cluster + 1);
    this.#putTableEntry(fields[Field.REFTABLE_OFFSET], index, offset);
    this.put(cluster, 1);
    this.#regions.add(offset, "refcount block");
  }

  /** A block in which one cluster is used once. */
  #blockWithOne(index: number): Uint8Array<ArrayBuffer> {
    const block = new Uint8Array(this.#cluster);
    // Those of less than a byte begin at its lowest bit, others end with their lowest byte.
    const bits = 1 << this.#order;
    if (bits < 8) block[Math.floor(index * bits / 8)] = 1 << index * bits % 8;
    else block[(index + 1) * bits / 8 - 1] = 1;
    return block;
  }

  #putTableEntry(table: number, index: number, offset: number): void {
    const high = Math.floor(offset / 2 ** 32);
    this.#metadata.setU64(table + index * 8, high, offset % 2 ** 32, SliceKind.REFCOUNT);
  }

  /**
   * Makes a larger table, so that it has an entry `index`, behind everything else, with the blocks that
   * count its own clusters.
   */
  #growTable(index: number): void {
    const { fields } = this.#metadata;
    const old = {
      offset: fields[Field.REFTABLE_OFFSET],
      clusters: fields[Field.REFTABLE_CLUSTERS],
    };
    const perCluster = this.#cluster / 8;
    const start = Math.max(index * this.#perBlock, fields[Field.FILE_END] / this.#cluster);
    const firstBlock = Math.floor(start / this.#perBlock);
    let clusters = Math.ceil(Math.max(index + 1, old.clusters * perCluster * 1.5) / perCluster);
    let blocks = 1;
    for (;;) {
      const last = Math.floor((start + clusters + blocks - 1) / this.#perBlock);
      const wanted = { blocks: last - firstBlock + 1, clusters: 0 };
      wanted.clusters = Math.ceil((firstBlock + Math.max(blocks, wanted.blocks)) / perCluster);
      if (wanted.blocks <= blocks && wanted.clusters <= clusters) break;
      blocks = Math.max(blocks, wanted.blocks);
      clusters = Math.max(clusters, wanted.clusters);
    }
    if (clusters * this.#cluster > MAX_REFTABLE_BYTES) throw new ImageFailure(Errno.EFBIG);
    const end = start + clusters + blocks;
    this.#checkRoom(start, clusters + blocks);
    this.#regions.check(start * this.#cluster, (end - start) * this.#cluster);
    const table = new Uint8Array(clusters * this.#cluster);
    this.#metadata.copyOut(old.offset, table.subarray(0, old.clusters * this.#cluster));
    this.#storage.storeBytes(table, start * this.#cluster);
    this.#storage.storeBytes(
      new Uint8Array(blocks * this.#cluster),
      (start + clusters) * this.#cluster,
    );
    this.#extend(end);
    fields[Field.REFTABLE_OFFSET] = start * this.#cluster;
    fields[Field.REFTABLE_CLUSTERS] = clusters;
    try {
      for (let i = 0; i < blocks; i++) {
        const offset = (start + clusters + i) * this.#cluster;
        this.#putTableEntry(fields[Field.REFTABLE_OFFSET], firstBlock + i, offset);
      }
      for (let cluster = start; cluster < end; cluster++) this.put(cluster, 1);
      this.#metadata.writeRefcounts();
      this.#storage.barrier();
      this.#writeHeader();
    } catch (error) {
      fields[Field.REFTABLE_OFFSET] = old.offset;
      fields[Field.REFTABLE_CLUSTERS] = old.clusters;
      throw error;
    }
    this.#metadata.drop(old.offset, old.clusters * this.#cluster);
    fields[Field.GENERATION]++;
    // Nothing rests on the old table, as the header is on the disk.
    for (let i = 0; i < old.clusters; i++) this.put(old.offset / this.#cluster + i, 0);
    fields[Field.FREE_HINT] = Math.min(fields[Field.FREE_HINT], old.offset / this.#cluster);
  }

  #writeHeader(): void {
    const { fields } = this.#metadata;
    const entry = new DataView(new ArrayBuffer(12));
    entry.setBigUint64(0, BigInt(fields[Field.REFTABLE_OFFSET]));
    entry.setUint32(8, fields[Field.REFTABLE_CLUSTERS]);
    this.#storage.storeBytes(new Uint8Array(entry.buffer), HeaderField.REFTABLE_OFFSET);
    this.#storage.barrier();
  }
}
