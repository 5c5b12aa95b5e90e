/**
 * Opens migration channels: files, sockets, commands.
 *
 * @module
 */
import { duplicate, makePipe, type OwnedFd, setNonblocking } from "../../ffi/fd.ts";
import { spawn } from "../../ffi/process.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { awaitTcp, connectUnix, listenTcp, listenUnix, refuseBoundPath } from "../../ffi/socket.ts";
import { resolveHost } from "../../ffi/socket_address.ts";
import type { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import { describeAddress, type MigrationAddress } from "./address.ts";
import { Channel } from "./channel.ts";
import { inWords } from "./errors.ts";
import { createStateFile, readStateFile } from "./state_file.ts";

/** Whether failing to open it is known at once, so that `migrate` itself can say so. */
export function opensAtOnce(address: MigrationAddress): boolean {
  return address.transport !== "socket" || address.type === "fd";
}

/** How to wait for what is outside. */
export interface Waiting {
  readonly reactor: Reactor;
  /** Ends the wait. */
  readonly abort: AbortSignal;
}

/**
 * Opens a channel to write to.
 *
 * @param address where
 * @param fds the descriptors that `getfd` named
 * @throws {Error} in QEMU's words
 */
export async function openOutgoing(
  address: MigrationAddress,
  fds: FdRegistry,
  waiting: Waiting,
): Promise<Channel> {
  switch (address.transport) {
    case "file":
      return new Channel(createStateFile(address, fds), { file: address.filename });
    case "exec": {
      const [reader, writer] = makePipe();
      using stdin = reader;
      return new Channel(writer, { child: spawn(address.args, { fds: [[stdin.fd, 0]] }) });
    }
    case "socket":
      return new Channel(await connectSocket(address, fds, waiting));
  }
}

async function connectSocket(
  address: MigrationAddress & { transport: "socket" },
  fds: FdRegistry,
  waiting: Waiting,
): Promise<OwnedFd> {
  switch (address.type) {
    case "unix":
      return connectUnixNow(address.path);
    case "inet": {
      const port = parsePort(address.port, address.host);
      const [host] = await resolveHost(address.host || "localhost", port);
      const socket = await awaitTcp(host, port, waiting.reactor, waiting.abort);
      setNonblocking(socket.fd, false);
      return socket;
    }
    case "fd":
      checkNamed(address, fds);
      return fds.take(address.str)!;
  }
}

/**
 * Connects to a UNIX socket, without waiting for who listens but does not accept.
 *
 * @throws {Error} in QEMU's words
 */
export function connectUnixNow(path: string): OwnedFd {
  const socket = connectUnix(path, { nonblocking: true });
  setNonblocking(socket.fd, false);
  return socket;
}

/**
 * Refuses an address of type fd whose descriptor nobody has passed.
 *
 * @throws {Error} in QEMU's words
 */
export function checkNamed(address: MigrationAddress, fds: FdRegistry): void {
  if (address.transport !== "socket" || address.type !== "fd" || fds.named.has(address.str)) return;
  throw new Error(`File descriptor named '${address.str}' has not been found`);
}

function parsePort(port: string, host: string): number {
  const number = Number(port);
  if (/^\d+$/.test(port) && number <= 65535) return number;
  throw new Error(
    `address resolution failed for ${host}:${port}: Servname not supported for ai_socktype`,
  );
}

/** A source of incoming data: open already, or a socket on which it will come. */
export type IncomingEnd =
  | { readonly kind: "open"; readonly channel: Channel }
  | { readonly kind: "listener"; readonly listener: OwnedFd };

/**
 * Opens a channel to read from, or a listener on which one will come.
 *
 * @throws {Error} in QEMU's words
 */
export async function openIncoming(
  address: MigrationAddress,
  fds: FdRegistry,
): Promise<IncomingEnd> {
  switch (address.transport) {
    case "file":
      return {
        kind: "open",
        channel: new Channel(readStateFile(address, fds), { file: address.filename }),
      };
    case "exec": {
      const [reader, writer] = makePipe();
      using stdout = writer;
      const child = spawn(address.args, { fds: [[stdout.fd, 1]] });
      return { kind: "open", channel: new Channel(reader, { child }) };
    }
    case "socket":
      break;
  }
  if (address.type === "unix") {
    refuseBoundPath(address.path);
    return { kind: "listener", listener: listenUnix(address.path) };
  }
  if (address.type === "inet") {
    const port = parsePort(address.port, address.host);
    const [host] = address.host === "" || address.host === "0"
      ? ["0.0.0.0"]
      : await resolveHost(address.host, port);
    return { kind: "listener", listener: listenTcp(host, port) };
  }
  const fd = fds.take(address.str) ?? inheritedFd(address.str);
  return { kind: "open", channel: new Channel(fd) };
}

/** `fd:N` on the command line: a descriptor that the process was started with. */
function inheritedFd(text: string): OwnedFd {
  const number = Number(text);
  if (!/^\d+$/.test(text)) throw new Error(`File descriptor named '${text}' has not been found`);
  try {
    return duplicate(number);
  } catch (error) {
    throw inWords(
      error,
      `Cannot use file descriptor ${
        describeAddress({ transport: "socket", type: "fd", str: text })
      }`,
    );
  }
}
