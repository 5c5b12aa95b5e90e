/**
 * UNIX and TCP sockets. Every descriptor that is made here has CLOEXEC; writing to a socket whose
 * peer is gone is an error and no SIGPIPE. Messages that carry descriptors are in
 * `socket_message.ts`.
 *
 * @module
 */
import { check, describeErrno, Errno, errno, OsError, retry } from "./errno.ts";
import { Epoll } from "./event.ts";
import { fileStatus, OwnedFd, unlinkFile } from "./fd.ts";
import { libc } from "./libc.ts";
import type { Reactor } from "./reactor.ts";
import { AF_UNIX, inetAddress, unixAddress } from "./socket_address.ts";
import { i32, struct, u32 } from "./struct.ts";

// linux/socket.h, asm-generic/socket.h, linux/in.h, linux/tcp.h
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_TYPE = 3;
const SO_ERROR = 4;
const SO_RCVBUF = 8;
const SO_PEERCRED = 17;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const SO_ACCEPTCONN = 30;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const EPROTOTYPE = 91;
const EADDRINUSE = 98;
const ECONNABORTED = 103;

const ucred = struct("ucred", { pid: i32, uid: u32, gid: u32 });

/** How a socket carries data: as a stream of bytes, or as messages whose bounds are kept. */
export type SocketType = "stream" | "seqpacket";

const typeNumbers: Record<SocketType, number> = { stream: SOCK_STREAM, seqpacket: SOCK_SEQPACKET };

/** How a socket is made. */
export interface SocketOptions {
  /** UNIX sockets only; a stream unless given. */
  readonly type?: SocketType;
  /** Sets O_NONBLOCK; a connection to TCP may then still be under way. */
  readonly nonblocking?: boolean;
}

/** How a listening socket is made. */
export interface ListenOptions extends SocketOptions {
  /** How many clients may wait to be accepted; 16 unless given. */
  readonly backlog?: number;
}

/**
 * Refuses the path of a UNIX socket that a process has bound and not closed; the file of one that is
 * closed is no obstacle.
 *
 * @throws {Error} as if bind had said it
 */
