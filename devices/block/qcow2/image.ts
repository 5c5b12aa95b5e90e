/**
 * A qcow2 image's data: guests' requests, by pointer where clusters have a place of their own in the
 * file, in runs of those that lie one after another.
 *
 * @module
 */
import { Errno } from "../../../ffi/errno.ts";
import { IoVector } from "../../../ffi/iovec.ts";
import { mapAnonymous, type MappedRegion } from "../../../ffi/memory.ts";
import { lock, unlock } from "../../mutex.ts";
import { fillZeros, type Image, type Placement, zeroVector } from "../image.ts";
import { decompress } from "./compression.ts";
import { clusterSize } from "./format.ts";
import { isCorruption, type Qcow2Description, Qcow2Layer } from "./layer.ts";
import { ClusterKind, type Found } from "./mapping.ts";
import { Field } from "./metadata.ts";
import type { ClusterRun } from "./refcounts.ts";
import { ImageFailure, type Storage } from "./storage.ts";

/** What shows where an image has nothing. */
export interface Backing {
  readonly image: Image;
  /** Bytes of it before it begins. */
  readonly offset: number;
  /** Bytes now. */
  size(): number;
}

/** The most clusters that are allocated at once. */
const MAX_RUN = 1024;

/** An image on one thread. */
export class Qcow2Image implements Image, Placement {
  readonly layer: Qcow2Layer;
  readonly placement: Placement = this;
  readonly #backing: Backing | undefined;
  readonly #mutex: Int32Array<SharedArrayBuffer>;
  readonly #cluster: number;
  readonly #piece = new IoVector();
  readonly #own = new IoVector(1);
  readonly #found: Found = { kind: ClusterKind.UNALLOCATED, host: 0, copied: false, length: 0 };
  readonly #next: Found = { ...this.#found };
  #scratch: MappedRegion | undefined;

  /**
   * @param storage where it is
   * @param backing what shows where it has nothing
   */
  constructor(description: Qcow2Description, storage: Storage, backing: Backing | undefined) {
    this.layer = new Qcow2Layer(description, storage);
    this.#backing = backing;
    this.#mutex = new Int32Array(description.mutex);
    this.#cluster = clusterSize(description.format);
  }

