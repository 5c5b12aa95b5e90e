/**
 * What waits in a socket to be received.
 *
 * @module
 */
import { check, Errno, errno } from "./errno.ts";
import { libc } from "./libc.ts";
import { addressOf } from "./memory.ts";

const MSG_PEEK = 2;
const MSG_TRUNC = 0x20;
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
  return retried(() => libc.recv(fd, into, into.length, MSG_PEEK | MSG_DONTWAIT));
}

const nothing = new Uint8Array(1);
const nowhere = addressOf(nothing);

/** The length of the first datagram that waits, which is left; or a negative errno. */
export function peekLength(fd: number): number {
  const flags = MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC;
  // What nobody mentions any more is freed.
  return retried(() => libc.recv_at(fd, nowhere, BigInt(nothing.length), flags));
}

function retried(receive: () => number): number {
  for (;;) {
    const n = receive();
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
