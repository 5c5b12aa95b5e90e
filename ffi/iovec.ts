/**
 * Scattered memory as `readv` and `writev` take it (struct iovec): data goes between descriptors and
 * guest RAM without a copy in between.
 *
 * The addresses are those of mappings that outlive the vector. A page that is not there (its file was
 * cut off, its file system is full) is EFAULT to the kernel, and no SIGBUS.
 *
 * @module
 */
import { check, Errno, errno } from "./errno.ts";
import { libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

/** How many pieces one system call takes (linux/uio.h, UIO_MAXIOV). */
export const MAX_PIECES = 1024;

/** u32 words of a struct iovec: u64 base, u64 length. */
const WORDS = 4;
const TWO_32 = 0x1_0000_0000;

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** struct msghdr in words of 64 bits: the name, its length, the pieces, how many; the rest is 0. */
const message = new BigUint64Array(7);
const messageAddress = addressOf(new Uint8Array(message.buffer));
const NAME = 0;
const NAME_LENGTH = 1;
const PIECES = 2;
const PIECE_COUNT = 3;

const pid = Deno.pid;
/** struct iovec of a buffer of this thread's, in words of 32 bits. */
const own = new Uint32Array(4);
const ownAddress = addressOf(new Uint8Array(own.buffer));
/** Where buffers begin that something was copied from or to: asking for it takes as long as copying. */
const addresses = new WeakMap<ArrayBuffer, number>();

function addressOfBuffer(buffer: ArrayBuffer): number {
  let address = addresses.get(buffer);
  if (address === undefined) {
    address = Number(addressOf(new Uint8Array(buffer)));
    addresses.set(buffer, address);
  }
  return address;
}

/** Pieces of memory, one after another. */
export class IoVector {
  readonly #words: Uint32Array<ArrayBuffer>;
  /** Where the words are. */
  readonly #base: number;
  /** First piece that is left. */
  #first = 0;
  /** End of the pieces. */
  #end = 0;
  #length = 0;

  /** @param capacity how many pieces it holds, at most {@linkcode MAX_PIECES} */
  constructor(capacity: number = MAX_PIECES) {
    if (capacity > MAX_PIECES) {
      throw new RangeError(`${capacity} pieces are more than a call takes`);
    }
    this.#words = new Uint32Array(capacity * WORDS);
    this.#base = Number(addressOf(new Uint8Array(this.#words.buffer)));
  }

  /** Bytes in all pieces. */
  get length(): number {
    return this.#length;
  }

  /** How many pieces there are. */
  get pieces(): number {
    return this.#end - this.#first;
  }

  /** Where the struct iovec of the first piece is. */
  get address(): bigint {
    return BigInt(this.#base + this.#first * WORDS * 4);
  }

  /** Whether each piece begins and ends at a multiple of `alignment` bytes, a power of two. */
  isAligned(alignment: number): boolean {
    for (let i = this.#first; i < this.#end; i++) {
      // The lower halves have all the bits that count.
      if ((this.#words[i * WORDS] | this.#words[i * WORDS + 2]) & (alignment - 1)) return false;
    }
    return true;
  }

  /** Takes all pieces out. */
  clear(): void {
    this.#first = this.#end = this.#length = 0;
  }

  /**
   * Adds a piece; one that begins where the last one ends becomes part of it.
   *
   * @param address host virtual address
   * @param length bytes
   * @returns false, and nothing is added, if the vector is full
   */
  push(address: number, length: number): boolean {
    if (length === 0) return true;
    if (this.pieces > 0 && this.#grow(address, length)) return true;
    if ((this.#end + 1) * WORDS > this.#words.length) return false;
    this.#set(this.#end++, address, length);
    this.#length += length;
    return true;
  }

  /** Takes bytes away at the front, those that a call has moved. */
  skip(bytes: number): void {
    let rest = Math.min(bytes, this.#length);
    this.#length -= rest;
    while (this.#first < this.#end) {
      const length = this.#lengthOf(this.#first);
      if (rest < length) break;
      rest -= length;
      this.#first++;
    }
    if (rest > 0) {
      const length = this.#lengthOf(this.#first);
      this.#set(this.#first, this.#addressOf(this.#first) + rest, length - rest);
    }
  }

  /** Takes bytes away at the end, so that at most `length` are left. */
  truncate(length: number): void {
    while (this.#length > length) {
      const last = this.#end - 1;
      const size = this.#lengthOf(last);
      const excess = this.#length - length;
      if (excess >= size) {
        this.#end--;
        this.#length -= size;
      } else {
        this.#set(last, this.#addressOf(last), size - excess);
        this.#length = length;
      }
    }
  }

  /** Moves the last byte to an empty vector. @returns false if there is none */
  moveLast(into: IoVector): boolean {
    if (this.#length === 0) return false;
    const last = this.#end - 1;
    into.push(this.#addressOf(last) + this.#lengthOf(last) - 1, 1);
    this.truncate(this.#length - 1);
    return true;
  }

  /** Adds the pieces of another vector's first `length` bytes. @returns false if it gets full */
  append(other: IoVector, length: number = other.length): boolean {
    let rest = Math.min(length, other.length);
    for (let i = other.#first; rest > 0; i++) {
      const size = Math.min(rest, other.#lengthOf(i));
      if (!this.push(other.#addressOf(i), size)) return false;
      rest -= size;
    }
    return true;
  }

  /** Where each piece begins, and its bytes. */
  *ranges(): Generator<readonly [address: number, length: number]> {
    for (let i = this.#first; i < this.#end; i++) yield [this.#addressOf(i), this.#lengthOf(i)];
  }

  /** Reads into the pieces. @returns bytes, 0 at the end of the file, or a negative errno */
  readFrom(fd: number): number {
    return result(() => libc.readv(fd, this.address, this.pieces));
  }

  /** Reads from an offset in a file. @returns bytes, 0 at its end, or a negative errno */
  readFromAt(fd: number, offset: number): number {
    return result(() => libc.preadv(fd, this.address, this.pieces, BigInt(offset)));
  }

  /** Writes the pieces. @returns bytes, or a negative errno */
  writeTo(fd: number): number {
    return result(() => libc.writev(fd, this.address, this.pieces));
  }

  /**
   * Sends the pieces on a socket, without waiting and without SIGPIPE.
   *
   * @param to a struct sockaddr, for a socket that is not connected
   * @returns bytes, or a negative errno
   */
  sendTo(fd: number, to?: Uint8Array<ArrayBuffer>): number {
    message[NAME] = to ? addressOf(to) : 0n;
    message[NAME_LENGTH] = BigInt(to?.length ?? 0);
    message[PIECES] = this.address;
    message[PIECE_COUNT] = BigInt(this.pieces);
    return result(() => libc.sendmsg_at(fd, messageAddress, MSG_DONTWAIT | MSG_NOSIGNAL));
  }

  /** Writes the pieces at an offset in a file. @returns bytes, or a negative errno */
  writeToAt(fd: number, offset: number): number {
    return result(() => libc.pwritev(fd, this.address, this.pieces, BigInt(offset)));
  }

  /**
   * Copies the first bytes out.
   *
   * @returns how many there were, fewer than `into` holds only where the pieces end; or a negative errno
   */
  copyOut(into: Uint8Array<ArrayBuffer>): number {
    return this.#copy(libc.process_vm_readv, "process_vm_readv", into);
  }

  /**
   * Copies bytes into the pieces, from the first on.
   *
   * @returns how many there was room for, or a negative errno
   */
  copyIn(from: Uint8Array<ArrayBuffer>): number {
    return this.#copy(libc.process_vm_writev, "process_vm_writev", from);
  }

  #copy(
    call: typeof libc.process_vm_readv,
    name: string,
    buffer: Uint8Array<ArrayBuffer>,
  ): number {
    const length = Math.min(buffer.length, this.#length);
    if (length === 0) return 0;
    const address = addressOfBuffer(buffer.buffer) + buffer.byteOffset;
    own[0] = address % TWO_32;
    own[1] = address / TWO_32;
    own[2] = length;
    const n = result(() => call(pid, ownAddress, 1n, this.address, BigInt(this.pieces), 0n));
    // Not allowed, not there: nothing that the guest or a file could cause.
    if (n < 0 && n !== -Errno.EFAULT) check(-1, name);
    // A page that is not there ends the copy; what was copied before it does not help anyone.
    return n < length ? -Errno.EFAULT : n;
  }

  #grow(address: number, length: number): boolean {
    const last = this.#end - 1;
    const size = this.#lengthOf(last);
    if (this.#addressOf(last) + size !== address) return false;
    this.#set(last, this.#addressOf(last), size + length);
    this.#length += length;
    return true;
  }

  #set(piece: number, address: number, length: number): void {
    const at = piece * WORDS;
    this.#words[at] = address % TWO_32;
    this.#words[at + 1] = address / TWO_32;
    this.#words[at + 2] = length % TWO_32;
    this.#words[at + 3] = length / TWO_32;
  }

  #addressOf(piece: number): number {
    return this.#words[piece * WORDS] + this.#words[piece * WORDS + 1] * TWO_32;
  }

  #lengthOf(piece: number): number {
    return this.#words[piece * WORDS + 2] + this.#words[piece * WORDS + 3] * TWO_32;
  }
}

/** A call's result, again after EINTR, with errors as negative errnos. */
function result(call: () => number): number {
  for (;;) {
    const n = call();
    if (n !== -1) return n;
    const error = errno();
    if (error !== Errno.EINTR) return -error;
  }
}
