/**
 * cpr-transfer, the old VMM's side: descriptors go over the cpr channel while the guest runs, the
 * state over the main channel while it is stopped.
 *
 * ```text
 * old                               new (blocked on its cpr socket)
 *  |--- descriptor table, fds ------->|   cpr channel
 *  |                                  |   builds the machine over the same RAM, opens its monitor
 *  |<-- end of the cpr connection ----|   "my main channel listens"
 *  |--- connects ---------------------|   main channel
 *  |<-- READY ------------------------|   "everything is ready, I wait for the state"
 *  |  stops the guest
 *  |  ownership: OLD -> HANDED_OVER
 *  |--- state stream ---------------->|   loads it
 *  |                                  |   ownership: HANDED_OVER -> NEW, runs the guest
 *  |<-- DONE -------------------------|
 * ```
 *
 * A successor that refuses answers `ERROR` and a text. Before HANDED_OVER any failure leaves the
 * guest running here; after it the swap back decides, so that exactly one side has the guest.
 *
 * @module
 */
import { Epoll, monotonicNs } from "../ffi/event.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import { connectUnix, setTimeouts } from "../ffi/socket.ts";
import { sendMessage } from "../ffi/socket_message.ts";
import type { Reactor } from "../ffi/reactor.ts";
import type { VirtualMachine } from "../vmm/virtual_machine.ts";
import type { Channel } from "./channel.ts";
import { collectFds, encodeFds, MAX_FDS } from "./fd_table.ts";
import type { Migration } from "./migration.ts";
import { Owner, type Ownership } from "./ownership.ts";
import { encodeStream } from "./stream.ts";
import { type GuestRun, stateSections } from "./vm_state.ts";

/** What the successor answers on the main channel. */
export const Answer = { READY: 0x52, DONE: 0x44, ERROR: 0x45 } as const;
/** The longest error text that is read. */
const MAX_ERROR = 4096;
/** Milliseconds for which a peer that is there may keep silent. */
export const PEER_LIMIT_MS = 10_000;

/**
 * Sends the descriptor table.
 *
 * @returns the cpr connection; its end says that the successor's main channel listens
 * @throws {Error} in QEMU's words
 */
export function sendDescriptors(vm: VirtualMachine, path: string, ownership: Ownership): OwnedFd {
  const table = collectFds(vm, ownership.fd);
  if (table.fds.length > MAX_FDS) {
    throw new Error(`Cannot pass ${table.fds.length} file descriptors, at most ${MAX_FDS}`);
  }
  const bytes = encodeStream(encodeFds(table, (entry) => table.fds.indexOf(entry)));
  const socket = connectUnix(path);
  try {
    setTimeouts(socket.fd, PEER_LIMIT_MS);
    let sent = sendMessage(socket.fd, bytes, table.fds.map((entry) => entry.fd));
    while (sent !== -1 && sent < bytes.length) {
      sent += sendMessage(socket.fd, bytes.subarray(sent));
    }
    if (sent === -1) throw new Error(`Successor on '${path}' does not read the descriptor table`);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** Waits on the event loop for input on a descriptor; rejects by `abort`. */
export function awaitInput(
  reactor: Reactor,
  fd: number,
  abort: AbortSignal,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const done = () => {
    reactor.remove(fd);
    abort.removeEventListener("abort", aborted);
  };
  const aborted = () => {
    done();
    reject(abort.reason);
  };
  if (abort.aborted) return Promise.reject(abort.reason);
  abort.addEventListener("abort", aborted);
  reactor.add(fd, Epoll.IN | Epoll.RDHUP, () => {
    done();
    resolve();
  });
  return promise;
}

/** Reads the successor's answer. @throws {Error} with its reason, or because it is gone */
export function readAnswer(channel: Channel, expected: number): void {
  const [answer] = channel.source(1);
  if (answer === expected) return;
  if (answer === undefined) throw new Error("The new VMM has closed the migration channel");
  if (answer !== Answer.ERROR) throw new Error(`The new VMM answered 0x${answer.toString(16)}`);
  const text = new TextDecoder().decode(channel.source(MAX_ERROR));
  throw new Error(text || "The new VMM refused");
}

/**
 * The pause, on the old side: from the guest's last instruction here to its state on the way.
 *
 * @throws {Error} if the state cannot be sent; the guest is stopped but still ours
 */
export function handOver(
  vm: VirtualMachine,
  migration: Migration,
  channel: Channel,
  ownership: Ownership,
): void {
  vm.events.hold();
  try {
    sendState(vm, migration, channel, ownership);
  } finally {
    vm.events.release();
  }
}

function sendState(
  vm: VirtualMachine,
  migration: Migration,
  channel: Channel,
  ownership: Ownership,
): void {
  const guest: GuestRun = { wasRunning: vm.running, stoppedNs: monotonicNs() };
  migration.times.stopped = performance.now();
  vm.pause("finish-migrate");
  migration.transferBegins();
  const bytes = encodeStream(stateSections(vm.machine, guest));
  // From here on only the winner of the next swap may run the guest.
  ownership.swap(Owner.OLD, Owner.HANDED_OVER);
  channel.sink(bytes);
  migration.transferred = bytes.length;
}
