/**
 * Locks of open file descriptions (fcntl(2), "Open file description locks"): all who share the
 * description, such as a process that the descriptor is passed to, have the lock until the last of
 * them closes it.
 *
 * @module
 */
import { check, Errno, errno, OsError } from "./errno.ts";
import { libc } from "./libc.ts";
import { i64, struct, u16, u32 } from "./struct.ts";

/** struct flock of x86-64 (asm-generic/fcntl.h). */
const flock = struct("flock", {
  type: u16,
  whence: u16,
  pad: u32,
  start: i64,
  len: i64,
  pid: u32,
  pad2: u32,
});
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const types = { shared: 0, exclusive: 1 } as const;
const F_UNLCK = 2;

/** Bytes of a file, whether it has as many or not; none of them stands for all. */
export interface LockRange {
  readonly start: number;
  readonly length: number;
}

const WHOLE: LockRange = { start: 0, length: 0 };

function request(type: number, { start, length }: LockRange) {
  return flock.alloc({ type, start: BigInt(start), len: BigInt(length) });
}

/**
 * Locks an open file, or some of its bytes.
 *
 * @param fd open for reading if the lock is to be shared, for writing if it is to be exclusive
 * @returns false if another has a lock that does not go with this one
 * @throws {OsError} where the file system knows no locks
 */
export function lockFile(fd: number, kind: keyof typeof types, range = WHOLE): boolean {
  if (libc.fcntl_buffer(fd, F_OFD_SETLK, request(types[kind], range).bytes) === 0) return true;
  if (errno() === Errno.EAGAIN || errno() === Errno.EACCES) return false;
  throw new OsError("fcntl(F_OFD_SETLK)", errno(), `${fd}`);
}

/** Takes an open file's lock away, or that of some of its bytes. */
export function unlockFile(fd: number, range = WHOLE): void {
  check(
    libc.fcntl_buffer(fd, F_OFD_SETLK, request(F_UNLCK, range).bytes),
    "fcntl(F_OFD_SETLK)",
    `${fd}`,
  );
}

/** Whether another open file has a lock, of either kind, on some of the bytes. @throws {OsError} */
export function isLockedElsewhere(fd: number, range: LockRange): boolean {
  const { bytes, view } = request(types.exclusive, range);
  check(libc.fcntl_buffer(fd, F_OFD_GETLK, bytes), "fcntl(F_OFD_GETLK)", `${fd}`);
  return view.type !== F_UNLCK;
}
