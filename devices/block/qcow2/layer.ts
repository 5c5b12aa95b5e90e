/**
 * An open qcow2 image on one thread: its tables, put together.
 *
 * @module
 */
import type { ImageDescription } from "../image.ts";
import { HeaderField, Incompatible, type Qcow2Format } from "./format.ts";
import { type Found, Mapping } from "./mapping.ts";
import { Field, Metadata } from "./metadata.ts";
import { Refcounts } from "./refcounts.ts";
import { Regions } from "./regions.ts";
import { CorruptImage, type Storage } from "./storage.ts";

/** What a thread needs to know of an image. */
export type Qcow2Description = Extract<ImageDescription, { kind: "qcow2" }>;

/** An L2 table, and the clusters that a compressed one is in: its length has two bits more than its own. */
const MOST_FREED = 1 + 3;

/** Tables of an image. */
export class Qcow2Layer {
  readonly format: Qcow2Format;
  readonly storage: Storage;
  readonly metadata: Metadata;
  readonly regions: Regions;
  readonly refcounts: Refcounts;
  readonly mapping: Mapping;

  /** @param storage where the image is */
  constructor({ format, metadata, snapshotTables, discard }: Qcow2Description, storage: Storage) {
    const { clusterBits, version } = format;
    this.format = format;
    this.storage = storage;
    const markUncounted = () => this.setIncompatible(Incompatible.DIRTY, true);
    const mark = format.lazyRefcounts ? markUncounted : undefined;
    this.metadata = new Metadata(metadata, storage, clusterBits, mark);
    this.regions = new Regions(this.metadata, clusterBits, snapshotTables);
    this.refcounts = new Refcounts(this, format, discard);
    this.mapping = new Mapping(this, clusterBits, version);
  }

  /**
   * Writes all that is newer than the file, each thing when what it rests on is on the disk; but lazy
   * refcounts only in {@linkcode settle}.
   */
  sync(): void {
    if (!this.format.lazyRefcounts) this.metadata.writeRefcounts();
    this.metadata.writeMappings();
    this.storage.barrier();
    this.refcounts.letGo();
  }

  /** Writes everything, so that another program finds the image as it is. */
  settle(): void {
    // What was let go is counted in the second round, on which nothing rests.
    for (let round = 0; round < 2 && this.metadata.isDirty; round++) this.sync();
    if (!this.format.lazyRefcounts) return;
    this.metadata.writeRefcounts();
    if (this.metadata.fields[Field.UNCOUNTED] === 0) return;
    this.storage.barrier();
    this.setIncompatible(Incompatible.DIRTY, false);
    this.metadata.fields[Field.UNCOUNTED] = 0;
  }

  /**
   * Makes sure that there is room to wait for what a change of a mapping lets go of: an L2 table, and a
   * cluster. It comes before the change, since what fails must not have happened by half.
   */
  makeRoom(): void {
    if (!this.refcounts.hasRoom(MOST_FREED)) this.sync();
  }

  /** What a cluster had is used once less; there is room ({@linkcode makeRoom}). */
  free({ host, length, kind }: Readonly<Found>): void {
    const cluster = 2 ** this.format.clusterBits;
    const first = Math.floor(host / cluster);
    const last = kind === 3 ? Math.floor((host + length - 1) / cluster) : first;
    for (let at = first; at <= last; at++) this.refcounts.free(at);
  }

  /** Nothing is done to an image any more that contradicts itself, by this VMM or others. */
  fail(error: CorruptImage): void {
    if (this.metadata.fields[Field.FAILED] !== 0) return;
    this.metadata.fail(error.message);
    console.error(
      `qcow2: Marking image as corrupt: ${error.message}; further corruption events will be suppressed`,
    );
    try {
      this.setIncompatible(Incompatible.CORRUPT, true);
    } catch {
      // It is not used any more in any case.
    }
  }

  /** Changes a feature bit in the header; version 2 has none. */
  setIncompatible(bit: number, on: boolean): void {
    if (this.format.version < 3) return;
    const at = HeaderField.INCOMPATIBLE + 7;
    const byte = this.storage.loadBytes(at, 1)[0];
    this.storage.storeBytes(Uint8Array.of(on ? byte | bit : byte & ~bit), at);
    this.storage.barrier();
  }

  /** A writer does not know these features: what rests on them does not hold any more. */
  clearAutoclear(): void {
    if (this.format.version < 3) return;
    const bits = this.storage.loadBytes(HeaderField.AUTOCLEAR, 8);
    if (bits.every((byte) => byte === 0)) return;
    this.storage.storeBytes(new Uint8Array(8), HeaderField.AUTOCLEAR);
    this.storage.barrier();
  }
}

/** Whether an error is one that an image contradicts itself in. */
export function isCorruption(error: unknown): error is CorruptImage {
  return error instanceof CorruptImage;
}
