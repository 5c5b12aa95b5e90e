/**
 * The file that a qcow2 image is in.
 *
 * @module
 */
import { Errno } from "../../../ffi/errno.ts";
import { IoVector } from "../../../ffi/iovec.ts";
import { addressOf } from "../../../ffi/memory.ts";
import type { Image } from "../image.ts";

/** A request cannot be done; the errno is what the guest's device is told. */
export class ImageFailure extends Error {
  override readonly name: string = "ImageFailure";

  /** @param errno a positive errno */
  constructor(readonly errno: number, message = `errno ${errno}`) {
    super(message);
  }
}

/** What an image contradicts itself in. */
export class CorruptImage extends ImageFailure {
  override readonly name = "CorruptImage";

  /** @param message what, and where */
  constructor(message: string) {
    super(Errno.EIO, message);
  }
}

/** A range of an image's bytes in a file, or in a device of the host's. */
export class Storage {
  readonly #image: Image;
  /** Bytes of the file before it begins. */
  readonly base: number;
  readonly #noFlush: boolean;
  /** Bytes that it cannot grow beyond; none for a file. */
  readonly limit: number | undefined;
  readonly #piece = new IoVector(1);

  /**
   * @param base bytes of `image` before it begins
   * @param limit bytes that it cannot grow beyond
   * @param noFlush whether flushes are left out
   */
  constructor(image: Image, base: number, limit: number | undefined, noFlush: boolean) {
    this.#image = image;
    this.base = base;
    this.limit = limit;
    this.#noFlush = noFlush;
  }

  /** Fills a vector; after the end of a file come zeros. @throws {ImageFailure} */
  read(vector: IoVector, offset: number): void {
    if (this.limit !== undefined && offset + vector.length > this.limit) {
      throw new ImageFailure(Errno.EIO);
    }
    check(this.#image.read(vector, this.base + offset));
  }

  /** Writes all of a vector. @throws {ImageFailure} */
  write(vector: IoVector, offset: number): void {
    if (this.limit !== undefined && offset + vector.length > this.limit) {
      throw new ImageFailure(Errno.ENOSPC);
    }
    check(this.#image.write(vector, this.base + offset));
  }

  /** Reads to mapped memory. @throws {ImageFailure} */
  load(address: number, length: number, offset: number): void {
    this.read(this.#vector(address, length), offset);
  }

  /** Writes from mapped memory. @throws {ImageFailure} */
  store(address: number, length: number, offset: number): void {
    this.write(this.#vector(address, length), offset);
  }

  /** Reads bytes. @throws {ImageFailure} */
  loadBytes(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    if (length > 0) this.load(Number(addressOf(bytes)), length, offset);
    return bytes;
  }

  /** Writes bytes. @throws {ImageFailure} */
  storeBytes(bytes: Uint8Array<ArrayBuffer>, offset: number): void {
    if (bytes.length > 0) this.store(Number(addressOf(bytes)), bytes.length, offset);
  }

  /** What was written so far is on the disk before anything that is written from now on. */
  barrier(): void {
    if (!this.#noFlush) check(this.#image.flush());
  }

  /** Makes a range zeros. @throws {ImageFailure} */
  zero(offset: number, length: number): void {
    if (this.limit !== undefined && offset + length > this.limit) {
      throw new ImageFailure(Errno.ENOSPC);
    }
    check(this.#image.zero(this.base + offset, length, false));
  }

  /** Gives a range back; a hint. */
  discard(offset: number, length: number): void {
    this.#image.discard(this.base + offset, length);
  }

  #vector(address: number, length: number): IoVector {
    this.#piece.clear();
    this.#piece.push(address, length);
    return this.#piece;
  }
}

function check(result: number): void {
  if (result < 0) throw new ImageFailure(-result);
}
