/**
 * Where sockets are: struct sockaddr of UNIX and IP, as text and back.
 *
 * @module
 */
import { check } from "./errno.ts";
import { cstring, libc } from "./libc.ts";
import { bytes, struct, u16, u32 } from "./struct.ts";
import { decodeText } from "./text.ts";

// linux/socket.h
export const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;

const UNIX_PATH_MAX = 108;
const sockaddrUn = struct("sockaddr_un", { family: u16, path: bytes(UNIX_PATH_MAX) });
const sockaddrIn = struct("sockaddr_in", {
  family: u16,
  port: bytes(2),
  address: bytes(4),
  zero: bytes(8),
});
const sockaddrIn6 = struct("sockaddr_in6", {
  family: u16,
  port: bytes(2),
  flowinfo: u32,
  address: bytes(16),
  scope: u32,
});

/** Where a socket is bound or connected to. */
export type SocketAddress =
  /** The path is empty for a socket without a name. */
  | { readonly type: "unix"; readonly path: string }
  /** The host is an IPv4 or IPv6 literal. */
  | { readonly type: "inet"; readonly host: string; readonly port: number };

/** A path that does not fit into struct sockaddr_un. */
export class UnixPathError extends RangeError {
  /** The class's name. */
  override readonly name = "UnixPathError";
  /** The line that QEMU prints below the message. */
  readonly hint = `Path must be less than ${UNIX_PATH_MAX} bytes`;

  /**
   * Makes the error.
   *
   * @param path the path that is too long
   */
  constructor(path: string) {
    super(`UNIX socket path '${path}' is too long`);
  }
}

/** A struct sockaddr_un. @throws {UnixPathError} */
export function unixAddress(path: string): Uint8Array<ArrayBuffer> {
  const name = cstring(path);
  if (name.length > UNIX_PATH_MAX) {
    throw new UnixPathError(path);
  }
  const { bytes, view } = sockaddrUn.alloc({ family: AF_UNIX });
  view.path.set(name);
  return bytes;
}

/** The address family and the bytes of an IP address; undefined for other text. */
function parseIp(host: string): { family: number; number: Uint8Array } | undefined {
  const text = cstring(host);
  const number = new Uint8Array(16);
  if (libc.inet_pton(AF_INET, text, number) === 1) {
    return { family: AF_INET, number: number.subarray(0, 4) };
  }
  return libc.inet_pton(AF_INET6, text, number) === 1 ? { family: AF_INET6, number } : undefined;
}

/** A struct sockaddr_in or sockaddr_in6, from a literal. */
export function inetAddress(
  host: string,
  port: number,
): { family: number; address: Uint8Array<ArrayBuffer> } {
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw new RangeError(`Port ${port} is not between 0 and 65535`);
  }
  const ip = parseIp(host);
  if (!ip) throw new TypeError(`Host '${host}' is not an IP address`);
  const { bytes, view } = (ip.family === AF_INET6 ? sockaddrIn6 : sockaddrIn).alloc({
    family: ip.family,
    port: new Uint8Array([port >> 8, port & 0xff]),
    address: ip.number,
  });
  return { family: view.family, address: bytes };
}

/**
 * Resolves a host name to IPv4 and IPv6 literals, IPv4 first. A literal stands for itself.
 *
 * @param port only named in the error
 * @throws {Error} in QEMU's words
 */
export async function resolveHost(host: string, port: number): Promise<string[]> {
  if (parseIp(host)) return [host];
  // Loaded only here: it costs milliseconds, and literals do without.
  const { lookup } = await import("node:dns/promises");
  // An empty name would resolve to this host.
  const found = host === "" ? [] : await lookup(host, { all: true, order: "ipv4first" }).catch(
    () => [],
  );
  if (found.length === 0) {
    throw new Error(`address resolution failed for ${host}:${port}: Name or service not known`);
  }
  return [...new Set(found.map((entry) => entry.address))];
}

/** The address that a socket is bound to; undefined for families other than UNIX and IP. */
export function localAddress(fd: number): SocketAddress | undefined {
  return readAddress(fd, libc.getsockname, "getsockname");
}

/** The address that a socket is connected to; undefined for families other than UNIX and IP. */
export function peerAddress(fd: number): SocketAddress | undefined {
  return readAddress(fd, libc.getpeername, "getpeername");
}

function readAddress(
  fd: number,
  call: typeof libc.getsockname,
  name: string,
): SocketAddress | undefined {
  const buffer = new Uint8Array(128); // struct sockaddr_storage
  const length = new Uint32Array([buffer.length]);
  check(call(fd, buffer, length), name, `${fd}`);
  const family = buffer[0] | buffer[1] << 8;
  if (family === AF_UNIX) {
    // An unnamed socket's address ends after the family; an abstract name starts with NUL.
    const path = buffer.subarray(2, Math.min(length[0], buffer.length));
    const end = path.indexOf(0);
    return {
      type: "unix",
      path: decodeText(end === -1 ? path : path.subarray(0, end)),
    };
  }
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const view = (family === AF_INET6 ? sockaddrIn6 : sockaddrIn).view(buffer.buffer);
  const text = new Uint8Array(46); // INET6_ADDRSTRLEN
  const host = libc.inet_ntop(family, Uint8Array.from(view.address), text, text.length)!;
  return {
    type: "inet",
    host: Deno.UnsafePointerView.getCString(host),
    port: view.port[0] << 8 | view.port[1],
  };
}
