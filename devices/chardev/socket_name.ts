/**
 * What `query-chardev` calls a socket.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { localAddress, peerAddress, type SocketAddress } from "../../ffi/socket_address.ts";

/** An address; `protocol` is what a TCP socket's begins with. */
export function nameOf(address: SocketAddress | undefined, protocol = "tcp"): string {
  if (address?.type !== "inet") return `unix:${address?.path ?? ""}`;
  return `${protocol}:${address.host}:${address.port}`;
}

/** Both ends of a connection. */
export function nameConnection(fd: number, server: boolean, protocol = "tcp"): string {
  const suffix = server ? ",server=on" : "";
  const local = localAddress(fd);
  if (local?.type !== "inet") return `${nameOf(local)}${suffix}`;
  return `${protocol}:${bracketed(local)}${suffix} <-> ${bracketed(peerOf(fd))}`;
}

function peerOf(fd: number): SocketAddress | undefined {
  try {
    return peerAddress(fd);
  } catch (error) {
    // The peer has gone already, which reading will tell.
    if (error instanceof OsError) return undefined;
    throw error;
  }
}

function bracketed(address: SocketAddress | undefined): string {
  if (address?.type !== "inet") return "";
  const { host, port } = address;
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
