/**
 * Counting what uses each cluster of a qcow2 image, comparing it with the image's refcounts, and making
 * those right.
 *
 * @module
 */
import { clusterSize, HeaderField } from "./format.ts";
import type { Qcow2Layer } from "./layer.ts";
import { ClusterKind, COPIED, type Found } from "./mapping.ts";
import { Field, SliceKind } from "./metadata.ts";
import { entryOffset } from "./regions.ts";
import type { Snapshot } from "./snapshots.ts";
import { CorruptImage } from "./storage.ts";

/** What was found of an image. */
export interface CheckResult {
  /** Places in which it contradicts itself. */
  corruptions: number;
  /** Clusters that nobody uses and that are not free. */
  leaks: number;
  /** Clusters of the guest's disk. */
  readonly totalClusters: number;
  allocatedClusters: number;
  compressedClusters: number;
  /** Those that do not follow the one before them in the file. */
  fragmentedClusters: number;
  /** The end of the last cluster in use, in bytes. */
  imageEnd: number;
}

/** What is made right: clusters that nobody uses, or all. */
export type Fix = "none" | "leaks" | "all";

/**
 * Checks an image that nobody uses meanwhile.
 *
 * @param report is called with each thing that is wrong, in QEMU's words
 */
export function check(
  layer: Qcow2Layer,
  snapshots: readonly Snapshot[],
  fix: Fix,
  report: (text: string) => void,
): CheckResult {
  const census = new Census(layer, report);
  census.count(snapshots);
  census.compare(fix);
  if (fix === "all" && census.result.corruptions > 0) rebuild(layer, census.used);
  census.checkCopied(fix);
  if (fix !== "none") layer.settle();
  return census.result;
}

/** Counts an image's refcounts anew, since a writer did not come to write them. */
export function repair(layer: Qcow2Layer, snapshots: readonly Snapshot[]): void {
  const census = new Census(layer, () => {});
  census.count(snapshots);
  if (census.result.corruptions > 0) {
    throw new CorruptImage("the image was not closed, and its tables contradict themselves");
  }
  rebuild(layer, census.used);
  census.checkCopied("all");
  layer.settle();
}

/** Sets the flags by which clusters are written in place as the refcounts say. */
export function markCopied(layer: Qcow2Layer): void {
  new Census(layer, () => {}).checkCopied("all");
}

/** Entries of all L1 tables together that are followed. */
const MAX_L1_ENTRIES = 2 ** 26;

class Census {
  /** How often each cluster is used. */
  readonly used = new Map<number, number>();
  readonly result: CheckResult;
  readonly #layer: Qcow2Layer;
  readonly #report: (text: string) => void;
  readonly #cluster: number;
  #next = 0;

