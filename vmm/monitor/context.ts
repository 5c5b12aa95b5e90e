/**
 * What a command is, and what it is called with.
 *
 * @module
 */
import type { z } from "zod";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Awaitable, MachineControl } from "./control.ts";
import type { JsonObject, JsonValue } from "./json_value.ts";

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

/** One parameter of an HMP command, in the order typed. */
export interface HmpParameter {
  /** Name of the argument. */
  readonly name: string;
  /**
   * `string`: a word, or text in double quotes. `filename`: the same with a message of its own.
   * `rest`: all that is left of the line. `int`: a 32-bit expression. `long`: a 64-bit expression.
   * `boolean`: on or off. `flag`: `-x`, where x is `letter`. `format`: `/fmt`, for `x` and `print`.
   */
  readonly type: keyof HmpValues;
  /** Whether the line may end before it. */
  readonly optional?: boolean;
  /** The letter of a flag. */
  readonly letter?: string;
}

/** Values of parameters, by type. */
export interface HmpValues {
  /** A word or quoted text. */
  string: string;
  /** The same. */
  filename: string;
  /** Text to the end of the line. */
  rest: string;
  /** From 0 to 2^32 - 1. */
  int: number;
  /** Signed, 64 bits. */
  long: bigint;
  /** Whether on. */
  boolean: boolean;
  /** Whether given. */
  flag: boolean;
  /** How to show values, and how many. */
  format: DumpFormat & { readonly count: number };
}

/** An HMP command, or one of `info`'s. */
export interface HmpCommand {
  /** First name. */
  readonly name: string;
  /** Other names. */
  readonly aliases: readonly string[];
  /** In the order typed. */
  readonly parameters: readonly HmpParameter[];
  /** The parameters as help shows them. */
  readonly usage: string;
  /** What it does. */
  readonly help: string;
  /** Runs the command with arguments that its parameters have produced. */
  run(context: CommandContext, args: Record<string, unknown>): Awaitable<string | void>;
}

/** A command's arguments and result; absent means none. */
export interface CommandSchema {
  /** An object schema. */
  readonly args?: z.ZodType;
  /** Any schema. */
  readonly returns?: z.ZodType;
}

/** A command of the table. */
export interface Command {
  /** QMP name. */
  readonly name: string;
  /** One line. */
  readonly help: string;
  /** The command as HMP has it. */
  readonly hmp?: HmpCommand;
  /** Loads the schemas. */
  schema(): Promise<CommandSchema>;
  /**
   * Checks the arguments and runs the handler.
   *
   * @throws {QmpError} with QEMU's words if an argument is wrong; what the handler throws
   */
  execute(context: CommandContext, args: JsonObject): Promise<JsonValue>;
}

/** Data schemas of events, by name; undefined for an event without data. */
export type EventSchemas = Readonly<Record<string, z.ZodType | undefined>>;

/** All commands, for those that tell of them or use them. */
export interface CommandSet {
  /** QMP commands by name, sorted. */
  readonly commands: readonly Command[];
  /** HMP commands, sorted. */
  readonly hmpCommands: readonly HmpCommand[];
  /** Sub-commands of `info`, sorted. */
  readonly infoCommands: readonly HmpCommand[];
  /** Every name under which HMP knows a command, sorted. */
  readonly hmpNames: readonly string[];
  /** An HMP command by any of its names. */
  hmpCommand(name: string): HmpCommand | undefined;
  /** A sub-command of `info`. */
  infoCommand(name: string): HmpCommand | undefined;
  /** Loads the schemas of all declared events. */
  events(): Promise<EventSchemas>;
  /**
   * Executes a QMP command.
   *
   * @throws {QmpError} if there is no such command or an argument is wrong; what the handler throws
   */
  execute(context: CommandContext, name: string, args?: JsonObject): Promise<JsonValue>;
}

/** What a command's handler is called with. */
export interface CommandContext {
  /** The VM. */
  readonly machine: MachineControl;
  /** All commands. */
  readonly table: CommandSet;
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