export function refuseBoundPath(path: string): void {
  const address = unixAddress(path);
  // Nobody notices this attempt: a socket of another type is told from none by the error (unix(7)).
  using probe = new OwnedFd(check(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  const isBound = libc.connect(probe.fd, address, address.length) === 0 || errno() === EPROTOTYPE;
  if (isBound) throw new Error(`Failed to bind socket to ${path}: ${describeErrno(EADDRINUSE)}`);
}

/**
 * Listens on a UNIX socket. As QEMU does, a file that is already there is removed first, whoever
 * made it; see {@linkcode refuseBoundPath}.
 *
 * @throws {Error} in QEMU's words; `cause` is the {@linkcode OsError}
 */
export function listenUnix(path: string, options: ListenOptions = {}): OwnedFd {
  const address = unixAddress(path);
  try {
    unlinkFile(path);
  } catch (cause) {
    throw new Error(`Failed to unlink socket ${path}: ${(cause as OsError).reason}`, { cause });
  }
  return opened(makeSocket(AF_UNIX, options), (fd) => {
    if (libc.bind(fd, address, address.length) === -1) {
      fail(`Failed to bind socket to ${path}`, "bind", path);
    }
    if (libc.listen(fd, options.backlog ?? 16) === -1) {
      fail("Failed to listen on socket", "listen", path);
    }
  });
}

/**
 * Listens on a TCP socket; `::` takes IPv4 connections as well unless the system says otherwise.
 *
 * @param host an IPv4 or IPv6 literal; see `resolveHost` in `socket_address.ts`
 * @param port 0 lets the kernel choose one, which `localAddress` tells
 * @throws {Error} in QEMU's words; `cause` is the {@linkcode OsError}
 */
export function listenTcp(host: string, port: number, options: ListenOptions = {}): OwnedFd {
  const { family, address } = inetAddress(host, port);
  return opened(makeSocket(family, options), (fd) => {
    const on = new Int32Array([1]);
    check(libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, on, 4), "setsockopt", `${fd}`);
    const bound = libc.bind(fd, address, address.length) !== -1 &&
      libc.listen(fd, options.backlog ?? 16) !== -1;
    if (bound) return;
    const inUse = errno() === EADDRINUSE;
    fail(inUse ? "Failed to find an available port" : "Failed to bind socket", "bind", host);
  });
}

/**
 * Connects to a UNIX socket.
 *
 * @throws {Error} in QEMU's words; `cause` is the {@linkcode OsError}
 */
export function connectUnix(path: string, options: SocketOptions = {}): OwnedFd {
  const address = unixAddress(path);
  return opened(makeSocket(AF_UNIX, options), (fd) => connect(fd, address, path));
}

/**
 * Connects to a TCP socket. With `nonblocking` the connection is up once the descriptor is writable
 * and {@linkcode socketError} says 0.
 *
 * @param host an IPv4 or IPv6 literal; see `resolveHost` in `socket_address.ts`
 * @throws {Error} in QEMU's words; `cause` is the {@linkcode OsError}
 */
export function connectTcp(
  host: string,
  port: number,
  options: { readonly nonblocking?: boolean } = {},
): OwnedFd {
  const { family, address } = inetAddress(host, port);
  return opened(
    makeSocket(family, { nonblocking: options.nonblocking }),
    (fd) => connect(fd, address, `${host}:${port}`),
  );
}

/**
 * Connects to a TCP socket without keeping the thread: a host that does not answer takes minutes to be
 * given up.
 *
 * @param host an IPv4 or IPv6 literal
 * @param abort ends the wait: it rejects then
 * @returns the connection, non-blocking
 * @throws {Error} in QEMU's words
 */
export async function awaitTcp(
  host: string,
  port: number,
  reactor: Reactor,
  abort?: AbortSignal,
): Promise<OwnedFd> {
  const socket = connectTcp(host, port, { nonblocking: true });
  try {
    await reactor.ready(socket.fd, Epoll.OUT, abort);
    const error = socketError(socket.fd);
    if (error === 0) return socket;
    throw new Error(`Failed to connect to '${host}:${port}': ${describeErrno(error)}`);
  } catch (error) {
    socket.close();
    throw error;
  }
}

/**
 * Accepts a connection from a non-blocking listening socket.
 *
 * @returns undefined when none is waiting
 * @throws {OsError} for example when there are no descriptors left
 */
export function accept(
  fd: number,
  options: { readonly nonblocking?: boolean } = {},
): OwnedFd | undefined {
  const flags = SOCK_CLOEXEC | (options.nonblocking ? SOCK_NONBLOCK : 0);
  const connection = retry(() => libc.accept4(fd, 0, 0, flags));
  if (connection !== -1) return new OwnedFd(connection);
  // accept(2): a client that gave up while it waited is not an error of ours.
  if (errno() === Errno.EAGAIN || errno() === ECONNABORTED) return undefined;
  throw new OsError("accept4", errno(), `${fd}`);
}

/** Makes two connected UNIX sockets. */
export function socketPair(
  type: SocketType = "stream",
  options: { readonly nonblocking?: boolean } = {},
): [OwnedFd, OwnedFd] {
  const flags = typeNumbers[type] | SOCK_CLOEXEC | (options.nonblocking ? SOCK_NONBLOCK : 0);
  const fds = new Int32Array(2);
  check(libc.socketpair(AF_UNIX, flags, 0, fds), "socketpair");
  return [new OwnedFd(fds[0]), new OwnedFd(fds[1])];
}

/**
 * Sends what the socket takes without waiting, whether or not it is non-blocking.
 *
 * @returns the number of bytes taken, -1 when it takes none now (EAGAIN)
 * @throws {OsError} for example EPIPE
 */
export function sendNow(fd: number, data: Uint8Array<ArrayBuffer>): number {
  const n = retry(() => libc.send(fd, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL));
  if (n === -1 && errno() !== Errno.EAGAIN) throw new OsError("send", errno(), `${fd}`);
  return n;
}

/** Ends both directions of a connection; one that is already down is no error. */
export function shutdownSocket(fd: number): void {
  const SHUT_RDWR = 2;
  if (libc.shutdown(fd, SHUT_RDWR) === -1 && errno() !== Errno.ENOTCONN) {
    throw new OsError("shutdown", errno(), `${fd}`);
  }
}

/** A process at the other end of a UNIX socket, when it connected or listened. */
export interface PeerCredentials {
  /** Process id. */
  readonly pid: number;
  /** Effective user id. */
  readonly uid: number;
  /** Effective group id. */
  readonly gid: number;
}

/** Who is at the other end of a UNIX socket (SO_PEERCRED). */
export function peerCredentials(fd: number): PeerCredentials {
  const { bytes, view } = ucred.alloc();
  getOption(fd, SO_PEERCRED, bytes);
  return { pid: view.pid, uid: view.uid, gid: view.gid };
}

/** Takes the error that is pending on a socket: an errno, or 0. */
export function socketError(fd: number): number {
  return intOption(fd, SO_ERROR);
}

/** Makes room for as many bytes that were not read yet, as far as the system allows. */
export function setReceiveBuffer(fd: number, bytes: number): void {
  const value = new Int32Array([bytes]);
  check(libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, value, 4), "setsockopt", `${fd}`);
}

