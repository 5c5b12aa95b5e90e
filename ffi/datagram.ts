/**
 * Sockets for datagrams.
 *
 * @module
 */
import { check, describeErrno, errno } from "./errno.ts";
import { OwnedFd, unlinkFile } from "./fd.ts";
import { libc } from "./libc.ts";
import { inetAddress, unixAddress } from "./socket_address.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;

/**
 * Makes a UDP socket at an address, non-blocking.
 *
 * @param host an IPv4 or IPv6 literal
 * @throws {Error} in QEMU's words
 */
export function bindUdp(host: string, port: number): OwnedFd {
  const { family, address } = inetAddress(host, port);
  return bound(family, address, `${host}:${port}`, true);
}

/**
 * Makes a UNIX datagram socket, non-blocking. A file that is already there is removed first.
 *
 * @throws {Error} in QEMU's words
 */
export function bindUnixDatagram(path: string): OwnedFd {
  const address = unixAddress(path);
  unlinkFile(path);
  return bound(AF_UNIX, address, path, false);
}

/** The address of a UNIX socket, a struct sockaddr_un. */
export function unixDestination(path: string): Uint8Array<ArrayBuffer> {
  return unixAddress(path);
}

/** The address of an IP socket, a struct sockaddr_in or sockaddr_in6. */
export function udpDestination(host: string, port: number): Uint8Array<ArrayBuffer> {
  return inetAddress(host, port).address;
}

function bound(
  family: number,
  address: Uint8Array<ArrayBuffer>,
  name: string,
  reuse: boolean,
): OwnedFd {
  const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const socket = new OwnedFd(check(libc.socket(family, type, 0), "socket"));
  if (reuse) {
    const on = new Int32Array([1]);
    check(libc.setsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, on, 4), "setsockopt", name);
  }
  if (libc.bind(socket.fd, address, address.length) === 0) return socket;
  const reason = describeErrno(errno());
  socket.close();
  throw new Error(`can't bind ${reuse ? `ip=${name}` : `unix=${name}`} to socket: ${reason}`);
}
