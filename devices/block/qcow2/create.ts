/**
 * Making a qcow2 image in which nothing is yet.
 *
 * @module
 */
import {
  Extension,
  HeaderField,
  Incompatible,
  l1EntriesFor,
  largestSize,
  LAZY_REFCOUNTS,
  QCOW2_MAGIC,
} from "./format.ts";
import type { Storage } from "./storage.ts";

/** What an image shall be. */
export interface CreateOptions {
  /** Bytes of the disk, a multiple of 512. */
  readonly size: number;
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** Refcounts have 2^n bits. */
  readonly refcountOrder: number;
  readonly compression: "zlib" | "zstd";
  readonly lazyRefcounts: boolean;
  readonly backing?: { readonly filename: string; readonly format: string };
}

/** Bytes of a version 3 header with all fields of today. */
const HEADER_LENGTH = 112;
const encoder = new TextEncoder();

/**
 * Writes an image to an empty file.
 *
 * @throws {Error} if there can be no such image
 */
export function createQcow2(storage: Storage, options: CreateOptions): void {
  const { size, clusterBits, refcountOrder } = options;
  if (size > largestSize(clusterBits)) {
    throw new Error("The image size is too large (try using a larger cluster size)");
  }
  const cluster = 2 ** clusterBits;
  const perBlock = 2 ** (clusterBits + 3 - refcountOrder);
  const entries = l1EntriesFor(size, clusterBits);
  const l1 = Math.ceil(entries * 8 / cluster);
  let [table, blocks] = [1, 1];
  for (;;) {
    const needed = Math.ceil((1 + table + blocks + l1) / perBlock);
    const tables = Math.ceil(needed * 8 / cluster);
    if (needed <= blocks && tables <= table) break;
    [table, blocks] = [Math.max(table, tables), Math.max(blocks, needed)];
  }
  const total = 1 + table + blocks + l1;
  const bytes = new Uint8Array((1 + table + blocks) * cluster);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < blocks; i++) {
    view.setBigUint64(cluster + i * 8, BigInt((1 + table + i) * cluster));
  }
  for (let one = 0; one < total; one++) countOnce(bytes, (1 + table) * cluster, one, refcountOrder);
  writeHeader(view, bytes, options, {
    l1Size: entries,
    l1Offset: l1 === 0 ? 0 : (1 + table + blocks) * cluster,
    tableOffset: cluster,
    tableClusters: table,
  });
  storage.storeBytes(bytes, 0);
  for (let i = 0; i < l1; i++) {
    storage.storeBytes(new Uint8Array(cluster), (1 + table + blocks + i) * cluster);
  }
  storage.barrier();
}

/** Blocks lie one after another, so their refcounts do as well. */
function countOnce(
  bytes: Uint8Array<ArrayBuffer>,
  blocks: number,
  cluster: number,
  order: number,
): void {
  const bits = 1 << order;
  if (bits >= 8) bytes[blocks + (cluster + 1) * bits / 8 - 1] = 1;
  else bytes[blocks + Math.floor(cluster * bits / 8)] |= 1 << (cluster * bits % 8);
}

function writeHeader(
  view: DataView,
  bytes: Uint8Array<ArrayBuffer>,
  options: CreateOptions,
  tables: { l1Size: number; l1Offset: number; tableOffset: number; tableClusters: number },
): void {
  const { size, version, clusterBits, refcountOrder, compression, lazyRefcounts } = options;
  view.setUint32(0, QCOW2_MAGIC);
  view.setUint32(HeaderField.VERSION, version);
  view.setUint32(HeaderField.CLUSTER_BITS, clusterBits);
  view.setBigUint64(HeaderField.SIZE, BigInt(size));
  view.setUint32(HeaderField.L1_SIZE, tables.l1Size);
  view.setBigUint64(HeaderField.L1_OFFSET, BigInt(tables.l1Offset));
  view.setBigUint64(HeaderField.REFTABLE_OFFSET, BigInt(tables.tableOffset));
  view.setUint32(HeaderField.REFTABLE_CLUSTERS, tables.tableClusters);
  let at = 72;
  if (version === 3) {
    const zstd = compression === "zstd";
    view.setUint32(HeaderField.INCOMPATIBLE + 4, zstd ? Incompatible.COMPRESSION : 0);
    view.setUint32(HeaderField.COMPATIBLE + 4, lazyRefcounts ? LAZY_REFCOUNTS : 0);
    view.setUint32(HeaderField.REFCOUNT_ORDER, refcountOrder);
    view.setUint32(HeaderField.LENGTH, HEADER_LENGTH);
    bytes[HeaderField.COMPRESSION] = zstd ? 1 : 0;
    at = HEADER_LENGTH;
  }
  writeBacking(view, bytes, options, at);
}

function writeBacking(
  view: DataView,
  bytes: Uint8Array<ArrayBuffer>,
  { backing, clusterBits }: CreateOptions,
  at: number,
): void {
  if (!backing) return;
  const [format, name] = [backing.format, backing.filename].map((text) => encoder.encode(text));
  const end = at + 8 + Math.ceil(format.length / 8) * 8 + 8;
  if (end + name.length > 2 ** clusterBits || name.length > 1023) {
    throw new Error("Backing file name too long");
  }
  view.setUint32(at, Extension.BACKING_FORMAT);
  view.setUint32(at + 4, format.length);
  bytes.set(format, at + 8);
  bytes.set(name, end);
  view.setBigUint64(HeaderField.BACKING_OFFSET, BigInt(end));
  view.setUint32(HeaderField.BACKING_LENGTH, name.length);
}