  constructor(layer: Qcow2Layer, report: (text: string) => void) {
    this.#layer = layer;
    this.#report = report;
    this.#cluster = clusterSize(layer.format);
    this.result = {
      ...{ corruptions: 0, leaks: 0, allocatedClusters: 0, compressedClusters: 0 },
      ...{ fragmentedClusters: 0, imageEnd: 0 },
      totalClusters: Math.ceil(layer.metadata.fields[Field.SIZE] / this.#cluster),
    };
  }

  count(snapshots: readonly Snapshot[]): void {
    const { metadata: { fields }, format, regions } = this.#layer;
    const entries = snapshots.reduce((sum, { l1Size }) => sum + l1Size, fields[Field.L1_SIZE]);
    if (entries > MAX_L1_ENTRIES) {
      throw new CorruptImage(`The L1 tables have ${entries} entries: those are too many to follow`);
    }
    this.#use(0, this.#cluster);
    this.#countL1(fields[Field.L1_OFFSET], fields[Field.L1_SIZE], true);
    for (const { l1Offset, l1Size } of snapshots) this.#countL1(l1Offset, l1Size, false);
    const table = regions.ranges.find(({ what }) => what === "snapshot table");
    if (table && format.snapshots > 0) this.#use(table.offset, table.length);
    this.#countBlocks(fields[Field.REFTABLE_OFFSET], fields[Field.REFTABLE_CLUSTERS]);
  }

  /** Compares refcounts with uses. */
  compare(fix: Fix): void {
    const { refcounts } = this.#layer;
    const stored = new Map<number, number>();
    refcounts.each((cluster, count) => stored.set(cluster, count));
    const all = [...new Set([...stored.keys(), ...this.used.keys()])].sort((a, b) => a - b);
    for (const cluster of all) {
      const [refcount, reference] = [stored.get(cluster) ?? 0, this.used.get(cluster) ?? 0];
      this.result.imageEnd = (cluster + 1) * this.#cluster;
      if (refcount === reference) continue;
      const isLeak = refcount > reference;
      const isFixed = fix === "all" || (fix === "leaks" && isLeak);
      const what = isFixed ? "Repairing" : isLeak ? "Leaked" : "ERROR";
      this.#report(`${what} cluster ${cluster} refcount=${refcount} reference=${reference}`);
      if (isLeak) this.result.leaks++;
      else this.result.corruptions++;
      if (isLeak && fix !== "none") refcounts.put(cluster, reference);
    }
  }

  /** Compares the flags by which clusters are written in place with uses. */
  checkCopied(fix: Fix): void {
    const { metadata } = this.#layer;
    const { fields } = metadata;
    this.#eachEntry(fields[Field.L1_OFFSET], fields[Field.L1_SIZE], (at, high, low, index) => {
      const table = entryOffset(high, low);
      if (table === 0 || !this.#isThere(table)) return;
      this.#checkFlag(at, high, low, table, fix, `L2 cluster: l1_index=${index} l1_entry`);
      this.#eachEntry(table, this.#cluster / 8, (at, high, low) => {
        const host = entryOffset(high, low);
        const isCompressed = (high & 0x4000_0000) !== 0;
        if (isCompressed || host === 0 || !this.#isThere(host)) return;
        this.#checkFlag(at, high, low, host, fix, "data cluster: l2_entry");
      });
    });
  }

  #checkFlag(at: number, high: number, low: number, host: number, fix: Fix, what: string): void {
    const refcount = this.#layer.refcounts.get(host / this.#cluster);
    if ((refcount === 1) === ((high & COPIED) !== 0)) return;
    const entry = (BigInt(high) << 32n | BigInt(low)).toString(16);
    this.#report(`ERROR OFLAG_COPIED ${what}=${entry} refcount=${refcount}`);
    this.result.corruptions++;
    if (fix !== "all") return;
    const right = refcount === 1 ? high | COPIED : high & ~COPIED;
    this.#layer.metadata.setU64(at, right, low, SliceKind.MAPPING);
  }

  #eachEntry(
    offset: number,
    entries: number,
    action: (at: number, high: number, low: number, index: number) => void,
  ): void {
    const { metadata } = this.#layer;
    for (let index = 0, at = offset; index < entries; index++, at += 8) {
      action(at, metadata.u32(at), metadata.u32(at + 4), index);
    }
  }

  #countL1(offset: number, entries: number, active: boolean): void {
    this.#use(offset, entries * 8);
    // One that is there again is wrong, and would be followed as often as it is there.
    const seen = new Set<number>();
    this.#eachEntry(offset, entries, (_at, high, low, index) => {
      const table = entryOffset(high, low);
      if (table === 0) return;
      if (seen.has(table)) {
        this.#use(table, this.#cluster);
        return this.#wrong(
          `ERROR l2_offset=${table.toString(16)}: L1 entry ${index} has it as well`,
        );
      }
      seen.add(table);
      if (!this.#isThere(table)) {
        return this.#wrong(
          `ERROR l2_offset=${
            table.toString(16)
          }: Table is not cluster aligned or outside the image; L1 entry ${index} corrupted`,
        );
      }
      this.#use(table, this.#cluster);
      this.#countL2(table, active);
    });
  }

  #countL2(table: number, active: boolean): void {
    this.#next = 0;
    const found: Found = { kind: ClusterKind.UNALLOCATED, host: 0, copied: false, length: 0 };
    this.#eachEntry(table, this.#cluster / 8, (_at, high, low) => {
      try {
        this.#layer.mapping.decode(high, low, found);
      } catch (error) {
        if (!(error instanceof CorruptImage)) throw error;
        return this.#wrong(`ERROR ${error.message}`);
      }
      const { kind, host, length } = found;
      if (host === 0 || kind === ClusterKind.UNALLOCATED) return;
      const compressed = kind === ClusterKind.COMPRESSED;
      this.#use(host, compressed ? length : this.#cluster);
      if (active) this.#countData(host, compressed);
    });
  }

  #countData(host: number, compressed: boolean): void {
    const { result } = this;
    result.allocatedClusters++;
    if (compressed) {
      result.compressedClusters++;
      result.fragmentedClusters++;
      return;
    }
    if (this.#next !== 0 && host !== this.#next) result.fragmentedClusters++;
    this.#next = host + this.#cluster;
  }

  #countBlocks(table: number, clusters: number): void {
    this.#use(table, clusters * this.#cluster);
    this.#eachEntry(table, clusters * this.#cluster / 8, (_at, high, low, index) => {
      const block = entryOffset(high, low);
      if (block === 0) return;
      if (this.#isThere(block)) return this.#use(block, this.#cluster);
      this.#wrong(`ERROR refcount block ${index} is not cluster aligned or outside image`);
    });
  }

  #isThere(table: number): boolean {
    return table % this.#cluster === 0 && table < this.#layer.metadata.fields[Field.FILE_END];
  }

  #wrong(text: string): void {
    this.#report(text);
    this.result.corruptions++;
  }

  #use(offset: number, length: number): void {
    if (length === 0) return;
    const last = Math.floor((offset + length - 1) / this.#cluster);
    for (let cluster = Math.floor(offset / this.#cluster); cluster <= last; cluster++) {
      this.used.set(cluster, (this.used.get(cluster) ?? 0) + 1);
    }
  }
}

