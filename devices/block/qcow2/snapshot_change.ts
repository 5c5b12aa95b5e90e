/**
 * Making, applying and deleting the snapshots in a qcow2 image, while nobody uses it otherwise.
 *
 * A power cut at any time costs no more than clusters that nobody uses: what is to be used is counted
 * before the header leads there, and what is not used any more when it does so no longer.
 *
 * @module
 */
import { clusterSize, HeaderField, l1EntriesFor, largestSize } from "./format.ts";
import { markCopied } from "./check.ts";
import type { Qcow2Layer } from "./layer.ts";
import { ClusterKind, COPIED, type Found } from "./mapping.ts";
import { Field } from "./metadata.ts";
import { entryOffset } from "./regions.ts";
import type { Snapshot } from "./snapshots.ts";
import { CorruptImage } from "./storage.ts";

/** The most snapshots of an image, as QEMU has it. */
const MAX_SNAPSHOTS = 65536;
const MAX_NAME = 255;
const HEADER_SIZE = 40;
/** Bytes of VM state, of the disk, and instructions, each of 64 bits. */
const EXTRA_SIZE = 24;
const encoder = new TextEncoder();

/** How often each cluster of the file is used, by its number. */
type Uses = Map<number, number>;

/** An L1 table. */
interface L1Table {
  readonly offset: number;
  readonly entries: number;
}

/**
 * Makes a snapshot of what the disk holds.
 *
 * @param snapshots those that there are
 * @param realtimeNs nanoseconds since 1970
 * @throws {Error} if there is no room for it, in the file or in refcounts
 */
export function createSnapshot(
  layer: Qcow2Layer,
  snapshots: readonly Snapshot[],
  name: string,
  realtimeNs: bigint,
): void {
  if (snapshots.length >= MAX_SNAPSHOTS) throw new Error("-27 (File too large)");
  if (encoder.encode(name).length > MAX_NAME) {
    throw new Error(`its name has more than ${MAX_NAME} bytes`);
  }
  layer.settle();
  const active = activeTable(layer);
  const uses = usesOf(layer, active);
  checkRoom(layer, uses);
  change(layer, uses, 1);
  try {
    markCopied(layer);
    const l1Offset = storeTable(layer, tableBytes(layer, active, active.entries));
    const entry = entryOf(layer, snapshots, { name, realtimeNs, l1Offset });
    writeTable(layer, [...snapshots.map(({ raw }) => raw), entry]);
  } catch (error) {
    change(layer, uses, -1);
    markCopied(layer);
    layer.settle();
    throw error;
  }
}

/**
 * Lets the disk hold what it held when a snapshot was made, and have the size that it had then.
 *
 * @throws {Error} if there is no room for that
 */
export function applySnapshot(layer: Qcow2Layer, snapshot: Snapshot): void {
  const { metadata: { fields }, storage, format: { clusterBits } } = layer;
  const { diskSize: size, l1Offset, l1Size } = snapshot;
  if (size > largestSize(clusterBits)) throw new CorruptImage("Snapshot's disk size invalid");
  layer.settle();
  const active = activeTable(layer);
  const uses = usesOf(layer, { offset: l1Offset, entries: l1Size });
  const had = usesOf(layer, active);
  useTable(layer, had, active);
  checkRoom(layer, uses);
  change(layer, uses, 1);
  const entries = Math.max(l1Size, l1EntriesFor(size, clusterBits));
  try {
    const table = tableBytes(layer, { offset: l1Offset, entries: l1Size }, entries);
    const offset = storeTable(layer, table);
    // Both change at once: they are in one sector, with the encryption's kind, which is none, in between.
    const header = new DataView(new ArrayBuffer(HeaderField.REFTABLE_OFFSET - HeaderField.SIZE));
    header.setBigUint64(0, BigInt(size));
    header.setUint32(HeaderField.L1_SIZE - HeaderField.SIZE, entries);
    header.setBigUint64(HeaderField.L1_OFFSET - HeaderField.SIZE, BigInt(offset));
    storage.storeBytes(new Uint8Array(header.buffer), HeaderField.SIZE);
    storage.barrier();
    fields[Field.L1_OFFSET] = offset;
  } catch (error) {
    change(layer, uses, -1);
    layer.settle();
    throw error;
  }
  fields[Field.SIZE] = size;
  fields[Field.L1_SIZE] = entries;
  fields[Field.GENERATION]++;
  change(layer, had, -1);
  markCopied(layer);
  layer.settle();
}

