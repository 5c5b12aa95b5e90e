/**
 * A block node as a guest's disk uses it, on any thread: bounds, permissions, and what `discard` and
 * `detect-zeroes` ask for.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import type { IoUring } from "../../ffi/io_uring.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { isZero } from "../../ffi/memory.ts";
import type { BlockNodeCommon, DriveConfig } from "./config.ts";
import type { FileDescription, Image, ImageDescription, PartDescription } from "./image.ts";
import { openImage } from "./open_image.ts";
import { ALONE, MOST_TRANSFERS, type Transfer, TransferQueue } from "./transfers.ts";
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

/** Whether a disk's requests are made at once, by a ring of the thread that makes them. */
export function needsIoUring({ disk: { image } }: AttachedDisk): boolean {
  return uringFile(image) !== undefined;
}

/** The file that a disk's bytes are in, if requests to it are made at once. */
function uringFile(image: ImageDescription): FileDescription | undefined {
  const file = image.kind === "qcow2" ? image.storage.image : image;
  return "uring" in file && file.uring ? file : undefined;
}

/** Bytes that are looked at at a time for whether they are zeros. */
const LOOK = 64 << 10;

/** A disk on this thread. What its methods return is 0 or a negative errno; vectors are used up. */
export class Disk {
  readonly description: DiskDescription;
  readonly #image: Image;
  /** On the thread that makes requests at once, if one does. */
  readonly #queue: TransferQueue | undefined;
  readonly #words: BigInt64Array<SharedArrayBuffer>;
  /** For `detect-zeroes`; made when it is needed, as most threads only look at the size. */
  #look: { readonly vector: IoVector; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;

  /**
   * Opens a disk on this thread.
   *
   * @param uring the thread's, where it makes requests at once
   */
  constructor(description: DiskDescription, uring?: IoUring) {
    const { image } = description;
    this.description = description;
    this.#image = openImage(image);
    const file = uringFile(image);
    this.#queue = uring && file && new TransferQueue(file, uring);
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

  /** How many transfers it makes at once. */
  get depth(): number {
    return this.#queue ? MOST_TRANSFERS : 1;
  }

  /** Makes transfers, those from `first` to before `end`, of which there are at most `depth`. */
  transfer(transfers: readonly Transfer[], first: number, end: number): void {
    const queue = this.#queue;
    // One alone is made more quickly by a call.
    if (!queue || end - first === 1) {
      for (let i = first; i < end; i++) transfers[i].result = this.#make(transfers[i]);
      return;
    }
    this.#makeAtOnce(queue, transfers, first, end);
    for (let i = first; i < end; i++) {
      const one = transfers[i];
      one.result = one.request === ALONE
        ? this.#make(one)
        : this.#complete(one, queue.resultOf(one));
    }
  }

  /** Makes those that are nothing but calls to the host, and says which. */
  #makeAtOnce(
    queue: TransferQueue,
    transfers: readonly Transfer[],
    first: number,
    end: number,
  ): void {
    const { offset } = this.description;
    const { placement } = this.#image;
    const make = () => {
      for (let i = first; i < end; i++) {
        const one = transfers[i];
        if (!this.#isPlain(one)) continue;
        const at = offset + one.offset;
        const place = placement ? placement.placeOf(at, one.vector.length, one.isWrite) : at;
        if (place !== undefined) one.request = queue.add(one, place);
      }
      queue.make();
    };
    for (let i = first; i < end; i++) transfers[i].request = ALONE;
    // An image that does nothing any more tells each by itself.
    if (placement) placement.whileInPlace(make);
    else make();
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

  /** Whether a transfer is nothing but a call to the host. */
  #isPlain({ isWrite, vector, offset }: Transfer): boolean {
    if (!isWrite) return this.contains(offset, vector.length);
    return this.description.detectZeroes === "off" && this.#refusal(offset, vector.length) === 0;
  }

  #make({ isWrite, vector, offset }: Transfer): number {
    return isWrite ? this.write(vector, offset) : this.read(vector, offset);
  }

  /** Completes what the host has done of a transfer: it may be a part, up to the end of a file. */
  #complete(transfer: Transfer, result: number): number {
    const { isWrite, vector, offset } = transfer;
    if (result < 0 && result !== -Errno.EAGAIN && result !== -Errno.EINTR) return result;
    const end = offset + vector.length;
    const done = Math.max(0, result);
    vector.skip(done);
    if (vector.length > 0) {
      transfer.offset += done;
      return this.#make(transfer);
    }
    if (isWrite) this.#written(end);
    return 0;
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
