/**
 * cpr-exec: the VMM saves the state, keeps its descriptors open and execs its successor in place.
 *
 * The successor finds the number of a memfd with the descriptor table in the environment variable
 * {@linkcode EXEC_STATE}, takes the descriptors over, and loads the state from the URI.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import {
  duplicate,
  fileStatus,
  isOpen,
  OwnedFd,
  readAt,
  setCloexec,
  writeAll,
} from "../../ffi/fd.ts";
import { makeMemfd } from "../../ffi/memory.ts";
import { ownCommandLine } from "../../vmm/daemon.ts";
import { placement } from "../../vmm/threads/placement.ts";
import { PreparedExec } from "../../ffi/process.ts";
import type { Handover, Inheritance } from "../../vmm/inheritance.ts";
import type { MigrationAddress } from "../channel/address.ts";
import type { Channel } from "../channel/channel.ts";
import { openOutgoing } from "../channel/open.ts";
import type { Departure, Update } from "./departure.ts";
import { collectHandover, decodeHandover, encodeHandover } from "../handover/handover.ts";
import { Owner } from "../handover/ownership.ts";
import { LeavingRehearsal } from "../pause/rehearsal.ts";
import {
  bufferSource,
  encodeStream,
  readSections,
  type Section,
  StateError,
} from "../stream/stream.ts";
import type { VmImage } from "../state/vm_state.ts";

/** Names the descriptor of the state memfd to the new image. */
export const EXEC_STATE = "DENOVO_CPR_EXEC_STATE";
/** The largest descriptor table, with the state in it, that is believed. */
const MAX_TABLE = 32 << 20;
/** Sections that tell the way back: the command line before, the state, and why it was taken. */
const COMMAND = "exec/command";
const STATE = "exec/state";
const FAILED = "exec/failed";

/** One cpr-exec. */
export class ExecUpdate implements Update {
  readonly stopsFirst = true;
  readonly #departure: Departure;
  readonly #command: readonly string[];
  readonly #main: MigrationAddress;
  #channel: Channel | undefined;
  #image: VmImage | undefined;
  #state: OwnedFd | undefined;
  #exec: PreparedExec | undefined;

  /**
   * @param departure the VM that the guest leaves
   * @param command `cpr-exec-command`
   * @param main where the state goes
   */
  constructor(departure: Departure, command: readonly string[], main: MigrationAddress) {
    this.#departure = departure;
    this.#command = command;
    this.#main = main;
  }

  /** Opens the channel. The command has been asked whether it would take the guest. */
  async prepare(): Promise<void> {
    const { vm, fds } = this.#departure;
    this.#channel = await openOutgoing(this.#main, fds, this.#departure.waiting);
    this.#state = makeMemfd("denovo-cpr-exec", 0);
    this.#exec = new PreparedExec(this.#command, { [EXEC_STATE]: `${this.#state.fd}` });
    using rehearsal = new LeavingRehearsal(vm);
    rehearsal.begin();
    this.#image = rehearsal.image;
    this.#departure.ownership.timeline.stamp("rehearsed");
    placement.restore();
  }

  /** Saves the state and becomes the successor. */
  async run(): Promise<void> {
    await this.#departure.beforeSwitchover();
    this.#departure.migration.commit();
    this.#handOver();
  }

