/**
 * Mapped memory and memfds.
 *
 * @module
 */
import { check, Errno, errno, OsError, retry } from "./errno.ts";
import { OwnedFd } from "./fd.ts";
import { cstring, libc } from "./libc.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const MADV_DONTNEED = 4;
const MADV_REMOVE = 9;
const MADV_MERGEABLE = 12;
const MADV_DONTDUMP = 16;
const MADV_POPULATE_WRITE = 23;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

/** memfd seals (linux/fcntl.h). */
export const Seal = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8 } as const;

/** Chunks of file I/O to mapped memory: below 2 GiB, so that counts fit an i32. */
const CHUNK = 1 << 30;

/** Memory that was promised is not there. */
export class MemoryLost extends Error {
  override readonly name = "MemoryLost";

  /** @param name whose memory, and where */
  constructor(name: string) {
    super(
      `No memory is behind ${name}: its file was cut off, or its file system or the host's huge pages` +
        " are used up",
    );
  }
}

/** How much is zeroed, or looked at, at a time. */
const PIECE = 256 << 10;
const scratch = new Uint8Array(PIECE);

const pid = Deno.pid;
/** struct iovec of this process's buffer, and of the mapping. */
const local = new BigUint64Array(2);
const remote = new BigUint64Array(2);
const localAddress = addressOf(new Uint8Array(local.buffer));
const remoteAddress = addressOf(new Uint8Array(remote.buffer));

/**
 * A mapping and the duty to unmap it.
 *
 * Its bytes are copied by the kernel (process_vm_readv(2)): a page that is not there, since its file was
 * cut off or there is no room for it, is an error then and no SIGBUS.
 */
export class MappedRegion implements Disposable {
  /** What it is, for messages. */
  name = "memory";
  #open = true;
  #bytes: Uint8Array<ArrayBuffer> | undefined;

  /**
   * @param address first byte's host virtual address
   * @param size bytes
   */
  constructor(readonly address: number, readonly size: number) {}