/** Whether a descriptor is a socket that listens. */
export function isListening(fd: number): boolean {
  return fileStatus(fd).kind === "socket" && intOption(fd, SO_ACCEPTCONN) === 1;
}

/** Whether a socket carries a stream of bytes, not messages. */
export function isStream(fd: number): boolean {
  return intOption(fd, SO_TYPE) === SOCK_STREAM;
}

function makeSocket(family: number, options: SocketOptions): OwnedFd {
  const type = typeNumbers[options.type ?? "stream"] | SOCK_CLOEXEC |
    (options.nonblocking ? SOCK_NONBLOCK : 0);
  return new OwnedFd(check(libc.socket(family, type, 0), "socket"));
}

/** Runs `setUp` on a new socket and closes it if that fails. */
function opened(socket: OwnedFd, setUp: (fd: number) => void): OwnedFd {
  try {
    setUp(socket.fd);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

function connect(fd: number, address: Uint8Array<ArrayBuffer>, name: string): void {
  if (retry(() => libc.connect(fd, address, address.length)) === -1) {
    if (errno() !== Errno.EINPROGRESS) fail(`Failed to connect to '${name}'`, "connect", name);
  }
}

/** Throws QEMU's words for a failed step, with the reason from errno. */
function fail(words: string, syscall: string, subject: string): never {
  const cause = new OsError(syscall, errno(), `'${subject}'`);
  throw new Error(`${words}: ${cause.reason}`, { cause });
}

function getOption(fd: number, option: number, value: BufferSource): void {
  const length = new Uint32Array([value.byteLength]);
  check(libc.getsockopt(fd, SOL_SOCKET, option, value, length), "getsockopt", `${fd}`);
}

function intOption(fd: number, option: number): number {
  const value = new Int32Array(1);
  getOption(fd, option, value);
  return value[0];
}

/** Makes blocking calls on a socket give up after a while, with EAGAIN. */
export function setTimeouts(fd: number, milliseconds: number): void {
  const timeval = new BigInt64Array([
    BigInt(Math.floor(milliseconds / 1000)),
    BigInt((milliseconds % 1000) * 1000),
  ]);
  const bytes = new Uint8Array(timeval.buffer);
  for (const option of [SO_RCVTIMEO, SO_SNDTIMEO]) {
    check(libc.setsockopt(fd, SOL_SOCKET, option, bytes, bytes.length), "setsockopt", `${fd}`);
  }
}
