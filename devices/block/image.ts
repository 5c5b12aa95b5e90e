/**
 * Images: where a node's bytes are in the end, as any thread reads and writes them.
 *
 * All calls are synchronous, take data by pointer and report as the kernel does: a negative errno for
 * what fails. They do all of a request or fail.
 *
 * @module
 */
import { discardBlocks, flushData, punchHole, zeroBlocks, zeroRange } from "../../ffi/disk.ts";
import { Errno } from "../../ffi/errno.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { mapAnonymous, type MappedRegion, viewMemory } from "../../ffi/memory.ts";
import { lock, unlock } from "../mutex.ts";
import type { Qcow2Format, Range } from "./qcow2/format.ts";

/** A part of an image as plain data. */
export interface PartDescription {
  readonly image: ImageDescription;
  /** Bytes of the image before it begins. */
  readonly offset: number;
  /** Bytes, if it is not all the rest of the image. */
  readonly size?: number;
  /** Its words: `SharedWord`. */
  readonly shared: SharedArrayBuffer;
  /** Whether flushes are left out. */
  readonly noFlush: boolean;
}

/** A file, or a block device, as plain data. */
export interface FileDescription {
  readonly kind: "file" | "device";
  readonly fd: number;
  /** What offsets, lengths and addresses must be multiples of (O_DIRECT); 1 for anything. */
  readonly alignment: number;
  /** A mutex at index 0, for writes that are no multiples. */
  readonly mutex: SharedArrayBuffer;
  /** Whether requests are made at once, by io_uring. */
  readonly uring: boolean;
}

/** An image as plain data. */
export type ImageDescription =
  | { readonly kind: "null"; readonly readZeroes: boolean }
  | FileDescription
  | {
    readonly kind: "qcow2";
    readonly format: Qcow2Format;
    readonly storage: PartDescription;
    /** Bytes that the storage cannot grow beyond, if it cannot grow. */
    readonly limit?: number;
    /** What shows where it has nothing. */
    readonly backing?: PartDescription;
    /** The address of `METADATA_SIZE` bytes that all threads use. */
    readonly metadata: number;
    /** Tables that belong to snapshots. */
    readonly snapshotTables: readonly Range[];
    /** Whether the storage gets clusters back that nobody uses. */
    readonly discard: boolean;
    /** A mutex at index 0, for everything. */
    readonly mutex: SharedArrayBuffer;
  };

/** An image on this thread. Vectors are used up. */
export interface Image {
  /** Of one whose bytes are elsewhere in its file. */
  readonly placement?: Placement;
  /** Reads as many bytes as the vector has room for; after the end of the image come zeros. */
  read(vector: IoVector, offset: number): number;
  /** Writes all of a vector. */
  write(vector: IoVector, offset: number): number;
  /** What has been written is on the disk then. */
  flush(): number;
  /** A range is not in use any more; what it reads as is anybody's guess. */
  discard(offset: number, length: number): number;
  /** Makes a range zeros; `unmap`: the host may take back the space. */
  zero(offset: number, length: number, unmap: boolean): number;
}

/** Where an image's bytes lie in its file, for whoever reads and writes them there without it. */
export interface Placement {
  /**
   * Does something while all bytes stay where they are.
   *
   * @returns 0, or a negative errno if the image does nothing any more
   */
  whileInPlace(action: () => void): number;
  /**
   * Says where a range is, within {@linkcode whileInPlace}.
   *
   * @returns bytes of the file before it; undefined if it is not there in one piece, or can only be written
   *   elsewhere
   */
  placeOf(offset: number, length: number, isWrite: boolean): number | undefined;
}

/** Bytes that are moved at a time where they cannot be moved by pointer. */
const CHUNK = 1 << 20;
const NOT_SUPPORTED = -Errno.EOPNOTSUPP;

/** Opens an image that is made of no other on this thread. */
export function openBase(description: Exclude<ImageDescription, { kind: "qcow2" }>): Image {
  if (description.kind === "null") return new NullImage(description.readZeroes);
  const image = new FileImage(description.fd, description.kind === "device");
  const { alignment, mutex } = description;
  return alignment === 1 ? image : new DirectImage(image, alignment, new Int32Array(mutex));
}

let zeros: MappedRegion | undefined;

/** Zeros at a page's start, which nobody writes to. */
function zeroChunk(): MappedRegion {
  return zeros ??= mapAnonymous(CHUNK);
}

/** Fills a vector with zeros, which uses it up. */
export function fillZeros(vector: IoVector): number {
  const chunk = viewMemory(zeroChunk().address, CHUNK);
  while (vector.length > 0) {
    const n = vector.copyIn(chunk.subarray(0, Math.min(CHUNK, vector.length)));
    if (n < 0) return n;
    vector.skip(n);
  }
  return 0;
}

/** Zeros to write: no more than `CHUNK` at a time are in memory. */
export function zeroVector(length: number): IoVector {
  const pieces = Math.ceil(length / CHUNK);
  const vector = new IoVector(pieces);
  for (let rest = length; rest > 0; rest -= CHUNK) {
    vector.push(zeroChunk().address, Math.min(CHUNK, rest));
  }
  return vector;
}

/** Writes zeros where there is no quicker way. */
function writeZeros(image: Image, offset: number, length: number): number {
  const vector = new IoVector(1);
  for (let done = 0; done < length;) {
    const size = Math.min(CHUNK, length - done);
    vector.clear();
    vector.push(zeroChunk().address, size);
    const error = image.write(vector, offset + done);
    if (error < 0) return error;
    done += size;
  }
  return 0;
}

class NullImage implements Image {
  readonly #readZeroes: boolean;

