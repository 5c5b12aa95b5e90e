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
}

/** What a command's handler is called with. */
export interface CommandContext {
  readonly machine: MachineControl;
  readonly table: CommandTable;
  readonly session: MonitorSession;
}

/** The state of a new connection: the first vCPU, words in hexadecimal. */
export function newSession(takeFd: () => OwnedFd | undefined = () => undefined): MonitorSession {
  return { cpuIndex: 0, dumpFormat: { format: "x", size: 4 }, history: [], takeFd };
}
