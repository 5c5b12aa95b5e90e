/**
 * What waits in a socket to be received.
 *
 * @module
 */
import { check, Errno, errno } from "./errno.ts";
import { libc } from "./libc.ts";

const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;
const FIONREAD = 0x541b;

const count = new Int32Array(1);
const countBytes = new Uint8Array(count.buffer);

/**
 * Looks at the first bytes that wait, and leaves them.
 *
 * @returns how many there are, as far as the buffer holds them; 0 at the end of a connection; or a
 *   negative errno
 */
export function peek(fd: number, into: Uint8Array<ArrayBuffer>): number {
  for (;;) {
    const n = libc.recv(fd, into, into.length, MSG_PEEK | MSG_DONTWAIT);
    if (n !== -1) return n;
    const error = errno();
    if (error !== Errno.EINTR) return -error;
  }
}

/** How many bytes of a stream wait. @throws {OsError} */
export function bytesWaiting(fd: number): number {
  check(libc.ioctl_buffer(fd, FIONREAD, countBytes), "FIONREAD", `${fd}`);
  return count[0];
}
