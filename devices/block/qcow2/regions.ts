/**
 * Where a qcow2 image's tables are, so that nothing else is ever written there: an image that says that
 * a guest's data are in a table contradicts itself.
 *
 * @module
 */
import type { Range } from "./format.ts";
import { Field, type Metadata } from "./metadata.ts";
import { CorruptImage } from "./storage.ts";

/** An offset in an entry of 64 bits: without the flags in its upper byte and its lowest 9 bits. */
export function entryOffset(high: number, low: number): number {
  return (high & 0x00ff_ffff) * 2 ** 32 + (low & 0xffff_fe00) + (low & 0x8000_0000 ? 2 ** 32 : 0);
}

/** The tables of an image, as one thread knows them. */
export class Regions {
  readonly #metadata: Metadata;
  readonly #cluster: number;
  readonly #constant: readonly Range[];
  /** L2 tables and refcount blocks, by the number of their cluster. */
  readonly #tables = new Map<number, string>();
  #generation = -1;

  /** @param snapshots the snapshots' own tables */
  constructor(metadata: Metadata, clusterBits: number, snapshots: readonly Range[]) {
    this.#metadata = metadata;
    this.#cluster = 2 ** clusterBits;
    this.#constant = [{ what: "qcow2_header", offset: 0, length: this.#cluster }, ...snapshots];
  }

  /** Tables that stay where they are. */
  get ranges(): readonly Range[] {
    return this.#constant;
  }

  /** @throws {CorruptImage} in QEMU's words if data would be written over a table */
  check(offset: number, length: number): void {
    const overlap = this.#find(offset, length);
    if (overlap === undefined) return;
    throw new CorruptImage(
      `Preventing invalid write on metadata (overlaps with ${overlap}) at offset ${offset}`,
    );
  }

  /** A table has come. */
  add(offset: number, what: "active L2 table" | "refcount block"): void {
    this.#load();
    this.#tables.set(offset / this.#cluster, what);
    this.#generation = ++this.#metadata.fields[Field.GENERATION];
  }

  /** A table has gone. */
  remove(offset: number): void {
    this.#load();
    this.#tables.delete(offset / this.#cluster);
    this.#generation = ++this.#metadata.fields[Field.GENERATION];
  }

  #find(offset: number, length: number): string | undefined {
    this.#load();
    const { fields } = this.#metadata;
    const overlaps = (start: number, size: number) =>
      start < offset + length && offset < start + size;
    for (const range of this.#constant) {
      if (overlaps(range.offset, range.length)) return range.what;
    }
    if (overlaps(fields[Field.L1_OFFSET], fields[Field.L1_SIZE] * 8)) return "active L1 table";
    if (overlaps(fields[Field.REFTABLE_OFFSET], fields[Field.REFTABLE_CLUSTERS] * this.#cluster)) {
      return "refcount table";
    }
    const end = Math.ceil((offset + length) / this.#cluster);
    for (let cluster = Math.floor(offset / this.#cluster); cluster < end; cluster++) {
      const what = this.#tables.get(cluster);
      if (what !== undefined) return what;
    }
  }

  /** Another thread may have moved tables, and another VMM. */
  #load(): void {
    const { fields } = this.#metadata;
    if (this.#generation === fields[Field.GENERATION]) return;
    this.#tables.clear();
    this.#loadTable(fields[Field.L1_OFFSET], fields[Field.L1_SIZE], "active L2 table");
    const blocks = fields[Field.REFTABLE_CLUSTERS] * this.#cluster / 8;
    this.#loadTable(fields[Field.REFTABLE_OFFSET], blocks, "refcount block");
    this.#generation = fields[Field.GENERATION];
  }

  #loadTable(offset: number, entries: number, what: string): void {
    for (let at = offset; at < offset + entries * 8; at += 8) {
      const table = entryOffset(this.#metadata.u32(at), this.#metadata.u32(at + 4));
      if (table !== 0) this.#tables.set(Math.floor(table / this.#cluster), what);
    }
  }
}
