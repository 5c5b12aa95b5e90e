/**
 * A block node as a guest's disk uses it, on any thread: bounds, permissions, and what `discard` and
 * `detect-zeroes` ask for.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { isZero } from "../../ffi/memory.ts";
import type { BlockNodeCommon, DriveConfig } from "./config.ts";
import type { Image, PartDescription } from "./image.ts";
import { openImage } from "./open_image.ts";
import { partSize, SharedWord } from "./words.ts";

/** A node as plain data, from which any thread opens it. */
export interface DiskDescription
  extends
    PartDescription,
    Pick<BlockNodeCommon, "nodeName" | "readOnly" | "discard" | "detectZeroes"> {}

/** A disk that a device has, as plain data. */
export interface AttachedDisk {
  readonly disk: DiskDescription;
  /** What the device counts, for {@linkcode DiskStatistics}. */
  readonly statistics: SharedArrayBuffer;
  /** Its limits, which are those of a `ThrottleGroup`. */
  readonly throttle: SharedArrayBuffer;
  /** What `-drive` says of it, if it is one. */
  readonly drive?: DriveConfig;
}

/** Bytes of the disk now: an image can be resized. */
export function diskSize(description: DiskDescription): number {
  return partSize(description);
}

/** Bytes that are looked at at a time for whether they are zeros. */
const LOOK = 64 << 10;

/** A disk on this thread. What its methods return is 0 or a negative errno; vectors are used up. */
export class Disk {
  readonly description: DiskDescription;
  readonly #image: Image;
  readonly #words: BigInt64Array<SharedArrayBuffer>;
  /** For `detect-zeroes`; made when it is needed, as most threads only look at the size. */
  #look: { readonly vector: IoVector; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;

  /** Opens a disk on this thread. */
  constructor(description: DiskDescription) {
    this.description = description;
    this.#image = openImage(description.image);
    this.#words = new BigInt64Array(description.shared);
  }

  /** Bytes now. */
  get sizeBytes(): number {
    return diskSize(this.description);
  }

  /** Whether it cannot be written. */
  get readOnly(): boolean {
    return this.description.readOnly;
  }

  /** Whether a range, of any numbers, is within the disk. */
  contains(offset: number, length: number): boolean {
    return offset >= 0 && length >= 0 && offset + length <= this.sizeBytes;
  }

  /** Fills a vector from `offset` on. */
  read(vector: IoVector, offset: number): number {
    if (!this.contains(offset, vector.length)) return -Errno.EIO;
    return this.#image.read(vector, this.description.offset + offset);
  }

  /** Writes a vector at `offset`. */
  write(vector: IoVector, offset: number): number {
    const { length } = vector;
    const refusal = this.#refusal(offset, length);
    if (refusal < 0) return refusal;
    if (this.description.detectZeroes !== "off" && this.#isZero(vector)) {
      return this.writeZeroes(offset, length, this.description.detectZeroes === "unmap");
    }
    const error = this.#image.write(vector, this.description.offset + offset);
    if (error === 0) this.#written(offset + length);
    return error;
  }

  /** What has been written is on the host's disk then. */
  flush(): number {
    // Who has no flushes below writes its tables to the host's page cache all the same.
    const { noFlush, image } = this.description;
    return noFlush && image.kind !== "qcow2" ? 0 : this.#image.flush();
  }

  /** Gives a range back to the host, if that is wanted. */
  discard(offset: number, length: number): number {
    const refusal = this.#refusal(offset, length);
    if (refusal < 0) return refusal;
    if (this.description.discard === "ignore" || length === 0) return 0;
    const error = this.#image.discard(this.description.offset + offset, length);
    this.#count(error === 0 ? SharedWord.DISCARDS : SharedWord.FAILED_DISCARDS, 1);
    if (error === 0) this.#count(SharedWord.DISCARDED_BYTES, length);
    return error;
  }

  /**
   * Makes a range zeros.
   *
   * @param mayUnmap whether the host may take back the space, if that is wanted
   */
  writeZeroes(offset: number, length: number, mayUnmap: boolean): number {
    const refusal = this.#refusal(offset, length);
    if (refusal < 0 || length === 0) return refusal;
    const unmap = mayUnmap && this.description.discard === "unmap";
    const error = this.#image.zero(this.description.offset + offset, length, unmap);
    if (error === 0) this.#written(offset + length);
    return error;
  }

  #refusal(offset: number, length: number): number {
    if (this.readOnly) return -Errno.EROFS;
    return this.contains(offset, length) ? 0 : -Errno.EIO;
  }

  #isZero(data: IoVector): boolean {
    const { vector, bytes } = this.#look ??= {
      vector: new IoVector(),
      bytes: new Uint8Array(LOOK),
    };
    vector.clear();
    if (!vector.append(data)) return false;
    while (vector.length > 0) {
      const n = vector.copyOut(bytes);
      if (n < 0 || !isZero(bytes.subarray(0, n))) return false;
      vector.skip(n);
    }
    return true;
  }

  #written(end: number): void {
    const next = BigInt(end);
    let highest = Atomics.load(this.#words, SharedWord.HIGHEST_WRITE);
    while (highest < next) {
      const found = Atomics.compareExchange(this.#words, SharedWord.HIGHEST_WRITE, highest, next);
      if (found === highest) return;
      highest = found;
    }
  }

  #count(word: number, n: number): void {
    Atomics.add(this.#words, word, BigInt(n));
  }
}
