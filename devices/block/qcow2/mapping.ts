/**
 * Where a guest's clusters are in a qcow2 image: L1 and L2 tables.
 *
 * @module
 */
import { Errno } from "../../../ffi/errno.ts";
import { Field, type Metadata, SliceKind } from "./metadata.ts";
import type { Refcounts } from "./refcounts.ts";
import { entryOffset, type Regions } from "./regions.ts";
import { CorruptImage, ImageFailure, type Storage } from "./storage.ts";

/** What a guest's cluster is. */
export const ClusterKind = {
  /** Nothing: what is behind the image shows. */
  UNALLOCATED: 0,
  /** Zeros, which may have a place in the file all the same. */
  ZERO: 1,
  NORMAL: 2,
  COMPRESSED: 3,
} as const;
type ClusterKind = typeof ClusterKind[keyof typeof ClusterKind];

/** The upper half of an entry: nobody else uses what it points to. */
export const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
/** The lower half of an L2 entry: it reads as zeros (version 3). */
export const ZERO = 1;
/** Bytes that compressed clusters are counted in. */
const SECTOR = 512;

/** What is found of a guest's cluster; used again for each. */
export interface Found {
  kind: ClusterKind;
  /** Offset in the file; 0 if it has no place there. */
  host: number;
  /** Nobody else uses it: it can be written where it is. */
  copied: boolean;
  /** Bytes, of a compressed cluster: no less than it has. */
  length: number;
}

/** An image's tables. */
export interface MappingParts {
  readonly metadata: Metadata;
  readonly storage: Storage;
  readonly refcounts: Refcounts;
  readonly regions: Regions;
}

/** The active mapping. */
export class Mapping {
  readonly #metadata: Metadata;
  readonly #storage: Storage;
  readonly #refcounts: Refcounts;
  readonly #regions: Regions;
  readonly #clusterBits: number;
  readonly #cluster: number;
  readonly #version: number;
  /** Entries of an L2 table. */
  readonly #entries: number;

  /** @param version of the format */
  constructor(parts: MappingParts, clusterBits: number, version: number) {
    this.#metadata = parts.metadata;
    this.#storage = parts.storage;
    this.#refcounts = parts.refcounts;
    this.#regions = parts.regions;
    this.#clusterBits = clusterBits;
    this.#cluster = 2 ** clusterBits;
    this.#version = version;
    this.#entries = this.#cluster / 8;
  }