/** Deletes a snapshot. @throws {Error} if it cannot be written */
export function deleteSnapshot(
  layer: Qcow2Layer,
  snapshots: readonly Snapshot[],
  snapshot: Snapshot,
): void {
  layer.settle();
  const table = { offset: snapshot.l1Offset, entries: snapshot.l1Size };
  const uses = usesOf(layer, table);
  useTable(layer, uses, table);
  writeTable(layer, snapshots.filter((one) => one !== snapshot).map(({ raw }) => raw));
  change(layer, uses, -1);
  markCopied(layer);
  layer.settle();
}

function activeTable({ metadata: { fields } }: Qcow2Layer): L1Table {
  return { offset: fields[Field.L1_OFFSET], entries: fields[Field.L1_SIZE] };
}

/**
 * Counts the clusters that a table leads to.
 *
 * @throws {CorruptImage} if it leads to what cannot be, or is not counted
 */
function usesOf(layer: Qcow2Layer, { offset, entries }: L1Table): Uses {
  const { metadata, mapping, refcounts, format } = layer;
  const cluster = clusterSize(format);
  const uses: Uses = new Map();
  const found: Found = { kind: ClusterKind.UNALLOCATED, host: 0, copied: false, length: 0 };
  const seen = new Set<number>();
  for (let i = 0; i < entries; i++) {
    const at = offset + i * 8;
    const table = entryOffset(metadata.u32(at), metadata.u32(at + 4));
    if (table === 0) continue;
    if (table % cluster !== 0 || seen.has(table)) {
      throw new CorruptImage(`L2 table offset ${table} unaligned, or there twice (L1 index: ${i})`);
    }
    seen.add(table);
    use(uses, layer, table, cluster);
    for (let entry = table; entry < table + cluster; entry += 8) {
      mapping.decode(metadata.u32(entry), metadata.u32(entry + 4), found);
      const { kind, host, length } = found;
      if (host !== 0) use(uses, layer, host, kind === ClusterKind.COMPRESSED ? length : cluster);
    }
  }
  for (const [one, count] of uses) {
    const counted = refcounts.get(one);
    if (counted < count) {
      throw new CorruptImage(`Cluster ${one} has a refcount of ${counted}, and is used more often`);
    }
  }
  return uses;
}

function use(uses: Uses, { format }: Qcow2Layer, offset: number, length: number): void {
  const cluster = clusterSize(format);
  const last = Math.floor((offset + length - 1) / cluster);
  for (let one = Math.floor(offset / cluster); one <= last; one++) {
    uses.set(one, (uses.get(one) ?? 0) + 1);
  }
}

/** Adds the clusters that a table itself is in. */
function useTable(layer: Qcow2Layer, uses: Uses, { offset, entries }: L1Table): void {
  if (entries > 0) use(uses, layer, offset, entries * 8);
}

/** @throws {Error} unless each cluster can be used as often again */
function checkRoom({ refcounts, format: { refcountOrder } }: Qcow2Layer, uses: Uses): void {
  const bits = 1 << refcountOrder;
  const most = Math.min(Number.MAX_SAFE_INTEGER, 2 ** bits - 1);
  for (const [one, count] of uses) {
    if (refcounts.get(one) + count > most) {
      throw new Error(`-22 (Invalid argument): refcounts of ${bits} bits end at ${most}`);
    }
  }
}

/** All of what is counted is used once more, or less. */
function change({ refcounts }: Qcow2Layer, uses: Uses, sign: 1 | -1): void {
  for (const [one, count] of uses) refcounts.change(one, sign * count);
}

