/**
 * What the tests of socket backends share.
 *
 * @module
 */
import { openChardev } from "../../devices/chardev/open.ts";
import type { CharacterBackend, KeptChardev } from "../../devices/chardev/backend.ts";
import type { ChardevConfig, SocketEndpoint } from "../../devices/chardev/config.ts";
import { duplicate } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { Recorder, RecordingHost } from "./chardev_testing.ts";

/** The VMM around the backends. */
export const host = new RecordingHost();

/** A server on a UNIX socket. */
export function unixServer(path = `${Deno.makeTempDirSync()}/s`, wait = false): ChardevConfig {
  return { backend: "socket", id: "c", family: "unix", path, server: true, wait };
}

/** Runs a test with a server backend, its reactor and an attached recorder. */
export async function withServer(
  test: (
    path: string,
    frontend: Recorder,
    backend: CharacterBackend,
    reactor: Reactor,
  ) => Promise<void>,
): Promise<void> {
  const path = `${Deno.makeTempDirSync()}/s`;
  const reactor = new Reactor();
  const backend = openChardev(unixServer(path), host);
  const frontend = new Recorder();
  backend.attach(reactor, frontend);
  try {
    await test(path, frontend, backend, reactor);
  } finally {
    backend.close();
    await reactor.close();
  }
}

/** What a successor gets: duplicates of the descriptors, as if they had been sent to it. */
export function handOver(backend: CharacterBackend): KeptChardev {
  const fds = new Map(backend.keptFds().map(({ name, fd }) => [name, duplicate(fd)]));
  return { fds, state: JSON.parse(JSON.stringify(backend.saveState())) };
}

/** A client that connects again and again. */
export const reconnecting = (endpoint: SocketEndpoint): ChardevConfig => ({
  backend: "socket",
  id: "c",
  ...endpoint,
  server: false,
  wait: false,
  reconnectMs: 20,
});
