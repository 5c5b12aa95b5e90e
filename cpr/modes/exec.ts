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
import { placement } from "../../vmm/threads/placement.ts";
import { PreparedExec } from "../../ffi/process.ts";
import type { Handover, Inheritance } from "../../vmm/inheritance.ts";
import type { MigrationAddress } from "../channel/address.ts";
import type { Channel } from "../channel/channel.ts";
import { openOutgoing } from "../channel/open.ts";
import type { Departure, Update } from "./departure.ts";
import { collectHandover, decodeHandover, encodeHandover } from "../handover/handover.ts";
import { AnchoredGuest } from "../handover/anchored_guest.ts";
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
/** There where an anchor runs the guest: the state is that of the devices alone then. */
const ANCHORED = "exec/anchored";

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
    ({ state: this.#state, exec: this.#exec } = prepareExec(this.#command));
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
    const state = this.#state!;
    writeAll(state.fd, encodeTable(vm.commandLine, handover, bytes));
    timeline.stamp("sent");
    keepOverExec(handover, state, true);
    try {
      ownership.swap(Owner.OLD, Owner.HANDED_OVER);
      timeline.stamp("exec");
      this.#exec!.exec();
    } catch (error) {
      keepOverExec(handover, state, false);
      throw execFailure(this.#command, error);
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
}

/** Makes what an exec needs: a memfd for the descriptor table, and the call. */
export function prepareExec(command: readonly string[]): { state: OwnedFd; exec: PreparedExec } {
  const state = makeMemfd("denovo-cpr-exec", 0);
  return { state, exec: new PreparedExec(command, { [EXEC_STATE]: `${state.fd}` }) };
}

/** CLOEXEC goes last and comes back first: no other child may inherit the guest. */
export function keepOverExec({ fds }: Handover, state: OwnedFd, on: boolean): void {
  for (const { fd } of fds) setCloexec(fd, !on);
  setCloexec(state.fd, !on);
}

/** Why a command was not executed. */
export function execFailure(command: readonly string[], error: unknown): Error {
  const reason = error instanceof OsError ? error.reason : String(error);
  return new Error(`execvp ${command[0]} failed: ${reason}`, { cause: error });
}

/**
 * The descriptor table of an exec, and what a new image needs to go back: the command line to exec, and
 * the state to give it.
 *
 * @param commandLine what makes a VM that takes the guest back
 * @param anchored where an anchor runs the guest: what is said of it
 */
export function encodeTable(
  commandLine: readonly string[],
  handover: Handover,
  state: Uint8Array<ArrayBuffer>,
  anchored?: AnchoredExec,
): Uint8Array<ArrayBuffer> {
  return encodeStream([
    ...encodeHandover(handover, (entry) => entry.fd),
    ...wayBackSections(commandLine, state),
    ...(anchored ? [jsonSection(ANCHORED, anchored)] : []),
  ]);
}

/** What a new image is told of a guest that an anchor runs. */
export interface AnchoredExec {
  /** Where the process may run; it begins off the guest's processors. */
  readonly processors: readonly number[];
}

function jsonSection(name: string, value: unknown): Section {
  const data = new TextEncoder().encode(JSON.stringify(value));
  return { name, id: "", version: 1, data };
}

function wayBackSections(command: readonly string[], state: Uint8Array<ArrayBuffer>): Section[] {
  return [jsonSection(COMMAND, command), { name: STATE, id: "", version: 1, data: state }];
}

/** What a new image finds. */
export interface ReceivedExec {
  readonly inheritance: Inheritance;
  /** The way back to the image before; gone once the guest has arrived. */
  readonly wayBack?: WayBack;
  /** In an image that was gone back to: why, and the guest's state. */
  readonly failure?: { readonly reason: string; readonly state: Uint8Array<ArrayBuffer> };
  /** The guest, where an anchor runs it. */
  readonly anchored?: AnchoredGuest;
}

/**
 * The way back to the image before: duplicates of all descriptors, the command line, the state. An
 * image that cannot take the guest execs its predecessor, which then goes on with it.
 */
export class WayBack implements Disposable {
  readonly #handover: Handover;
  readonly #spare: OwnedFd[] = [];
  readonly #sections: readonly Section[];
  readonly #command: readonly string[];
  #gone = false;

  /**
   * @param inheritance what was handed over, before anybody has taken it
   * @param command the predecessor's command line
   * @param sections those that a further image needs to know the same
   * @throws {OsError} if the process may not open as many files, and cannot go back either
   */
  constructor(inheritance: Inheritance, command: readonly string[], sections: readonly Section[]) {
    const { fds, values } = inheritance;
    this.#command = command;
    this.#sections = sections;
    this.#handover = {
      fds: fds.map((one) => ({ ...one, fd: this.#keep(one.fd, inheritance) })),
      values,
    };
  }

  /** Duplicates a descriptor; goes back at once, with what was handed over itself, if it cannot be. */
  #keep(fd: number, { fds, values }: Inheritance): number {
    try {
      const spare = duplicate(fd);
      this.#spare.push(spare);
      return spare.fd;
    } catch (error) {
      for (const spare of this.#spare) spare.close();
      this.#exec({ fds, values }, (error as Error).message);
      throw error;
    }
  }

  /**
   * Goes back. Returns only if there is no way back any more, or the exec fails.
   *
   * @param changed the state, if it is no longer what it was
   */
  go(reason: string, changed?: Uint8Array<ArrayBuffer>): void {
    if (!this.#gone) this.#exec(this.#handover, reason, changed);
  }

  /** @throws {OsError} if that cannot be done */
  #exec(handover: Handover, reason: string, changed?: Uint8Array<ArrayBuffer>): void {
    const failed = { name: FAILED, id: "", version: 1, data: new TextEncoder().encode(reason) };
    using state = makeMemfd("denovo-cpr-exec", 0);
    const table = encodeHandover(handover, (entry) => entry.fd);
    const own = this.#sections.map((one) =>
      one.name === STATE && changed ? { ...one, data: changed } : one
    );
    const sections = [...table, ...own, failed];
    writeAll(state.fd, encodeStream(sections));
    const exec = new PreparedExec(this.#command, { [EXEC_STATE]: `${state.fd}` });
    for (const { fd } of [state, ...handover.fds]) setCloexec(fd, false);
    exec.exec();
  }

  /** Does something, and goes back if that fails. @throws {Error} if there is no way back either */
  unless<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      this.go((error as Error).message);
      throw error;
    }
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
    sections.filter(({ name }) => ![COMMAND, STATE, FAILED, ANCHORED].includes(name)),
    (number) => {
      if (number <= 2 || taken.has(number) || !isOpen(number)) return undefined;
      taken.add(number);
      return adopt(number);
    },
    false,
  );
  const command = about.get(COMMAND);
  const saved = about.get(STATE);
  const failed = about.get(FAILED);
  const anchoring = about.get(ANCHORED);
  if (!command || !saved) throw new StateError("Descriptor table lacks the way back");
  const further = [command, saved, ...(anchoring ? [anchoring] : [])];
  // It duplicates all that is there: it comes before anything is taken.
  const wayBack = failed ? undefined : new WayBack(inheritance, parseCommand(command), further);
  const take = () => anchoring && takeAnchored(inheritance, anchoring, saved.data);
  const anchored = wayBack ? wayBack.unless(take) : take();
  if (!failed) return { inheritance, wayBack, anchored };
  const reason = new TextDecoder().decode(failed.data);
  return { inheritance, failure: { reason, state: saved.data }, anchored };
}

/** @throws {StateError} if what is said of the guest makes no sense */
function takeAnchored(
  inheritance: Inheritance,
  section: Section,
  state: Uint8Array<ArrayBuffer>,
): AnchoredGuest {
  const { processors } = Object(parseJson(section)) as Partial<AnchoredExec>;
  if (!Array.isArray(processors) || !processors.every(Number.isInteger)) {
    throw new StateError(`Section '${ANCHORED}' names no processors`);
  }
  placement.inherit(processors);
  return AnchoredGuest.takeOver(inheritance, state);
}

/** @throws {StateError} if it is none */
function parseJson({ name, data }: Section): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(data));
  } catch {
    throw new StateError(`Section '${name}' is not JSON`);
  }
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
