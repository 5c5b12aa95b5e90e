/**
 * What a command's handler is called with.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import type { CommandTable } from "./command_table.ts";
import type { MachineControl } from "./control.ts";

/** How `x` and `xp` show memory and `print` shows a value. */
export interface DumpFormat {
  /** Hexadecimal, octal, signed, unsigned, character. */
  readonly format: "x" | "o" | "d" | "u" | "c";
  /** Bytes an item. */
  readonly size: 1 | 2 | 4 | 8;
}

/** The state of one monitor connection that commands may use. */
export interface MonitorSession {
  /** The vCPU that `info registers`, `x` and others look at. */
  cpuIndex: number;
  /** The format last used: the next dump's default. */
  dumpFormat: DumpFormat;
  /** Lines typed so far, oldest first. */
  readonly history: readonly string[];
  /** The oldest descriptor that came by SCM_RIGHTS and has not been taken. */
  takeFd(): OwnedFd | undefined;
  /**
   * Puts off an action until the reply to the current command is written; the next command waits
   * until it has begun.
   */
  afterReply(action: () => unknown): void;
}

/** Actions that wait for a reply to be written. */
export class Deferred {
  #actions: (() => unknown)[] = [];

  /** Adds an action. */
  readonly add = (action: () => unknown): void => {
    this.#actions.push(action);
  };

  /** Begins all actions that wait. */
  run(): void {
    const actions = this.#actions;
    this.#actions = [];
    for (const action of actions) action();
  }
}

/** What a command's handler is called with. */
export interface CommandContext {
  /** The VM. */
  readonly machine: MachineControl;
  /** All commands. */
  readonly table: CommandTable;
  /** The connection that the command came by. */
  readonly session: MonitorSession;
}

/**
 * The state of a new connection: the first vCPU, words in hexadecimal.
 *
 * @param deferred what waits for replies; without it nothing waits
 * @param takeFd where passed descriptors come from
 */
export function newSession(
  deferred?: Deferred,
  takeFd: () => OwnedFd | undefined = () => undefined,
): MonitorSession {
  const afterReply = deferred?.add ?? ((action) => void action());
  return { cpuIndex: 0, dumpFormat: { format: "x", size: 4 }, history: [], takeFd, afterReply };
}
