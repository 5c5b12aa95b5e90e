/**
 * Writing compressed clusters, one behind the other.
 *
 * @module
 */
import { compress } from "./compression.ts";
import { clusterSize } from "./format.ts";
import type { Qcow2Layer } from "./layer.ts";
import { ClusterKind, type Found } from "./mapping.ts";

const SECTOR = 512;

/** Writes compressed clusters to an image that nobody else writes to. */
export class CompressedWriter {
  readonly #layer: Qcow2Layer;
  readonly #cluster: number;
  readonly #found: Found = { kind: ClusterKind.UNALLOCATED, host: 0, copied: false, length: 0 };
  /** Where the last one ends. */
  #end = 0;

  constructor(layer: Qcow2Layer) {
    this.#layer = layer;
    this.#cluster = clusterSize(layer.format);
  }

  /**
   * Writes a cluster, while nobody else uses the image.
   *
   * @param guest its offset in the disk
   * @param bytes what it holds; after them it has zeros
   * @returns false if it would not be smaller: nothing is done then
   * @throws {ImageFailure}
   */
  write(guest: number, bytes: Uint8Array<ArrayBuffer>): boolean {
    const { format, mapping, refcounts, regions, storage } = this.#layer;
    const data = compress(this.#whole(bytes), format.compression);
    if (data.length >= this.#cluster) return false;
    this.#layer.makeRoom();
    mapping.prepare(guest);
    const host = this.#place(data.length);
    const first = Math.floor(host / this.#cluster);
    try {
      regions.check(host, data.length);
      // A file ends with a whole sector, as its reader counts them.
      const padded = new Uint8Array(data.length + SECTOR - 1 - (host + data.length - 1) % SECTOR);
      padded.set(data);
      storage.storeBytes(padded, host);
    } catch (error) {
      const last = Math.floor((host + data.length - 1) / this.#cluster);
      for (let one = first; one <= last; one++) refcounts.change(one, -1);
      throw error;
    }
    this.#end = host + data.length;
    mapping.find(guest, this.#found);
    const had = { ...this.#found };
    mapping.setCompressed(guest, host, data.length);
    if (had.kind !== ClusterKind.UNALLOCATED && had.host !== 0) this.#layer.free(had);
    return true;
  }

  #whole(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    if (bytes.length === this.#cluster) return bytes;
    const whole = new Uint8Array(this.#cluster);
    whole.set(bytes);
    return whole;
  }

  /** Finds so many bytes, behind the last ones if need be over the end of their cluster, and counts them. */
  #place(length: number): number {
    const { refcounts, format: { refcountOrder } } = this.#layer;
    const rest = (this.#cluster - this.#end % this.#cluster) % this.#cluster;
    const last = Math.floor(this.#end / this.#cluster);
    const most = 2 ** (1 << refcountOrder) - 1;
    const isShared = rest > 0 && refcounts.get(last) < most;
    if (isShared && rest >= length) {
      refcounts.change(last, 1);
      return this.#end;
    }
    const { first } = refcounts.allocate(1);
    if (!isShared || first !== last + 1) return first * this.#cluster;
    refcounts.change(last, 1);
    return this.#end;
  }
}