/** An L1 table's bytes, longer if need be, by which nothing is written in place. */
function tableBytes(
  { metadata, format }: Qcow2Layer,
  { offset, entries }: L1Table,
  wanted: number,
): Uint8Array<ArrayBuffer> {
  const cluster = clusterSize(format);
  const bytes = new Uint8Array(Math.ceil(wanted * 8 / cluster) * cluster);
  metadata.copyOut(offset, bytes.subarray(0, entries * 8));
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < entries * 8; at += 8) view.setUint32(at, view.getUint32(at) & ~COPIED);
  return bytes;
}

/**
 * Writes a table to a place of its own; it is on the disk then, as is what was changed before.
 *
 * @returns where; 0 if there is nothing of it
 */
function storeTable(layer: Qcow2Layer, bytes: Uint8Array<ArrayBuffer>): number {
  const { refcounts, regions, metadata, storage, format } = layer;
  if (bytes.length === 0) {
    layer.settle();
    return 0;
  }
  const cluster = clusterSize(format);
  const run = refcounts.allocateTogether(Math.ceil(bytes.length / cluster));
  const offset = run.first * cluster;
  try {
    regions.check(offset, run.count * cluster);
    metadata.drop(offset, run.count * cluster);
    storage.storeBytes(bytes, offset);
    layer.settle();
    storage.barrier();
  } catch (error) {
    refcounts.release(run);
    throw error;
  }
  return offset;
}

/** Writes another table of snapshots, and lets go of the one before. */
function writeTable(layer: Qcow2Layer, entries: readonly Uint8Array[]): void {
  const { storage, regions, refcounts, format } = layer;
  const lengths = entries.map(({ length }) => Math.ceil(length / 8) * 8);
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  for (const [i, entry] of entries.entries()) {
    bytes.set(entry, at);
    at += lengths[i];
  }
  const offset = storeTable(layer, bytes);
  const header = new DataView(new ArrayBuffer(12));
  header.setUint32(0, entries.length);
  header.setBigUint64(4, BigInt(offset));
  storage.storeBytes(new Uint8Array(header.buffer), HeaderField.SNAPSHOTS);
  storage.barrier();
  const old = regions.ranges.find(({ what }) => what === "snapshot table");
  if (!old) return;
  const cluster = clusterSize(format);
  const clusters = Math.ceil(old.length / cluster);
  for (let i = 0; i < clusters; i++) refcounts.change(old.offset / cluster + i, -1);
  layer.settle();
}

/** The entry of a new snapshot in the table: without VM state, and with the next free number as its id. */
function entryOf(
  { metadata: { fields } }: Qcow2Layer,
  snapshots: readonly Snapshot[],
  { name, realtimeNs, l1Offset }: {
    readonly name: string;
    readonly realtimeNs: bigint;
    readonly l1Offset: number;
  },
): Uint8Array {
  const numbers = snapshots.map(({ id }) => parseInt(id, 10)).filter(Number.isSafeInteger);
  const last = numbers.reduce((most, number) => Math.max(most, number), 0);
  const [idBytes, nameBytes] = [`${last + 1}`, name].map((text) => encoder.encode(text));
  const texts = HEADER_SIZE + EXTRA_SIZE;
  const bytes = new Uint8Array(texts + idBytes.length + nameBytes.length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(l1Offset));
  view.setUint32(8, fields[Field.L1_SIZE]);
  view.setUint16(12, idBytes.length);
  view.setUint16(14, nameBytes.length);
  view.setUint32(16, Number(realtimeNs / 1_000_000_000n));
  view.setUint32(20, Number(realtimeNs % 1_000_000_000n));
  view.setUint32(36, EXTRA_SIZE);
  view.setBigUint64(HEADER_SIZE + 8, BigInt(fields[Field.SIZE]));
  bytes.set(idBytes, texts);
  bytes.set(nameBytes, texts + idBytes.length);
  return bytes;
}