/**
 * Writes new refcounts behind everything else, in blocks of those ranges in which something is used, and
 * lets the header point to them.
 */
function rebuild(layer: Qcow2Layer, used: Map<number, number>): void {
  const { metadata, storage, format } = layer;
  const { fields } = metadata;
  const cluster = clusterSize(format);
  forgetOld(layer, used);
  const perBlock = 2 ** (format.clusterBits + 3 - format.refcountOrder);
  const start = fields[Field.FILE_END] / cluster;
  const ranges = new Set([...used.keys()].map((one) => Math.floor(one / perBlock)));
  // The new clusters have refcounts as well, which may need blocks of their own.
  let tableClusters = 0;
  for (let before = -1; before !== ranges.size;) {
    before = ranges.size;
    const end = () => start + tableClusters + ranges.size;
    for (let one = start; one < end(); one++) ranges.add(Math.floor(one / perBlock));
    let last = 0;
    for (const range of ranges) last = Math.max(last, range);
    const wanted = Math.ceil((last + 1) * 8 / cluster);
    if (wanted > tableClusters) {
      tableClusters = wanted;
      before = -1;
    }
  }
  const blocks = [...ranges].sort((a, b) => a - b);
  for (let i = 0; i < tableClusters + blocks.length; i++) used.set(start + i, 1);
  const table = new DataView(new ArrayBuffer(tableClusters * cluster));
  for (const [i, range] of blocks.entries()) {
    const offset = (start + tableClusters + i) * cluster;
    table.setBigUint64(range * 8, BigInt(offset));
    storage.storeBytes(blockOf(used, range * perBlock, perBlock, format.refcountOrder), offset);
  }
  storage.storeBytes(new Uint8Array(table.buffer), start * cluster);
  storage.barrier();
  const header = new DataView(new ArrayBuffer(12));
  header.setBigUint64(0, BigInt(start * cluster));
  header.setUint32(8, tableClusters);
  storage.storeBytes(new Uint8Array(header.buffer), HeaderField.REFTABLE_OFFSET);
  storage.barrier();
  metadata.forget();
  fields[Field.REFTABLE_OFFSET] = start * cluster;
  fields[Field.REFTABLE_CLUSTERS] = tableClusters;
  fields[Field.FILE_END] = (start + tableClusters + blocks.length) * cluster;
  fields[Field.FREE_HINT] = 0;
  fields[Field.GENERATION]++;
}

/** The old table and its blocks are not used any more. */
function forgetOld({ metadata, format }: Qcow2Layer, used: Map<number, number>): void {
  const { fields } = metadata;
  const cluster = clusterSize(format);
  const [table, clusters] = [fields[Field.REFTABLE_OFFSET], fields[Field.REFTABLE_CLUSTERS]];
  const unuse = (offset: number) => {
    const one = offset / cluster;
    const count = used.get(one) ?? 0;
    if (count > 1) used.set(one, count - 1);
    else used.delete(one);
  };
  for (let at = table; at < table + clusters * cluster; at += 8) {
    const block = entryOffset(metadata.u32(at), metadata.u32(at + 4));
    if (block !== 0 && block % cluster === 0 && block < fields[Field.FILE_END]) unuse(block);
  }
  for (let i = 0; i < clusters; i++) unuse(table + i * cluster);
}

/** A block of refcounts, as it is in the file. */
function blockOf(
  used: ReadonlyMap<number, number>,
  first: number,
  count: number,
  order: number,
): Uint8Array<ArrayBuffer> {
  const bits = 1 << order;
  const bytes = new Uint8Array(count * bits / 8);
  for (let i = 0; i < count; i++) {
    let value = used.get(first + i) ?? 0;
    if (value >= 2 ** bits) throw new CorruptImage(`Cluster ${first + i} is used ${value} times`);
    if (bits < 8) {
      bytes[Math.floor(i * bits / 8)] |= value << (i * bits % 8);
      continue;
    }
    for (let at = (i + 1) * bits / 8 - 1; value > 0; at--, value = Math.floor(value / 256)) {
      bytes[at] = value % 256;
    }
  }
  return bytes;
}
