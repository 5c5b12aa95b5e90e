/**
 * Opens character backends from their configuration.
 *
 * @module
 */
import { awaitReader, type OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { awaitTcp } from "../../ffi/socket.ts";
import { resolveHost } from "../../ffi/socket_address.ts";
import type { CharacterBackend, KeptChardev } from "./backend.ts";
import type { ChardevConfig } from "./config.ts";
import { FileBackend } from "./file.ts";
import { Mux } from "./mux.ts";
import { NullBackend } from "./null.ts";
import { PipeBackend } from "./pipe.ts";
import { PtyBackend } from "./pty.ts";
import type { TerminationSignal } from "./raw_terminal.ts";
import { SocketBackend } from "./socket.ts";
import { StdioBackend } from "./stdio.ts";
import type { StreamBackend } from "./stream_backend.ts";

/** What backends ask of the rest of the VMM. */
export interface ChardevHost {
  /**
   * A line for the user: where a pseudo-terminal is (QEMU prints it to stdout), or for which client
   * the VMM is waiting (stderr).
   */
  notice(text: string, kind: "redirected" | "waiting"): void;
  /** The user typed C-a x. */
  quit(): void;
  /**
   * A signal asks the process to end while the terminal is raw; the backend must be closed before
   * it does. Without this function the terminal is put back and the process dies of the signal.
   */
  terminate?(signal: TerminationSignal): void;
}

/**
 * Replaces a host name by its address, IPv4 if it has one; other configurations stay as they are.
 * To be called before {@linkcode openChardev}, which takes addresses only. A FIFO that output goes to
 * has a reader afterwards.
 *
 * @param abort ends the wait: it rejects then
 * @throws {Error} in QEMU's words
 */
export async function resolveChardev(
  config: ChardevConfig,
  abort?: AbortSignal,
): Promise<ChardevConfig> {
  if (config.backend === "file") await awaitReader(config.path, abort);
  if (config.backend !== "socket" || config.family !== "tcp") return config;
  if (config.server && config.host === "") return config;
  const [host] = await resolveHost(config.host, config.port);
  return { ...config, host };
}

/**
 * Connects a client over TCP, which may take long.
 *
 * @param config a configuration with an address
 * @returns the connection for {@linkcode openChardev}; undefined for other backends
 * @throws {Error} in QEMU's words
 */
export async function connectChardev(
  config: ChardevConfig,
  reactor: Reactor,
  abort?: AbortSignal,
): Promise<OwnedFd | undefined> {
  if (config.backend !== "socket" || config.family !== "tcp") return undefined;
  if (config.server || config.reconnectMs) return undefined;
  return await awaitTcp(config.host, config.port, reactor, abort);
}

/**
 * Opens a backend, or goes on with one that a predecessor had open. In that case nothing is read or
 * accepted before a frontend is attached, so that a predecessor which carries on after all has
 * missed nothing; a successor that gives up calls `release()`.
 *
 * @param config the configuration, the same as the predecessor's
 * @param host the rest of the VMM
 * @param kept the predecessor's descriptors, which the backend owns from now on, and state
 * @param connection what {@linkcode connectChardev} gave, which the backend owns from now on
 * @throws {Error} in QEMU's words; all kept descriptors are closed
 */
export function openChardev(
  config: ChardevConfig,
  host: ChardevHost,
  kept?: KeptChardev,
  connection?: OwnedFd,
): CharacterBackend {
  const own = config.mux ? { ...config, id: `${config.id}-base` } : config;
  const base = openBase(own, host, kept, connection);
  if (base instanceof PtyBackend && !kept) {
    host.notice(`char device redirected to ${base.path} (label ${config.id})`, "redirected");
  }
  if (!config.mux) return base;
  return new Mux(base, { label: config.id, escape: config.escape }, () => host.quit(), kept?.state);
}

/**
 * Waits for the first client of a server with `wait=on`; for other backends there is nothing to
 * wait for.
 *
 * @param abort ends the wait: it rejects then
 * @throws {Error} when the backend is closed meanwhile
 */
export async function waitForClient(
  backend: CharacterBackend,
  reactor: Reactor,
  host: ChardevHost,
  abort?: AbortSignal,
): Promise<void> {
  const base = backend instanceof Mux ? backend.base : backend;
  if (!(base instanceof SocketBackend && base.wantsClient)) return;
  host.notice(`info: QEMU waiting for connection on: ${base.filename}`, "waiting");
  await base.waitForClient(reactor, abort);
}

function openBase(
  config: ChardevConfig,
  host: ChardevHost,
  kept: KeptChardev | undefined,
  connection: OwnedFd | undefined,
): StreamBackend {
  switch (config.backend) {
    case "null":
      return new NullBackend(config, kept);
    case "stdio":
      return new StdioBackend(config, kept, host.terminate?.bind(host));
    case "file":
      return new FileBackend(config, kept);
    case "pipe":
      return new PipeBackend(config, kept);
    case "pty":
      return new PtyBackend(config, kept);
    case "socket":
    case "fd":
      return new SocketBackend(config, kept, connection);
  }
}
