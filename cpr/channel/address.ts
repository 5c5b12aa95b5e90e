/**
 * Where migration data goes: QAPI's MigrationAddress, from a URI, from JSON or from dotted keys.
 *
 * @module
 */
import { parseSize } from "../../vmm/options/values.ts";

/** A UNIX socket. */
export interface UnixAddress {
  readonly transport: "socket";
  readonly type: "unix";
  readonly path: string;
}

/** A TCP socket. */
export interface InetAddress {
  readonly transport: "socket";
  readonly type: "inet";
  readonly host: string;
  readonly port: string;
}

/** A file descriptor: a name given by `getfd`, or on the command line a number. */
export interface FdAddress {
  readonly transport: "socket";
  readonly type: "fd";
  readonly str: string;
}

/** A file, from an offset on. */
export interface FileAddress {
  readonly transport: "file";
  readonly filename: string;
  /** Bytes. */
  readonly offset: number;
}

/** A command's standard input or output. */
export interface ExecAddress {
  readonly transport: "exec";
  readonly args: readonly string[];
}

/** QAPI MigrationAddress. */
export type MigrationAddress =
  | UnixAddress
  | InetAddress
  | FdAddress
  | FileAddress
  | ExecAddress;

/** QAPI MigrationChannel. */
export interface MigrationChannel {
  readonly "channel-type": "main" | "cpr";
  readonly addr: MigrationAddress;
}

/**
 * Parses a migration URI.
 *
 * @throws {Error} in QEMU's words
 */
export function parseUri(uri: string): MigrationAddress {
  const rest = (prefix: string) => uri.startsWith(prefix) ? uri.slice(prefix.length) : undefined;
  const unix = rest("unix:");
  if (unix !== undefined) {
    if (unix === "") throw new Error("invalid Unix socket address");
    return { transport: "socket", type: "unix", path: unix };
  }
  const tcp = rest("tcp:");
  if (tcp !== undefined) return parseInet(tcp);
  const fd = rest("fd:");
  if (fd !== undefined) return { transport: "socket", type: "fd", str: fd };
  const command = rest("exec:");
  if (command !== undefined) return { transport: "exec", args: ["/bin/sh", "-c", command] };
  const file = rest("file:");
  if (file !== undefined) return parseFile(file);
  throw new Error(`unknown migration protocol: ${uri}`);
}

function parseInet(text: string): InetAddress {
  const match = /^(\[[^\]]*\]|[^:]*):([^,:]+)(,.*)?$/.exec(text);
  if (!match) throw new Error(`error parsing address '${text}'`);
  const host = match[1].replace(/^\[(.*)\]$/, "$1");
  return { transport: "socket", type: "inet", host, port: match[2] };
}

const OFFSET = ",offset=";

function parseFile(text: string): FileAddress {
  const at = text.indexOf(OFFSET);
  if (at === -1) return { transport: "file", filename: text, offset: 0 };
  const value = text.slice(at + OFFSET.length);
  try {
    return { transport: "file", filename: text.slice(0, at), offset: parseSize(value) };
  } catch (cause) {
    throw new Error(`file URI has bad offset ${value}`, { cause });
  }
}

/** An address as a URI or, where there is none, as QEMU's messages name it. */
export function describeAddress(address: MigrationAddress): string {
  switch (address.transport) {
    case "file":
      return address.filename;
    case "exec":
      return address.args.join(" ");
    case "socket":
      if (address.type === "unix") return address.path;
      return address.type === "inet" ? `${address.host}:${address.port}` : address.str;
  }
}
