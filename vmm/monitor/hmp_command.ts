/**
 * HMP commands: their parameters, and the grammar of a command line.
 *
 * @module
 */
import type { CommandContext, DumpFormat } from "./context.ts";
import type { Awaitable } from "./control.ts";

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

/** The arguments that a command with these parameters gets. */
export type HmpArguments<P extends readonly HmpParameter[]> = {
  readonly [K in P[number] as K["name"]]: K extends { readonly optional: true }
    ? HmpValues[K["type"]] | undefined
    : HmpValues[K["type"]];
};

/** Runs an HMP command; returns the text to print, if any, lines ending in `\n`. */
export type HmpRun<P extends readonly HmpParameter[]> = (
  context: CommandContext,
  args: HmpArguments<P>,
) => Awaitable<string | void>;

/** What {@linkcode defineHmp} takes. */
export interface HmpDefinition<P extends readonly HmpParameter[]> {
  /** First name. */
  readonly name: string;
  /** Other names. */
  readonly aliases?: readonly string[];
  /** In the order typed. */
  readonly parameters?: P;
  /** The parameters as help shows them. */
  readonly usage?: string;
  /** What it does. */
  readonly help: string;
  /** Does the work. */
  readonly run: HmpRun<P>;
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

/** Makes an HMP command; the argument types come from the parameters. */
export function defineHmp<const P extends readonly HmpParameter[] = []>(
  definition: HmpDefinition<P>,
): HmpCommand {
  const { name, aliases = [], parameters = [], usage = "", help } = definition;
  return {
    name,
    aliases,
    parameters,
    usage,
    help,
    run: (context, args) => definition.run(context, args as HmpArguments<P>),
  };
}

/** All names of a command, as its help and its messages show them: `cont|c`. */
export function hmpNames(command: HmpCommand): string {
  return [command.name, ...command.aliases].join("|");
}

/** One line of help: names, parameters, explanation. */
export function hmpHelp(command: HmpCommand, prefix = ""): string {
  return `${prefix}${hmpNames(command)} ${command.usage} -- ${command.help}\n`;
}