  read(vector: IoVector, offset: number): number {
    return this.run(() => this.#read(vector, offset));
  }

  write(vector: IoVector, offset: number): number {
    return this.run(() => {
      for (let at = offset; vector.length > 0;) at += this.#writeRun(vector, at);
    });
  }

  flush(): number {
    return this.run(() => this.layer.sync());
  }

  discard(offset: number, length: number): number {
    const { version } = this.layer.format;
    return this.run(() => {
      // A hint: parts of clusters at the ends are kept, and what cannot be said to be zeros.
      if (version < 3 && this.#backing) return;
      const end = this.#down(offset + length);
      this.#eachCluster(this.#up(offset), end, (guest, found) => {
        if (found.kind === ClusterKind.ZERO && found.host === 0) return;
        if (found.kind === ClusterKind.UNALLOCATED && !this.#backing) return;
        this.#replace(guest, found, 0, version >= 3);
      });
    });
  }

  zero(offset: number, length: number, unmap: boolean): number {
    return this.run(() => {
      const end = offset + length;
      const [first, last] = [Math.min(this.#up(offset), end), this.#down(end)];
      if (this.layer.format.version < 3 || last < first) return this.#writeZeros(offset, length);
      this.#writeZeros(offset, first - offset);
      this.#eachCluster(first, last, (guest, found) => this.#zeroCluster(guest, found, unmap));
      this.#writeZeros(last, end - last);
    });
  }

  /**
   * Does something to the image while nobody else does.
   *
   * @returns 0, or a negative errno
   */
  run(action: () => void): number {
    lock(this.#mutex, 0);
    try {
      if (this.layer.metadata.fields[Field.FAILED] !== 0) return -Errno.EIO;
      action();
      return 0;
    } catch (error) {
      if (isCorruption(error)) this.layer.fail(error);
      if (error instanceof ImageFailure) return -error.errno;
      throw error;
    } finally {
      unlock(this.#mutex, 0);
    }
  }

  whileInPlace(action: () => void): number {
    return this.run(action);
  }

  placeOf(offset: number, length: number, isWrite: boolean): number | undefined {
    const { mapping, regions, storage } = this.layer;
    try {
      mapping.find(offset, this.#found);
      const { kind, host, copied } = this.#found;
      if (kind !== ClusterKind.NORMAL || (isWrite && !copied)) return undefined;
      if (this.#extent(offset, length) < length) return undefined;
      const place = host + offset % this.#cluster;
      if (isWrite) regions.check(place, length);
      if (storage.limit !== undefined && place + length > storage.limit) return undefined;
      return storage.base + place;
    } catch (error) {
      // Who makes it by itself finds what is wrong with it.
      if (error instanceof ImageFailure) return undefined;
      throw error;
    }
  }

  /** Looks a guest's offset up, and how many bytes from there on are alike and one after another. */
  extent(
    guest: number,
    length: number,
  ): { readonly found: Readonly<Found>; readonly length: number } {
    this.layer.mapping.find(guest, this.#found);
    return { found: this.#found, length: this.#extent(guest, length) };
  }

  /** Lets go of all clusters; what is behind the image shows. @throws {ImageFailure} */
  makeEmpty(): void {
    const size = this.#up(this.layer.metadata.fields[Field.SIZE]);
    this.#eachCluster(0, size, (guest, found) => {
      if (found.kind !== ClusterKind.UNALLOCATED) this.#replace(guest, found, 0, false);
    });
    this.layer.settle();
  }

  /**
   * Gives every cluster of a disk in which nothing is yet a place in the file, which reads as zeros where it
   * has not been written.
   *
   * @returns bytes of the file that has all of them
   * @throws {ImageFailure} if there is no room
   */
  allocateAll(): number {
    const { mapping, metadata: { fields }, refcounts, regions } = this.layer;
    const size = this.#up(fields[Field.SIZE]);
    for (let guest = 0; guest < size;) {
      mapping.prepare(guest);
      const rest = Math.min(size - guest, mapping.nextTable(guest) - guest) / this.#cluster;
      const run = refcounts.allocate(Math.min(MAX_RUN, rest));
      const host = run.first * this.#cluster;
      regions.check(host, run.count * this.#cluster);
      for (let i = 0; i < run.count; i++) {
        mapping.set(guest + i * this.#cluster, host + i * this.#cluster, false);
      }
      guest += run.count * this.#cluster;
    }
    this.layer.settle();
    return fields[Field.FILE_END];
  }

  #down(offset: number): number {
    return offset - offset % this.#cluster;
  }

  #up(offset: number): number {
    return this.#down(offset + this.#cluster - 1);
  }

  #read(vector: IoVector, offset: number): void {
    for (let at = offset; vector.length > 0;) {
      this.layer.mapping.find(at, this.#found);
      const length = this.#extent(at, vector.length);
      this.#readExtent(this.#part(vector, length), at, length);
      vector.skip(this.#usedUp(vector, length));
      at += length;
    }
  }

  /** The first bytes of a vector: itself, if that is all of it. */
  #part(vector: IoVector, length: number): IoVector {
    if (length === vector.length) return vector;
    this.#piece.clear();
    this.#piece.append(vector, length);
    return this.#piece;
  }

  /** A vector that was its own part has been used up. */
  #usedUp(vector: IoVector, length: number): number {
    return vector.length === 0 ? 0 : length;
  }

  /** Bytes of what `#found` is, from an offset on, that go together. */
  #extent(guest: number, most: number): number {
    const { kind, host, copied } = this.#found;
    const start = this.#down(guest);
    let end = start + this.#cluster;
    while (end < guest + most && kind !== ClusterKind.COMPRESSED) {
      if (kind === ClusterKind.UNALLOCATED && this.layer.mapping.hasNoTable(end)) {
        end = this.layer.mapping.nextTable(end);
        continue;
      }
      this.layer.mapping.find(end, this.#next);
      const { kind: nextKind, host: nextHost, copied: nextCopied } = this.#next;
      if (nextKind !== kind) break;
      if (
        kind === ClusterKind.NORMAL && (nextHost !== host + end - start || nextCopied !== copied)
      ) {
        break;
      }
      end += this.#cluster;
    }
    return Math.min(end - guest, most);
  }

  #readExtent(part: IoVector, guest: number, length: number): void {
    const { kind, host } = this.#found;
    switch (kind) {
      case ClusterKind.NORMAL:
        return this.layer.storage.read(part, host + guest % this.#cluster);
      case ClusterKind.COMPRESSED:
        return this.#readCompressed(part, guest % this.#cluster, length);
      case ClusterKind.ZERO:
        return checked(fillZeros(part));
      default:
        return this.#readBacking(part, guest, length);
    }
  }

  #readBacking(part: IoVector, guest: number, length: number): void {
    const backing = this.#backing;
    const there = backing ? Math.max(0, Math.min(length, backing.size() - guest)) : 0;
    if (there === length) return checked(backing!.image.read(part, backing!.offset + guest));
    if (there > 0) {
      const first = new IoVector();
      first.append(part, there);
      checked(backing!.image.read(first, backing!.offset + guest));
      part.skip(there);
    }
    checked(fillZeros(part));
  }

  #readCompressed(part: IoVector, position: number, length: number): void {
    const { host, length: size } = this.#found;
    const { compression } = this.layer.format;
    const data = this.layer.storage.loadBytes(host, size);
    const bytes = decompress(data, this.#cluster, compression);
    if (!bytes) throw new ImageFailure(Errno.EIO);
    const n = part.copyIn(bytes.subarray(position, position + length));
    if (n < 0) throw new ImageFailure(-n);
    part.skip(n);
  }

  /** Writes what can be written at once. @returns bytes */
  #writeRun(vector: IoVector, at: number): number {
    const { mapping, regions, storage } = this.layer;
    mapping.find(at, this.#found);
    const { kind, copied, host } = this.#found;
    if (kind !== ClusterKind.NORMAL || !copied) return this.#writeNew(vector, at);
    const length = this.#extent(at, vector.length);
    const to = host + at % this.#cluster;
    regions.check(to, length);
    storage.write(this.#part(vector, length), to);
    vector.skip(this.#usedUp(vector, length));
    return length;
  }

  /** Writes to clusters that get a place now. @returns bytes */
  #writeNew(vector: IoVector, at: number): number {
    const { mapping, refcounts, regions, storage } = this.layer;
    const start = this.#down(at);
    this.layer.makeRoom();
    mapping.prepare(start);
    const run = refcounts.allocate(this.#countNew(start, at + vector.length));
    const host = run.first * this.#cluster;
    const end = start + run.count * this.#cluster;
    const length = Math.min(vector.length, end - at);
    let linked = 0;
    try {
      regions.check(host, end - start);
      this.#copyOld(start, at - start, host, run);
      storage.write(this.#part(vector, length), host + at - start);
      this.#copyOld(at + length, end - at - length, host + at + length - start, run);
      for (; linked < run.count; linked++) {
        const guest = start + linked * this.#cluster;
        mapping.find(guest, this.#found);
        this.#replace(guest, this.#found, host + linked * this.#cluster, false);
      }
    } catch (error) {
      refcounts.release(run, linked);
      throw error;
    }
    vector.skip(this.#usedUp(vector, length));
    return length;
  }

  /** How many clusters from one on have to get a place, before an offset. */
  #countNew(start: number, end: number): number {
    let count = 1;
    const most = Math.min(MAX_RUN, Math.ceil((end - start) / this.#cluster));
    for (; count < most; count++) {
      this.layer.mapping.find(start + count * this.#cluster, this.#next);
      if (this.#next.kind === ClusterKind.NORMAL && this.#next.copied) break;
    }
    return count;
  }

  /** Copies what a part of a cluster has been so far to its new place. */
  #copyOld(guest: number, length: number, host: number, { fresh }: ClusterRun): void {
    if (length === 0) return;
    this.layer.mapping.find(guest, this.#found);
    const { kind } = this.#found;
    const isZero = kind === ClusterKind.ZERO ||
      (kind === ClusterKind.UNALLOCATED && !this.#backing);
    if (fresh && isZero) return;
    const { address } = this.#scratch ??= mapAnonymous(this.#cluster);
    this.#own.clear();
    this.#own.push(address, length);
    this.#readExtent(this.#own, guest, length);
    this.layer.storage.store(address, length, host);
  }

  /** Puts a cluster elsewhere, and lets go of what it had. */
  #replace(guest: number, old: Readonly<Found>, host: number, zero: boolean): void {
    const had = { ...old };
    this.layer.makeRoom();
    this.layer.mapping.set(guest, host, zero);
    if (had.kind !== ClusterKind.UNALLOCATED && had.host !== 0) this.layer.free(had);
  }

  #zeroCluster(guest: number, found: Readonly<Found>, unmap: boolean): void {
    const { kind, copied, host } = found;
    if (kind === ClusterKind.ZERO || (kind === ClusterKind.UNALLOCATED && !this.#backing)) return;
    if (kind === ClusterKind.NORMAL && copied && !unmap) {
      this.layer.makeRoom();
      return this.layer.mapping.set(guest, host, true);
    }
    this.#replace(guest, found, 0, true);
  }

  /** Calls for each cluster of a range that has something, or shows something. */
  #eachCluster(
    start: number,
    end: number,
    action: (guest: number, found: Readonly<Found>) => void,
  ): void {
    for (let guest = start; guest < end;) {
      if (!this.#backing && this.layer.mapping.hasNoTable(guest)) {
        guest = this.layer.mapping.nextTable(guest);
        continue;
      }
      this.layer.mapping.find(guest, this.#found);
      action(guest, this.#found);
      guest += this.#cluster;
    }
  }

  /** Writes zeros where there are none yet. */
  #writeZeros(offset: number, length: number): void {
    for (let at = offset; at < offset + length;) {
      this.layer.mapping.find(at, this.#found);
      const { kind } = this.#found;
      const size = Math.min(offset + length, this.#down(at) + this.#cluster) - at;
      const isZero = kind === ClusterKind.ZERO ||
        (kind === ClusterKind.UNALLOCATED && !this.#backing);
      if (!isZero) {
        for (const vector = zeroVector(size); vector.length > 0;) {
          this.#writeRun(vector, at + size - vector.length);
        }
      }
      at += size;
    }
  }
}

function checked(result: number): void {
  if (result < 0) throw new ImageFailure(-result);
}