  /**
   * One view of the whole mapping, made once per thread: for regions of up to 1 GiB whose memory nobody
   * can take away. It must not be used after the region is unmapped.
   */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes ??= viewMemory(this.address, this.size);
  }

  /**
   * Copies bytes into the mapping.
   *
   * @throws {RangeError} if they do not fit
   * @throws {MemoryLost}
   */
  write(offset: number, data: Uint8Array<ArrayBuffer>): void {
    this.#copy(libc.process_vm_writev, "process_vm_writev", offset, data);
  }

  /**
   * Copies bytes out of the mapping.
   *
   * @throws {RangeError} if they are not all inside
   * @throws {MemoryLost}
   */
  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    this.#at(offset, length);
    const out = new Uint8Array(length);
    this.#copy(libc.process_vm_readv, "process_vm_readv", offset, out);
    return out;
  }

  /** Fills part of the mapping with zeros. @throws {MemoryLost} */
  zero(offset: number, length: number): void {
    this.#at(offset, length);
    const zeros = new Uint8Array(Math.min(PIECE, length));
    for (let done = 0; done < length; done += zeros.length) {
      this.write(offset + done, zeros.subarray(0, length - done));
    }
  }

  /** Whether a range holds only zeros. @throws {MemoryLost} */
  isZero(offset: number, length: number): boolean {
    this.#at(offset, length);
    for (let done = 0; done < length; done += PIECE) {
      const piece = scratch.subarray(0, length - done);
      this.#copy(libc.process_vm_readv, "process_vm_readv", offset + done, piece);
      if (!isZero(piece)) return false;
    }
    return true;
  }

  /**
   * Reads from a file straight into the mapping.
   *
   * @returns the number of bytes read; fewer than `length` only at the end of the file
   * @throws {OsError}
   */
  readFrom(fd: number, fileOffset: number, offset: number, length: number): number {
    return this.#transfer(libc.pread_at, "pread", fd, fileOffset, offset, length);
  }

  /** Writes part of the mapping straight to a file. @throws {OsError} */
  writeTo(fd: number, fileOffset: number, offset: number, length: number): void {
    const n = this.#transfer(libc.pwrite_at, "pwrite", fd, fileOffset, offset, length);
    if (n !== length) throw new RangeError(`Wrote ${n} of ${length} bytes to fd ${fd}`);
  }

  /**
   * Allocates and maps pages now; whole pages only.
   *
   * @throws {OsError} when there is not enough memory
   * @throws {MemoryLost}
   */
  populate(offset = 0, length: number = this.size): void {
    const address = this.#at(offset, length);
    const result = retry(() => libc.madvise(address, length, MADV_POPULATE_WRITE));
    this.#check(result, "madvise(MADV_POPULATE_WRITE)");
  }

  /**
   * Gives the host the memory of whole pages back: they are zeros from then on, until they are written.
   *
   * @param shared whether a file is mapped shared, whose pages are given back, or memory is anonymous
   * @throws {OsError} for a file whose file system cannot
   */
  giveBack(offset: number, length: number, shared: boolean): void {
    const address = this.#at(offset, length);
    const advice = shared ? MADV_REMOVE : MADV_DONTNEED;
    const name = `madvise(${shared ? "MADV_REMOVE" : "MADV_DONTNEED"})`;
    check(retry(() => libc.madvise(address, length, advice)), name);
  }

  /** Leaves the region out of core dumps. @throws {OsError} */
  excludeFromDumps(): void {
    check(libc.madvise(this.address, this.size, MADV_DONTDUMP), "madvise(MADV_DONTDUMP)");
  }

  /** Lets the kernel share equal pages of private memory, if it does that at all. */
  allowMerging(): void {
    libc.madvise(this.address, this.size, MADV_MERGEABLE);
  }

  /** Unmaps the region; a second call does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#bytes = undefined;
    libc.munmap(this.address, this.size);
  }

  /** Unmaps the region at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }

  #at(offset: number, length: number): number {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new RangeError(
        `Range of ${length} bytes at ${offset} is outside a mapping of ${this.size} bytes`,
      );
    }
    if (!this.#open) throw new Error("Mapping is closed");
    return this.address + offset;
  }

  #copy(
    call: typeof libc.process_vm_readv,
    name: string,
    offset: number,
    data: Uint8Array<ArrayBuffer>,
  ): void {
    const address = this.#at(offset, data.length);
    for (let done = 0; done < data.length;) {
      const step = BigInt(Math.min(CHUNK, data.length - done));
      local[0] = addressOf(data) + BigInt(done);
      remote[0] = BigInt(address + done);
      local[1] = remote[1] = step;
      done += this.#check(retry(() => call(pid, localAddress, 1n, remoteAddress, 1n, 0n)), name);
    }
  }

  /** Passes a call's result on, whose only bad address can be in the mapping. */
  #check(result: number, call: string, subject?: string): number {
    if (result === -1 && errno() === Errno.EFAULT) throw new MemoryLost(this.name);
    return check(result, call, subject);
  }

  #transfer(
    call: typeof libc.pread_at,
    name: string,
    fd: number,
    fileOffset: number,
    offset: number,
    length: number,
  ): number {
    const address = this.#at(offset, length);
    let done = 0;
    while (done < length) {
      const step = Math.min(CHUNK, length - done);
      const result = retry(() => call(fd, address + done, step, BigInt(fileOffset + done)));
      const n = this.#check(result, name, `${fd}`);
      if (n === 0) break;
      done += n;
    }
    return done;
  }
}

/** Whether there are only zeros: the first byte is one, and each is like the one before it. */
export function isZero(bytes: Uint8Array<ArrayBuffer>): boolean {
  if (bytes.length === 0 || bytes[0] !== 0) return bytes.length === 0;
  const at = addressOf(bytes);
  return bytes.length === 1 || libc.memcmp(at, at + 1n, bytes.length - 1) === 0;
}

/** A view of native memory that someone else keeps mapped. */
export function viewMemory(address: number, size: number): Uint8Array<ArrayBuffer> {
  const pointer = Deno.UnsafePointer.create(BigInt(address))!;
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, size));
}

