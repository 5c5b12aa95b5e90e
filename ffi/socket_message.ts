/**
 * Messages that carry file descriptors over UNIX sockets (SCM_RIGHTS, unix(7) and cmsg(3)).
 *
 * @module
 */
import { check, Errno, errno, OsError, retry } from "./errno.ts";
import { OwnedFd } from "./fd.ts";
import { libc } from "./libc.ts";
import { addressOf } from "./memory.ts";
import { i32, struct, u32, u64 } from "./struct.ts";

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 8;
const MSG_TRUNC = 0x20;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** The most descriptors that the kernel takes in one message (SCM_MAX_FD, net/scm.h). */
export const MAX_MESSAGE_FDS = 253;

const iovec = struct("iovec", { address: u64, length: u64 });
const msghdr = struct("msghdr", {
  name: u64,
  nameLength: u32,
  iov: u64,
  iovCount: u64,
  control: u64,
  controlLength: u64,
  flags: i32,
});
const cmsghdr = struct("cmsghdr", { length: u64, level: i32, type: i32 });

/** What a message held. */
export interface ReceivedMessage {
  /** Bytes put into the buffer; 0 at the end of the connection. */
  readonly length: number;
  /** The descriptors, with CLOEXEC; the caller closes them. */
  readonly fds: OwnedFd[];
  /** Whether a message on a seqpacket socket was longer than the buffer; the rest is lost. */
  readonly truncated: boolean;
}

/** One msghdr with its iovec and control buffer, all in one block that does not move. */
class Message {
  /** The msghdr, as sendmsg and recvmsg take it. */
  readonly header: Uint8Array<ArrayBuffer>;
  /** The control messages. */
  readonly control: DataView<ArrayBuffer>;
  /** The payload, referenced for as long as its address is in the iovec. */
  readonly data: Uint8Array<ArrayBuffer>;

  constructor(data: Uint8Array<ArrayBuffer>, controlLength: number) {
    const block = new Uint8Array(
      new ArrayBuffer(msghdr.size + iovec.size + Math.ceil(controlLength / 8) * 8),
    );
    this.header = block;
    this.control = new DataView(block.buffer, msghdr.size + iovec.size, controlLength);
    this.data = data;
    const at = addressOf(block);
    Object.assign(iovec.view(block.buffer, msghdr.size), {
      address: addressOf(data),
      length: BigInt(data.length),
    });
    Object.assign(this.view, {
      iov: at + BigInt(msghdr.size),
      iovCount: 1n,
      control: controlLength > 0 ? at + BigInt(msghdr.size + iovec.size) : 0n,
      controlLength: BigInt(controlLength),
    });
  }

  /** The msghdr's fields. */
  get view(): ReturnType<typeof msghdr.view> {
    return msghdr.view(this.header.buffer);
  }
}

/**
 * Sends data together with descriptors, which stay open here.
 *
 * @param fd a UNIX socket
 * @param data at least one byte
 * @param fds up to {@linkcode MAX_MESSAGE_FDS} descriptors; they go with the first byte
 * @returns the number of bytes taken, which on a stream may be fewer than given, with all the
 * descriptors; -1 when a non-blocking socket takes nothing now (EAGAIN)
 * @throws {OsError} for example EPIPE
 */
export function sendMessage(
  fd: number,
  data: Uint8Array<ArrayBuffer>,
  fds: readonly number[] = [],
): number {
  if (data.length === 0) throw new RangeError("Cannot send a message without data");
  if (fds.length > MAX_MESSAGE_FDS) {
    throw new RangeError(
      `Cannot send ${fds.length} file descriptors in one message, at most ${MAX_MESSAGE_FDS}`,
    );
  }
  const controlLength = fds.length === 0 ? 0 : cmsghdr.size + 4 * fds.length;
  const message = new Message(data, controlLength);
  if (controlLength > 0) {
    cmsghdr.set(message.control, 0, {
      length: BigInt(controlLength),
      level: SOL_SOCKET,
      type: SCM_RIGHTS,
    });
    fds.forEach((sent, i) => message.control.setInt32(cmsghdr.size + 4 * i, sent, true));
  }
  const n = retry(() => libc.sendmsg(fd, message.header, MSG_NOSIGNAL));
  if (n === -1 && errno() !== Errno.EAGAIN) throw new OsError("sendmsg", errno(), `${fd}`);
  return n;
}

/**
 * Receives data and the descriptors that came with it.
 *
 * @param fd a UNIX socket
 * @param buffer where the data goes
 * @param maxFds how many descriptors are accepted
 * @returns undefined when a non-blocking socket has nothing now (EAGAIN)
 * @throws {OsError} when the call fails
 * @throws {RangeError} when more descriptors were sent than `maxFds`, or than this process may
 * open; those that did arrive are closed
 */
export function receiveMessage(
  fd: number,
  buffer: Uint8Array<ArrayBuffer>,
  maxFds: number,
): ReceivedMessage | undefined {
  if (buffer.length === 0) throw new RangeError("Cannot receive a message into an empty buffer");
  // No room for padding (CMSG_LEN, not CMSG_SPACE): the kernel would fill it with one fd more.
  const message = new Message(buffer, cmsghdr.size + 4 * maxFds);
  const length = retry(() => libc.recvmsg(fd, message.header, MSG_CMSG_CLOEXEC));
  if (length === -1 && errno() === Errno.EAGAIN) return undefined;
  check(length, "recvmsg", `${fd}`);
  const { flags, controlLength } = message.view;
  const fds = receivedFds(message.control, Number(controlLength));
  if (flags & MSG_CTRUNC) {
    for (const received of fds) received.close();
    throw new RangeError(`Message carries more file descriptors than the ${maxFds} expected`);
  }
  return { length, fds, truncated: (flags & MSG_TRUNC) !== 0 };
}

/** Takes over the descriptors of every control message: any that were left would leak. */
function receivedFds(control: DataView<ArrayBuffer>, length: number): OwnedFd[] {
  const fds: OwnedFd[] = [];
  for (let at = 0; at + cmsghdr.size <= length;) {
    const header = cmsghdr.get(control, at);
    const size = Number(header.length);
    if (size < cmsghdr.size || at + size > length) break;
    if (header.level === SOL_SOCKET && header.type === SCM_RIGHTS) {
      for (let i = at + cmsghdr.size; i + 4 <= at + size; i += 4) {
        fds.push(new OwnedFd(control.getInt32(i, true)));
      }
    }
    at += Math.ceil(size / 8) * 8;
  }
  return fds;
}
