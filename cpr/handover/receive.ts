/**
 * The successor's side of the cpr channel: what the old VMM hands over before the machine is built.
 *
 * @module
 */
import {
  accept,
  isListening,
  listenUnix,
  peerCredentials,
  refuseBoundPath,
  setTimeouts,
} from "../../ffi/socket.ts";
import {
  findNamed,
  isOpen,
  OwnedFd,
  setCloexec,
  setNonblocking,
  unlinkNamed,
} from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { MAX_MESSAGE_FDS, receiveMessage } from "../../ffi/socket_message.ts";
import type { Inheritance } from "../../vmm/inheritance.ts";
import type { MigrationAddress } from "../channel/address.ts";
import { decodeHandover } from "./handover.ts";
import { type ByteSource, readSections, StateError } from "../stream/stream.ts";
import { awaitInput, PEER_LIMIT_MS } from "../channel/peer.ts";

const RECEIVE_BUFFER = 256 << 10;

/** What came over the cpr channel, and the connection whose end says "I listen". */
export interface ReceivedCpr {
  readonly inheritance: Inheritance;
  readonly connection: OwnedFd;
}

/**
 * Waits on the cpr socket for the old VMM and takes its descriptors.
 *
 * @param address a UNIX path, or the number of a listener that was opened by someone else
 * @param reactor waits without blocking the event loop
 * @param abort ends the wait
 * @throws {Error} in QEMU's words; {@linkcode StateError} if what came makes no sense
 */
export async function receiveCpr(
  address: MigrationAddress,
  reactor: Reactor,
  abort?: AbortSignal,
): Promise<ReceivedCpr> {
  const connection = await acceptOld(address, reactor, abort);
  try {
    // An old VMM sends at once; whoever is silent shall not keep a signal from ending the wait.
    const limit = AbortSignal.timeout(PEER_LIMIT_MS);
    await awaitInput(reactor, connection.fd, abort ? AbortSignal.any([abort, limit]) : limit);
  } catch {
    connection.close();
    throw abort?.aborted ? abort.reason : new StateError("Old VMM sent no descriptor table");
  }
  return receiveOver(connection);
}

/** Waits for the old VMM on the cpr socket, which is gone afterwards. */
async function acceptOld(
  address: MigrationAddress,
  reactor: Reactor,
  abort?: AbortSignal,
): Promise<OwnedFd> {
  using listener = openCprListener(address);
  using _name = nameOf(address);
  await awaitInput(reactor, listener.fd, abort);
  const connection = accept(listener.fd);
  if (!connection) throw new Error("cpr channel has no connection to accept");
  return connection;
}

/** Removes the file of a UNIX socket that listens, at the end of a `using` scope, as QEMU does. */
export function nameOf(address: MigrationAddress | undefined): Disposable {
  const isUnix = address?.transport === "socket" && address.type === "unix";
  const file = isUnix ? findNamed(address.path) : undefined;
  return { [Symbol.dispose]: () => file && unlinkNamed(file) };
}

/**
 * Takes an old VMM's descriptors from a connection.
 *
 * @param connection the connection, which is closed on failure
 * @throws {StateError} if what came makes no sense
 */
export function receiveOver(connection: OwnedFd): ReceivedCpr {
  try {
    const { uid } = peerCredentials(connection.fd);
    if (uid !== Deno.uid() && uid !== 0) {
      throw new StateError(`Peer of the cpr channel has uid ${uid}, expected ${Deno.uid()}`);
    }
    setTimeouts(connection.fd, PEER_LIMIT_MS);
    return { inheritance: receiveTable(connection.fd), connection };
  } catch (error) {
    connection.close();
    throw error;
  }
}

function openCprListener(address: MigrationAddress): OwnedFd {
  if (address.transport !== "socket" || (address.type !== "unix" && address.type !== "fd")) {
    throw new Error("bad cpr channel socket type; must be unix");
  }
  if (address.type === "unix") {
    refuseBoundPath(address.path);
    return listenUnix(address.path);
  }
  if (!/^\d+$/.test(address.str)) {
    throw new Error(`File descriptor named '${address.str}' has not been found`);
  }
  const number = Number(address.str);
  if (!isOpen(number) || !isListening(number)) {
    throw new Error(`File descriptor '${address.str}' is not a listening socket`);
  }
  // It is ours alone now: whoever connects after this update must not wait for an answer for ever.
  setCloexec(number, true);
  setNonblocking(number, false);
  return new OwnedFd(number);
}

/** The descriptors come with the first bytes; the rest of the table follows on the stream. */
function receiveTable(socket: number): Inheritance {
  const buffer = new Uint8Array(RECEIVE_BUFFER);
  const first = receiveMessage(socket, buffer, MAX_MESSAGE_FDS);
  if (!first) throw new StateError("Old VMM sent no descriptor table");
  const { fds } = first;
  try {
    let have = buffer.subarray(0, first.length);
    const source: ByteSource = (length) => {
      while (have.length < length) {
        const more = new Uint8Array(RECEIVE_BUFFER);
        const next = receiveMessage(socket, more, 0);
        if (!next || next.length === 0) break;
        const joined = new Uint8Array(have.length + next.length);
        joined.set(have);
        joined.set(more.subarray(0, next.length), have.length);
        have = joined;
      }
      const taken = have.slice(0, length);
      have = have.subarray(taken.length);
      return taken;
    };
    const taken = new Set<number>();
    const resolve = (number: number) => {
      if (taken.has(number)) return undefined;
      taken.add(number);
      return fds[number];
    };
    const inheritance = decodeHandover([...readSections(source)], resolve, true);
    if (taken.size !== fds.length) {
      throw new StateError(`Old VMM sent ${fds.length} file descriptors but named ${taken.size}`);
    }
    return inheritance;
  } catch (error) {
    for (const fd of fds) fd.close();
    throw error;
  }
}
