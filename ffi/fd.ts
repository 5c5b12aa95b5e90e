/**
 * File descriptors with an owner: opened with CLOEXEC, closed once.
 *
 * @module
 */
import { check, Errno, errno, OsError, retry } from "./errno.ts";
import { cstring, libc } from "./libc.ts";
import { i64, struct, u32, u64 } from "./struct.ts";

/** open(2) flags (asm-generic/fcntl.h). */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DIRECT: 0o40000,
  NOFOLLOW: 0o400000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
} as const;

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;

/** struct stat of x86-64 (asm/stat.h), as far as Denovo reads it. */
const stat = struct("stat", {
  dev: u64,
  ino: u64,
  nlink: u64,
  mode: u32,
  uid: u32,
  gid: u32,
  pad: u32,
  rdev: u64,
  size: i64,
  blksize: i64,
  blocks: i64,
});
const STAT_SIZE = 144;

/** What fstat says of an open file. */
export interface FileStatus {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly kind: "file" | "directory" | "character" | "block" | "fifo" | "socket" | "other";
  readonly size: number;
  /** Bytes allocated on the file system. */
  readonly allocated: number;
}

const kinds: Record<number, FileStatus["kind"]> = {
  0o010000: "fifo",
  0o020000: "character",
  0o040000: "directory",
  0o060000: "block",
  0o100000: "file",
  0o140000: "socket",
};

/** A file descriptor and the duty to close it. */
export class OwnedFd implements Disposable {
  #fd: number;