/** The address of a buffer's first byte; valid while the buffer is referenced. */
export function addressOf(buffer: Uint8Array<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}

function map(size: number, prot: number, flags: number, fd: number, offset: number) {
  const address = libc.mmap(0, size, prot, flags, fd, BigInt(offset));
  if (address === MAP_FAILED) throw new OsError("mmap", errno(), `of ${size} bytes`);
  return new MappedRegion(Number(address), size);
}

/** Maps a file shared with everyone else who maps it. */
export function mapShared(fd: number, size: number, offset = 0, writable = true): MappedRegion {
  const prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  return map(size, prot, MAP_SHARED, fd, offset);
}

/**
 * Maps a file shared over the pages that a buffer lies in, which then is the file's contents: how
 * WebAssembly memory comes to be guest RAM. Whole pages only.
 *
 * @throws {OsError}
 */
export function mapOver(buffer: Uint8Array<ArrayBuffer>, fd: number, offset: number): void {
  const { length } = buffer;
  const flags = MAP_SHARED | MAP_FIXED;
  const at = addressOf(buffer);
  if (libc.mmap(at, length, PROT_READ | PROT_WRITE, flags, fd, BigInt(offset)) === MAP_FAILED) {
    throw new OsError("mmap", errno(), `of ${length} bytes`);
  }
}

/** Maps a file copy-on-write: changes stay in this process. */
export function mapPrivate(fd: number, size: number, offset = 0): MappedRegion {
  return map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, offset);
}

/** Anonymous memory of this process alone. */
export function mapAnonymous(size: number): MappedRegion {
  return map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/** A page of machine code that cannot be written any more. */
export function mapCode(code: Uint8Array<ArrayBuffer>): MappedRegion {
  const region = map(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  region.write(0, code);
  check(libc.mprotect(region.address, region.size, PROT_READ | PROT_EXEC), "mprotect");
  return region;
}

/** How a memfd is made. */
export interface MemfdOptions {
  /** Whether it may be sealed (`addSeals`). */
  readonly sealing?: boolean;
  /** Page size in bytes when it shall be of huge pages; 0 means the system's default size. */
  readonly hugePageSize?: number;
}

/**
 * Makes a memfd of `size` bytes.
 *
 * @param name shown in /proc/PID/maps as `memfd:NAME`
 * @throws {OsError}
 */
export function makeMemfd(name: string, size: number, options: MemfdOptions = {}): OwnedFd {
  let flags = MFD_CLOEXEC | (options.sealing ? MFD_ALLOW_SEALING : 0);
  if (options.hugePageSize !== undefined) {
    // linux/memfd.h: the page size is encoded as its log2 in bits 26 to 31.
    flags |= MFD_HUGETLB | (options.hugePageSize ? Math.log2(options.hugePageSize) << 26 : 0);
  }
  const fd = new OwnedFd(check(libc.memfd_create(cstring(name), flags >>> 0), "memfd_create"));
  try {
    resizeFile(fd.fd, size);
  } catch (error) {
    fd.close();
    throw error;
  }
  return fd;
}

/** Sets a file's length. @throws {OsError} */
export function resizeFile(fd: number, size: number): void {
  check(retry(() => libc.ftruncate(fd, BigInt(size))), "ftruncate", `to ${size} bytes`);
}

/** Adds seals to a memfd that allows them. */
export function addSeals(fd: number, seals: number): void {
  check(libc.fcntl(fd, F_ADD_SEALS, seals), "fcntl(F_ADD_SEALS)", `${fd}`);
}

/** A memfd's seals, or undefined if the file is no memfd (or hugetlbfs/tmpfs file). */
export function sealsOf(fd: number): number | undefined {
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  return seals === -1 ? undefined : seals;
}

/**
 * Gives the host back what the C library's heaps hold and nobody uses: it keeps most of what was freed
 * for those who may want it again. It takes milliseconds, on another thread.
 */
export async function giveBackFreeMemory(): Promise<void> {
  await libc.malloc_trim_async(0);
}
