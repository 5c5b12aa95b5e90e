/**
 * cpr-exec: the VMM saves the state, keeps its descriptors open and execs its successor in place.
 *
 * The successor finds the number of a memfd with the descriptor table in the environment variable
 * {@linkcode EXEC_STATE}, takes the descriptors over, and loads the state from the URI.
 *
 * @module
 */
import { OsError } from "../ffi/errno.ts";
import { isOpen, OwnedFd, seekFd, setCloexec, writeAll } from "../ffi/fd.ts";
import { fileStatus, readAt } from "../ffi/fd.ts";
import { makeMemfd } from "../ffi/memory.ts";
import { PreparedExec } from "../ffi/process.ts";
import type { VirtualMachine } from "../vmm/virtual_machine.ts";
import type { Channel } from "./channel.ts";
import { collectFds, decodeFds, encodeFds, type KeptFd, type ReceivedTable } from "./fd_table.ts";
import type { Migration } from "./migration.ts";
import { bufferSource, encodeStream, readSections, StateError } from "./stream.ts";
import { type GuestRun, stateSections } from "./vm_state.ts";

/** Names the descriptor of the state memfd to the new image. */
export const EXEC_STATE = "DENOVO_CPR_EXEC_STATE";
/** The largest descriptor table that is believed. */
const MAX_TABLE = 1 << 20;

/** A handover that is ready: all that can fail or takes time is done, the guest still runs. */
export class ExecHandover implements Disposable {
  readonly #fds: readonly KeptFd[];
  readonly #state: OwnedFd;
  readonly #exec: PreparedExec;

  /**
   * Prepares the table and the command.
   *
   * @param vm the VM
   * @param command `cpr-exec-command`
   */
  constructor(readonly vm: VirtualMachine, readonly command: readonly string[]) {
    const table = collectFds(vm);
    this.#fds = table.fds;
    this.#state = makeMemfd("denovo-cpr-exec", 0);
    writeAll(this.#state.fd, encodeStream(encodeFds(table, (entry) => entry.fd)));
    seekFd(this.#state.fd, 0);
    this.#exec = new PreparedExec(command, { [EXEC_STATE]: `${this.#state.fd}` });
  }

  /**
   * The pause's first half: saves the state and becomes the successor. Returns only by throwing,
   * and then everything is as it was, with the guest stopped.
   *
   * @throws {Error} when the state cannot be written or the command not be executed
   */
  run(migration: Migration, channel: Channel, guest: GuestRun): never {
    migration.transferBegins();
    const bytes = encodeStream(stateSections(this.vm.machine, guest));
    channel.sink(bytes);
    migration.transferred = bytes.length;
    channel.finish();
    migration.complete();
    this.#keep(true);
    try {
      this.#exec.exec();
    } catch (error) {
      this.#keep(false);
      const reason = error instanceof OsError ? error.reason : String(error);
      throw new Error(`execvp ${this.command[0]} failed: ${reason}`, { cause: error });
    }
  }

  /** Closes the state memfd. */
  [Symbol.dispose](): void {
    this.#state.close();
  }

  /** CLOEXEC goes last and comes back first: no other child may inherit the guest. */
  #keep(on: boolean): void {
    for (const { fd } of this.#fds) setCloexec(fd, !on);
    setCloexec(this.#state.fd, !on);
  }
}

/**
 * Takes over what the image before this one left, if this process comes from a cpr-exec. The
 * environment variable is gone afterwards.
 *
 * @returns undefined if it does not
 * @throws {StateError} if what was left makes no sense
 */
export function receiveExec(): ReceivedTable | undefined {
  const value = Deno.env.get(EXEC_STATE);
  if (value === undefined) return undefined;
  Deno.env.delete(EXEC_STATE);
  if (!/^\d{1,9}$/.test(value) || !isOpen(Number(value))) {
    throw new StateError(`${EXEC_STATE}=${value} names no open file descriptor`);
  }
  using state = adopt(Number(value));
  const { size } = fileStatus(state.fd);
  if (size > MAX_TABLE) throw new StateError(`Descriptor table of ${size} bytes is too large`);
  const bytes = new Uint8Array(size);
  readAt(state.fd, bytes, 0);
  const taken = new Set<number>([state.fd]);
  return decodeFds([...readSections(bufferSource(bytes))], (number) => {
    if (number <= 2 || taken.has(number) || !isOpen(number)) return undefined;
    taken.add(number);
    return adopt(number);
  });
}

/** Owns a descriptor that came over exec; from now on it does not survive another one. */
function adopt(number: number): OwnedFd {
  setCloexec(number, true);
  return new OwnedFd(number);
}