  constructor(readZeroes: boolean) {
    this.#readZeroes = readZeroes;
  }

  read(vector: IoVector): number {
    return this.#readZeroes ? fillZeros(vector) : 0;
  }

  write(): number {
    return 0;
  }

  flush(): number {
    return 0;
  }

  discard(): number {
    return 0;
  }

  zero(): number {
    return 0;
  }
}

/** A file or a block device, of which any bytes can be read and written. */
class FileImage implements Image {
  readonly fd: number;
  readonly #device: boolean;

  constructor(fd: number, device: boolean) {
    this.fd = fd;
    this.#device = device;
  }

  read(vector: IoVector, offset: number): number {
    for (let at = offset; vector.length > 0;) {
      const n = vector.readFromAt(this.fd, at);
      if (n < 0) return n;
      if (n === 0) return fillZeros(vector);
      vector.skip(n);
      at += n;
    }
    return 0;
  }

  write(vector: IoVector, offset: number): number {
    for (let at = offset; vector.length > 0;) {
      const n = vector.writeToAt(this.fd, at);
      if (n < 0) return n;
      if (n === 0) return -Errno.ENOSPC;
      vector.skip(n);
      at += n;
    }
    return 0;
  }

  flush(): number {
    return flushData(this.fd);
  }

  discard(offset: number, length: number): number {
    const discard = this.#device ? discardBlocks : punchHole;
    const error = discard(this.fd, offset, length);
    // A hint: what cannot be given back is kept.
    return error === NOT_SUPPORTED ? 0 : error;
  }

  zero(offset: number, length: number, unmap: boolean): number {
    const error = this.#device
      ? zeroBlocks(this.fd, offset, length)
      : (unmap ? punchHole : zeroRange)(this.fd, offset, length);
    return error === NOT_SUPPORTED ? writeZeros(this, offset, length) : error;
  }
}

/**
 * An image without the page cache (open(2), O_DIRECT): what is not aligned goes by way of a buffer, and
 * a write of parts of blocks reads them first.
 */
class DirectImage implements Image {
  readonly #image: FileImage;
  readonly #alignment: number;
  readonly #mutex: Int32Array<SharedArrayBuffer>;
  readonly #piece = new IoVector(1);
  #buffer: MappedRegion | undefined;

  constructor(image: FileImage, alignment: number, mutex: Int32Array<SharedArrayBuffer>) {
    this.#image = image;
    this.#alignment = alignment;
    this.#mutex = mutex;
  }

  read(vector: IoVector, offset: number): number {
    if (this.#isAligned(vector, offset)) return this.#image.read(vector, offset);
    for (let at = offset; vector.length > 0;) {
      const start = this.#down(at);
      const size = Math.min(CHUNK, this.#up(at + vector.length) - start);
      const error = this.#load(0, size, start);
      if (error < 0) return error;
      const skip = at - start;
      const n = vector.copyIn(this.#bytes(skip, Math.min(size - skip, vector.length)));
      if (n < 0) return n;
      vector.skip(n);
      at += n;
    }
    return 0;
  }

  /** Writes of parts of blocks come one after another, and so do all writes beside them. */
  write(vector: IoVector, offset: number): number {
    lock(this.#mutex, 0);
    try {
      if (this.#isAligned(vector, offset)) return this.#image.write(vector, offset);
      return this.#writeParts(vector, offset);
    } finally {
      unlock(this.#mutex, 0);
    }
  }

  flush(): number {
    return this.#image.flush();
  }

  discard(offset: number, length: number): number {
    // A hint: parts of blocks at the ends are kept.
    const start = this.#up(offset);
    const end = this.#down(offset + length);
    return end > start ? this.#image.discard(start, end - start) : 0;
  }

  zero(offset: number, length: number, unmap: boolean): number {
    const aligned = offset % this.#alignment === 0 && length % this.#alignment === 0;
    return aligned ? this.#image.zero(offset, length, unmap) : writeZeros(this, offset, length);
  }

  #writeParts(vector: IoVector, offset: number): number {
    for (let at = offset; vector.length > 0;) {
      const start = this.#down(at);
      const size = Math.min(CHUNK, this.#up(at + vector.length) - start);
      const skip = at - start;
      const length = Math.min(size - skip, vector.length);
      const block = this.#alignment;
      // The blocks at the ends, of which parts stay.
      let error = skip > 0 ? this.#load(0, block, start) : 0;
      if (error === 0 && skip + length < size) {
        error = this.#load(size - block, block, start + size - block);
      }
      if (error < 0) return error;
      const n = vector.copyOut(this.#bytes(skip, length));
      if (n < 0) return n;
      error = this.#image.write(this.#vector(0, size), start);
      if (error < 0) return error;
      vector.skip(n);
      at += n;
    }
    return 0;
  }

  #load(position: number, size: number, offset: number): number {
    return this.#image.read(this.#vector(position, size), offset);
  }

  #vector(position: number, size: number): IoVector {
    this.#piece.clear();
    this.#piece.push(this.#region().address + position, size);
    return this.#piece;
  }

  #bytes(position: number, size: number): Uint8Array<ArrayBuffer> {
    return viewMemory(this.#region().address, CHUNK).subarray(position, position + size);
  }

  #region(): MappedRegion {
    return this.#buffer ??= mapAnonymous(CHUNK);
  }

  #isAligned(vector: IoVector, offset: number): boolean {
    return offset % this.#alignment === 0 && vector.isAligned(this.#alignment);
  }

  #down(offset: number): number {
    return offset - offset % this.#alignment;
  }

  #up(offset: number): number {
    return this.#down(offset + this.#alignment - 1);
  }
}