  /** Takes over an open descriptor. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The descriptor's number. Throws once it is closed or released. */
  get fd(): number {
    if (this.#fd < 0) throw new OsError("fd", Errno.EBADF);
    return this.#fd;
  }

  /** Whether the descriptor is no longer owned. */
  get closed(): boolean {
    return this.#fd < 0;
  }

  /** Closes the descriptor; a second call does nothing. */
  close(): void {
    if (this.#fd < 0) return;
    libc.close(this.#fd);
    this.#fd = -1;
  }

  /** Gives the descriptor away: returns its number and forgets it. */
  release(): number {
    const fd = this.fd;
    this.#fd = -1;
    return fd;
  }

  /** Closes the descriptor at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Opens a file, always with CLOEXEC.
 *
 * @param path the file
 * @param flags {@linkcode O} flags
 * @param mode permissions of a file that is created
 * @throws {OsError}
 */
export function openFile(path: string, flags: number, mode = 0o666): OwnedFd {
  const name = cstring(path);
  const fd = retry(() => libc.open(name, flags | O.CLOEXEC, mode));
  return new OwnedFd(check(fd, "open", `'${path}'`));
}

/** Milliseconds between looks whether a FIFO has a reader. */
const READER_POLL_MS = 20;

/**
 * Waits until a file that is a FIFO has a reader, so that opening it for writing does not wait for one
 * (fifo(7)). For other files there is nothing to wait for.
 *
 * @param abort ends the wait: it rejects then
 */
export async function awaitReader(path: string, abort?: AbortSignal): Promise<void> {
  for (;;) {
    abort?.throwIfAborted();
    try {
      return openFile(path, O.WRONLY | O.NONBLOCK).close();
    } catch (error) {
      // What else may be wrong with it is said when it is opened to be used.
      if (!(error instanceof OsError) || error.code !== "ENXIO") return;
    }
    await new Promise((resolve) => setTimeout(resolve, READER_POLL_MS));
  }
}

/** Removes a file name; a name that does not exist is no error. */
export function unlinkFile(path: string): void {
  if (libc.unlink(cstring(path)) === -1 && errno() !== Errno.ENOENT) {
    throw new OsError("unlink", errno(), `'${path}'`);
  }
}

/** Which file a name leads to. */
export interface NamedFile {
  readonly path: string;
  readonly dev: bigint;
  readonly ino: bigint;
}

/** The file behind a name, which may be a symbolic link itself; undefined if there is none. */
export function findNamed(path: string): NamedFile | undefined {
  try {
    using file = openFile(path, O.PATH | O.NOFOLLOW);
    const { dev, ino } = fileStatus(file.fd);
    return { path, dev, ino };
  } catch (error) {
    if (error instanceof OsError && ["ENOENT", "ENOTDIR"].includes(error.code)) return undefined;
    throw error;
  }
}

/** Removes a file's name, unless the name has been given to another file since. */
export function unlinkNamed(file: NamedFile): void {
  const now = findNamed(file.path);
  if (now?.dev === file.dev && now.ino === file.ino) unlinkFile(file.path);
}

/** Sets or clears the close-on-exec flag. */
export function setCloexec(fd: number, on: boolean): void {
  check(libc.fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0), "fcntl(F_SETFD)", `${fd}`);
}

/** Whether a number, whatever it is, is that of an open descriptor. */
export function isOpen(fd: number): boolean {
  return (fd | 0) === fd && libc.fcntl(fd, F_GETFD, 0) !== -1;
}

/** Sets or clears O_NONBLOCK on the open file. */
export function setNonblocking(fd: number, on: boolean): void {
  const flags = check(libc.fcntl(fd, F_GETFL, 0), "fcntl(F_GETFL)", `${fd}`);
  const wanted = on ? flags | O.NONBLOCK : flags & ~O.NONBLOCK;
  if (wanted !== flags) check(libc.fcntl(fd, F_SETFL, wanted), "fcntl(F_SETFL)", `${fd}`);
}

/** The access mode of an open file: `O.RDONLY`, `O.WRONLY` or `O.RDWR`. */
export function accessMode(fd: number): number {
  return check(libc.fcntl(fd, F_GETFL, 0), "fcntl(F_GETFL)", `${fd}`) & 3;
}

/** Whether a file was opened with a flag, such as `O.DIRECT`. */
export function hasFlag(fd: number, flag: number): boolean {
  return (check(libc.fcntl(fd, F_GETFL, 0), "fcntl(F_GETFL)", `${fd}`) & flag) !== 0;
}

/** Duplicates a descriptor, with CLOEXEC. */
export function duplicate(fd: number): OwnedFd {
  return new OwnedFd(check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 3), "fcntl(F_DUPFD_CLOEXEC)", `${fd}`));
}

/** Makes `to` refer to the same open file as `from`, without CLOEXEC: for stdin, stdout, stderr. */
export function redirect(from: number, to: number): void {
  if (from !== to) check(libc.dup3(from, to, 0), "dup3", `${from}`);
}

/** fstat. */
export function fileStatus(fd: number): FileStatus {
  const buffer = new Uint8Array(STAT_SIZE);
  check(libc.fstat(fd, buffer), "fstat", `${fd}`);
  const st = stat.view(buffer.buffer);
  return {
    dev: st.dev,
    ino: st.ino,
    kind: kinds[st.mode & 0o170000] ?? "other",
    size: Number(st.size),
    allocated: Number(st.blocks) * 512,
  };
}

/** struct statfs of x86-64 (asm-generic/statfs.h), as far as Denovo reads it. */
const statfs = struct("statfs", { type: u64, bsize: u64, blocks: u64, bfree: u64, bavail: u64 });
const STATFS_SIZE = 120;

/**
 * How many bytes a file's file system has left for its owner.
 *
 * @returns undefined where there is no limit to speak of
 */
export function spaceLeft(fd: number): number | undefined {
  const buffer = new Uint8Array(STATFS_SIZE);
  check(libc.fstatfs(fd, buffer), "fstatfs", `${fd}`);
  const { bsize, blocks, bavail } = statfs.view(buffer.buffer);
  return blocks === 0n ? undefined : Number(bavail * bsize);
}

/** Makes a pipe: [read end, write end], both with CLOEXEC. */
export function makePipe(flags = 0): [OwnedFd, OwnedFd] {
  const fds = new Int32Array(2);
  check(libc.pipe2(fds, flags | O.CLOEXEC), "pipe2");
  return [new OwnedFd(fds[0]), new OwnedFd(fds[1])];
}

/**
 * Reads up to `buffer.length` bytes.
 *
 * @returns the number of bytes, 0 at the end of the file, -1 when nothing is there yet (EAGAIN)
 * @throws {OsError}
 */
export function readFd(fd: number, buffer: Uint8Array<ArrayBuffer>): number {
  const n = retry(() => libc.read(fd, buffer, BigInt(buffer.length)));
  if (n === -1 && errno() !== Errno.EAGAIN) throw new OsError("read", errno(), `${fd}`);
  return n;
}

/**
 * Writes up to `data.length` bytes.
 *
 * @returns the number of bytes taken, -1 when the file takes none now (EAGAIN)
 * @throws {OsError}
 */
export function writeFd(fd: number, data: Uint8Array<ArrayBuffer>): number {
  const n = retry(() => libc.write(fd, data, BigInt(data.length)));
  if (n === -1 && errno() !== Errno.EAGAIN) throw new OsError("write", errno(), `${fd}`);
  return n;
}

/** Writes all of `data` to a blocking descriptor, over short writes. */
export function writeAll(fd: number, data: Uint8Array<ArrayBuffer>): void {
  for (let done = 0; done < data.length;) {
    const n = writeFd(fd, data.subarray(done));
    if (n === -1) pollFd(fd, POLLOUT, -1);
    else done += n;
  }
}

/** Reads `buffer.length` bytes at `offset`; returns fewer only at the end of the file. */
export function readAt(fd: number, buffer: Uint8Array<ArrayBuffer>, offset: number): number {
  let done = 0;
  while (done < buffer.length) {
    const rest = buffer.subarray(done);
    const n = check(
      retry(() => libc.pread(fd, rest, rest.length, BigInt(offset + done))),
      "pread",
      `${fd}`,
    );
    if (n === 0) break;
    done += n;
  }
  return done;
}

/** Writes all of the data at an offset. @throws {OsError} */
export function writeAt(fd: number, data: Uint8Array<ArrayBuffer>, offset: number): void {
  for (let done = 0; done < data.length;) {
    const rest = data.subarray(done);
    const n = retry(() => libc.pwrite(fd, rest, rest.length, BigInt(offset + done)));
    done += check(n, "pwrite", `${fd}`);
  }
}

/** Moves the file offset to an absolute position and returns it; `null` only asks for it. */
export function seekFd(fd: number, position: number | null): number {
  const at = libc.lseek(fd, BigInt(position ?? 0), position === null ? 1 : 0);
  if (at === -1n) throw new OsError("lseek", errno(), `${fd}`);
  return Number(at);
}

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/**
 * The ranges of a file that are no holes, in order: for memory, those with pages. The position of the
 * open file, which other processes may share, moves (lseek(2)).
 *
 * @param start of the part that counts
 * @param end of the part that counts
 * @throws {OsError} when the file cannot say
 */
export function* dataRanges(
  fd: number,
  start: number,
  end: number,
): Generator<readonly [start: number, end: number]> {
  const seek = (from: number, what: number) => Number(libc.lseek(fd, BigInt(from), what));
  for (let at = start; at < end;) {
    const from = seek(at, SEEK_DATA);
    // ENXIO: what is left is one hole.
    if (from === -1 && errno() === Errno.ENXIO) return;
    const to = from === -1 ? -1 : seek(from, SEEK_HOLE);
    if (to === -1) throw new OsError("lseek", errno(), `${fd}`);
    if (from >= end) return;
    at = Math.min(to, end);
    yield [from, at];
  }
}

/** poll(2) event bits (asm-generic/poll.h). */
export const POLLIN = 1;
/** Writing is possible. */
export const POLLOUT = 4;
/** The peer hung up. */
export const POLLHUP = 16;

const pollfd = new Int32Array(2);

/**
 * Waits for events on one descriptor.
 *
 * @param timeoutMs milliseconds; 0 returns at once, -1 waits without end
 * @returns the events that are there; 0 after the timeout
 */
export function pollFd(fd: number, events: number, timeoutMs: number): number {
  pollfd[0] = fd;
  pollfd[1] = events;
  const n = check(retry(() => libc.poll(pollfd, 1n, timeoutMs)), "poll", `${fd}`);
  return n === 0 ? 0 : pollfd[1] >>> 16;
}