  /** Looks a guest's offset up. @throws {ImageFailure} */
  find(guest: number, found: Found): void {
    const table = this.#tableOf(this.#l1Entry(guest));
    if (table === 0) {
      found.kind = ClusterKind.UNALLOCATED;
      found.host = 0;
      return;
    }
    const at = table + Math.floor(guest / this.#cluster) % this.#entries * 8;
    this.decode(this.#metadata.u32(at), this.#metadata.u32(at + 4), found);
  }

  /** Reads an entry of an L2 table. @throws {CorruptImage} */
  decode(high: number, low: number, found: Found): void {
    found.copied = (high & COPIED) !== 0;
    if (high & COMPRESSED) return this.#decodeCompressed(high, low, found);
    found.host = entryOffset(high, low);
    if (found.host % this.#cluster !== 0) {
      throw new CorruptImage(`Cluster allocation offset ${found.host} unaligned`);
    }
    if (found.host >= this.#metadata.fields[Field.FILE_END]) {
      throw new CorruptImage(`Cluster allocation offset ${found.host} is outside the image`);
    }
    const zero = this.#version >= 3 && (low & ZERO) !== 0;
    found.kind = zero
      ? ClusterKind.ZERO
      : found.host !== 0
      ? ClusterKind.NORMAL
      : ClusterKind.UNALLOCATED;
  }

  /** Whether all of the clusters that a table would map are not there, from an offset on. */
  hasNoTable(guest: number): boolean {
    return this.#tableOf(this.#l1Entry(guest)) === 0;
  }

  /** The first offset that the next L2 table maps. */
  nextTable(guest: number): number {
    const covered = this.#entries * this.#cluster;
    return (Math.floor(guest / covered) + 1) * covered;
  }

  /** Makes sure that there is an L2 table that can be changed. @throws {ImageFailure} */
  prepare(guest: number): void {
    this.#writableTable(guest);
  }

  /**
   * Changes where a guest's cluster is.
   *
   * @param host offset in the file, or 0
   * @param zero whether it reads as zeros
   */
  set(guest: number, host: number, zero: boolean): void {
    const at = this.#writableEntry(guest);
    const high = Math.floor(host / 2 ** 32) | (host === 0 ? 0 : COPIED);
    this.#metadata.setU64(at, high, host % 2 ** 32 + (zero ? ZERO : 0), SliceKind.MAPPING);
  }

  /**
   * Lets a guest's cluster be a compressed one.
   *
   * @param host offset in the file
   * @param length bytes there
   */
  setCompressed(guest: number, host: number, length: number): void {
    const at = this.#writableEntry(guest);
    const more = Math.floor((host + length - 1) / SECTOR) - Math.floor(host / SECTOR);
    const entry = BigInt(COMPRESSED) << 32n | BigInt(more) << this.#offsetBits | BigInt(host);
    const low = Number(BigInt.asUintN(32, entry));
    this.#metadata.setU64(at, Number(entry >> 32n), low, SliceKind.MAPPING);
  }

  #writableEntry(guest: number): number {
    return this.#writableTable(guest) + Math.floor(guest / this.#cluster) % this.#entries * 8;
  }

  #l1Entry(guest: number): number {
    const index = Math.floor(guest / (this.#entries * this.#cluster));
    const { fields } = this.#metadata;
    if (index >= fields[Field.L1_SIZE]) throw new ImageFailure(Errno.EIO);
    return fields[Field.L1_OFFSET] + index * 8;
  }

  #tableOf(entry: number): number {
    const table = entryOffset(this.#metadata.u32(entry), this.#metadata.u32(entry + 4));
    if (table % this.#cluster === 0) return table;
    throw new CorruptImage(`L2 table offset ${table} unaligned (L1 entry at ${entry})`);
  }

  /** An L2 table that only the active mapping uses. */
  #writableTable(guest: number): number {
    const entry = this.#l1Entry(guest);
    const old = this.#tableOf(entry);
    if (old !== 0 && this.#metadata.u32(entry) & COPIED) return old;
    const bytes = new Uint8Array(this.#cluster);
    if (old !== 0) this.#metadata.copyOut(old, bytes);
    const run = this.#refcounts.allocate(1);
    const table = run.first * this.#cluster;
    try {
      this.#regions.check(table, this.#cluster);
      this.#storage.storeBytes(bytes, table);
    } catch (error) {
      this.#refcounts.release(run);
      throw error;
    }
    this.#metadata.drop(table, this.#cluster);
    const high = Math.floor(table / 2 ** 32) | COPIED;
    this.#metadata.setU64(entry, high, table % 2 ** 32, SliceKind.MAPPING);
    this.#regions.add(table, "active L2 table");
    if (old !== 0) {
      this.#regions.remove(old);
      this.#refcounts.free(old / this.#cluster);
    }
    return table;
  }

  /** How many bits of a compressed cluster's entry are its offset. */
  get #offsetBits(): bigint {
    return BigInt(62 - (this.#clusterBits - 8));
  }

  /** Offset and number of sectors share an entry, by the size of clusters. */
  #decodeCompressed(high: number, low: number, found: Found): void {
    const entry = BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
    const offsetBits = this.#offsetBits;
    const sectors = Number(entry >> offsetBits & (1n << BigInt(this.#clusterBits - 8)) - 1n) + 1;
    const host = Number(entry & (1n << offsetBits) - 1n);
    if (host === 0 || host >= this.#metadata.fields[Field.FILE_END]) {
      throw new CorruptImage(`Compressed cluster offset ${host} is outside the image`);
    }
    found.kind = ClusterKind.COMPRESSED;
    found.copied = false;
    found.host = host;
    found.length = sectors * SECTOR - host % SECTOR;
  }
}