  /**
   * The pause's first half. Returns only by throwing, and then everything is as it was, with the
   * guest stopped.
   *
   * @throws {Error} when the state cannot be written or the command not be executed
   */
  #handOver(): void {
    const { vm, migration, ownership, guest } = this.#departure;
    const { timeline } = ownership;
    timeline.stamp("parked");
    migration.activate();
    migration.status = "device";
    const bytes = encodeStream([...this.#departure.constants(), ...this.#image!.save(guest)]);
    timeline.stamp("saved");
    this.#channel!.sink(bytes);
    migration.transferred = bytes.length;
    vm.blocks.letGo("not kept");
    this.#channel!.finishNow();
    migration.complete();
    const handover = collectHandover(vm, ownership, "same process");
    writeAll(
      this.#state!.fd,
      encodeStream([
        ...encodeHandover(handover, (entry) => entry.fd),
        ...wayBackSections(ownCommandLine(), bytes),
      ]),
    );
    timeline.stamp("sent");
    this.#keep(handover, true);
    try {
      ownership.swap(Owner.OLD, Owner.HANDED_OVER);
      timeline.stamp("exec");
      this.#exec!.exec();
    } catch (error) {
      this.#keep(handover, false);
      const reason = error instanceof OsError ? error.reason : String(error);
      throw new Error(`execvp ${this.#command[0]} failed: ${reason}`, { cause: error });
    }
  }

  /** Whoever still runs this code has not become another. */
  takeBack(): boolean {
    this.#departure.ownership.swap(Owner.HANDED_OVER, Owner.OLD);
    return true;
  }

  /** Closes what was for the successor. */
  [Symbol.dispose](): void {
    this.#channel?.[Symbol.dispose]();
    this.#state?.close();
  }

  /** CLOEXEC goes last and comes back first: no other child may inherit the guest. */
  #keep({ fds }: Handover, on: boolean): void {
    for (const { fd } of fds) setCloexec(fd, !on);
    setCloexec(this.#state!.fd, !on);
  }
}

/** What a new image needs to go back: the command line to exec, and the state to give it. */
function wayBackSections(command: readonly string[], state: Uint8Array<ArrayBuffer>): Section[] {
  const data = new TextEncoder().encode(JSON.stringify(command));
  return [
    { name: COMMAND, id: "", version: 1, data },
    { name: STATE, id: "", version: 1, data: state },
  ];
}

/** What a new image finds. */
export interface ReceivedExec {
  readonly inheritance: Inheritance;
  /** The way back to the image before; gone once the guest has arrived. */
  readonly wayBack?: WayBack;
  /** In an image that was gone back to: why, and the guest's state. */
  readonly failure?: { readonly reason: string; readonly state: Uint8Array<ArrayBuffer> };
}

/**
 * The way back to the image before: duplicates of all descriptors, the command line, the state. An
 * image that cannot take the guest execs its predecessor, which then goes on with it.
 */
export class WayBack implements Disposable {
  readonly #handover: Handover;
  readonly #spare: readonly OwnedFd[];
  readonly #sections: readonly Section[];
  readonly #command: readonly string[];
  #gone = false;

  /**
   * @param inheritance what was handed over, before anybody has taken it
   * @param command the predecessor's command line
   * @param sections those that a further image needs to know the same
   */
  constructor(
    { fds, values }: Inheritance,
    command: readonly string[],
    sections: readonly Section[],
  ) {
    this.#command = command;
    this.#sections = sections;
    this.#spare = fds.map(({ fd }) => duplicate(fd));
    this.#handover = { fds: fds.map((one, i) => ({ ...one, fd: this.#spare[i].fd })), values };
  }

  /** Goes back. Returns only if there is no way back any more, or the exec fails. */
  go(reason: string): void {
    if (this.#gone) return;
    const failed = { name: FAILED, id: "", version: 1, data: new TextEncoder().encode(reason) };
    using state = makeMemfd("denovo-cpr-exec", 0);
    const table = encodeHandover(this.#handover, (entry) => entry.fd);
    const sections = [...table, ...this.#sections, failed];
    writeAll(state.fd, encodeStream(sections));
    const exec = new PreparedExec(this.#command, { [EXEC_STATE]: `${state.fd}` });
    for (const { fd } of [state, ...this.#spare]) setCloexec(fd, false);
    exec.exec();
  }

  /** The guest has arrived: closes the duplicates. */
  [Symbol.dispose](): void {
    this.#gone = true;
    for (const fd of this.#spare) fd.close();
  }
}

/**
 * Takes over what the image before this one left, if this process comes from a cpr-exec. The
 * environment variable is gone afterwards.
 *
 * @returns undefined if it does not
 * @throws {StateError} if what was left makes no sense
 */
export function receiveExec(): ReceivedExec | undefined {
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
  const sections = [...readSections(bufferSource(bytes))];
  const about = new Map(sections.map((section) => [section.name, section]));
  const inheritance = decodeHandover(
    sections.filter(({ name }) => ![COMMAND, STATE, FAILED].includes(name)),
    (number) => {
      if (number <= 2 || taken.has(number) || !isOpen(number)) return undefined;
      taken.add(number);
      return adopt(number);
    },
    false,
  );
  const [command, saved, failed] = [about.get(COMMAND), about.get(STATE), about.get(FAILED)];
  if (!command || !saved) throw new StateError("Descriptor table lacks the way back");
  if (failed) {
    const reason = new TextDecoder().decode(failed.data);
    return { inheritance, failure: { reason, state: saved.data } };
  }
  return {
    inheritance,
    wayBack: new WayBack(inheritance, parseCommand(command), [command, saved]),
  };
}

/** A command line, the program first. @throws {StateError} if it is none */
function parseCommand({ data }: Section): string[] {
  let argv: unknown;
  try {
    argv = JSON.parse(new TextDecoder().decode(data));
  } catch {
    // Not JSON is no command either.
  }
  const valid = Array.isArray(argv) && argv.length > 0 && argv.every((a) => typeof a === "string");
  if (!valid) throw new StateError(`Section '${COMMAND}' is not a command line`);
  return argv as string[];
}

/** Owns a descriptor that came over exec; from now on it does not survive another one. */
function adopt(number: number): OwnedFd {
  setCloexec(number, true);
  return new OwnedFd(number);
}
