/**
 * errno, which Deno's FFI does not report: read from the thread's own errno word right after a
 * synchronous call that failed. After a `nonblocking` call it means nothing.
 *
 * @module
 */
import { libc } from "./libc.ts";

const word = new Int32Array(
  Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, 4),
);

/** errno values that callers compare with (asm-generic/errno-base.h and errno.h). */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ENOSYS: 38,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ENOTCONN: 107,
  EINPROGRESS: 115,
  ECONNREFUSED: 111,
} as const;

/** The calling thread's errno. */
export function errno(): number {
  return word[0];
}

/** A failed system call. */
export class OsError extends Error {
  override readonly name = "OsError";
  /** The libc function or ioctl that failed. */
  readonly syscall: string;
  /** The errno number. */
  readonly errno: number;
  /** The errno's name, for example `ENOENT`. */
  readonly code: string;
  /** What strerror says, for example `No such file or directory`. */
  readonly reason: string;

  /**
   * @param syscall the function that failed
   * @param number its errno
   * @param subject what it was applied to, if that helps
   */
  constructor(syscall: string, number: number, subject?: string) {
    const reason = describeErrno(number);
    super(`${syscall}${subject === undefined ? "" : ` ${subject}`}: ${reason}`);
    this.syscall = syscall;
    this.errno = number;
    this.code = errnoName(number);
    this.reason = reason;
  }
}

/** strerror's text for an errno number. */
export function describeErrno(number: number): string {
  return Deno.UnsafePointerView.getCString(libc.strerror(number)!);
}

function errnoName(number: number): string {
  const name = libc.strerrorname_np(number);
  return name ? Deno.UnsafePointerView.getCString(name) : `E${number}`;
}

/**
 * Passes a call's result on, or throws when it was -1.
 *
 * @param result what the call returned
 * @param syscall its name
 * @param subject what it was applied to
 * @throws {OsError} with the thread's errno
 */
export function check(result: number, syscall: string, subject?: string): number {
  if (result === -1) throw new OsError(syscall, word[0], subject);
  return result;
}

/** Repeats a call for as long as it fails with EINTR. */
export function retry(call: () => number): number {
  for (;;) {
    const result = call();
    if (result !== -1 || word[0] !== Errno.EINTR) return result;
  }
}
