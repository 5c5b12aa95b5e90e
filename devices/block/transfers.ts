/**
 * Reads and writes of a disk's that are made at once, by io_uring.
 *
 * @module
 */
import type { IoUring } from "../../ffi/io_uring.ts";
import type { IoVector } from "../../ffi/iovec.ts";
import { lock, unlock } from "../mutex.ts";
import type { FileDescription } from "./image.ts";

/** The most that are made at once: what is begun is waited for before an update. */
export const MOST_TRANSFERS = 32;

/** A read or a write of a disk's. */
export interface Transfer {
  isWrite: boolean;
  /** Used up when it is made. */
  vector: IoVector;
  /** Bytes of the disk before it. */
  offset: number;
  /** 0 or a negative errno, when it has been made. */
  result: number;
  /** For the disk's own use: its number in a batch. */
  request: number;
}

/** What the number of a transfer is that is in no batch. */
export const ALONE = -1;

/** Batches of transfers from and to a file or a block device. */
export class TransferQueue {
  readonly #file: FileDescription;
  readonly #uring: IoUring;
  /** Held while whole blocks are written, beside others who write parts of blocks (O_DIRECT). */
  readonly #mutex: Int32Array<SharedArrayBuffer> | undefined;
  #writes = false;

  /** @param uring this thread's */
  constructor(file: FileDescription, uring: IoUring) {
    this.#file = file;
    this.#uring = uring;
    this.#mutex = file.alignment === 1 ? undefined : new Int32Array(file.mutex);
  }

  /** Adds a transfer to the batch, at a place in the file. @returns its number, or {@linkcode ALONE} */
  add({ isWrite, vector }: Transfer, place: number): number {
    const { fd, alignment } = this.#file;
    if (alignment > 1 && (place % alignment !== 0 || !vector.isAligned(alignment))) return ALONE;
    if (!isWrite) return this.#uring.read(fd, vector, place);
    this.#writes = true;
    return this.#uring.write(fd, vector, place);
  }

  /** Makes the transfers of the batch, and waits for all. */
  make(): void {
    const mutex = this.#writes ? this.#mutex : undefined;
    this.#writes = false;
    if (mutex) lock(mutex, 0);
    try {
      this.#uring.finish();
    } finally {
      if (mutex) unlock(mutex, 0);
    }
  }

  /** Bytes that a transfer of the last batch has moved, or a negative errno. */
  resultOf({ request }: Transfer): number {
    return this.#uring.resultOf(request);
  }
}
