/**
 * HMP commands: their declarations, and their help.
 *
 * @module
 */
import type { CommandContext, HmpCommand, HmpParameter, HmpValues } from "./context.ts";
import type { Awaitable } from "./control.ts";

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
