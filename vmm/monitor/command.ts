/**
 * One entry of the command table: a QMP command with its schemas, its handler, and its HMP face.
 *
 * Schemas are zod objects behind a dynamic import, since loading zod costs 7 to 15 ms that a VM about
 * to run its guest does not have: modules that define commands must import zod's types only.
 *
 * @module
 */
import type { z } from "zod";
import type { Command, CommandContext, CommandSchema, HmpParameter } from "./context.ts";
import type { Awaitable, RunState } from "./control.ts";
import { notPermitted } from "./errors.ts";
import { defineHmp, type HmpRun } from "./hmp_command.ts";
import type { JsonObject, JsonValue } from "./json_value.ts";
import { parseArguments } from "./validate.ts";

/** The arguments that a handler gets. */
export type CommandArguments<S extends CommandSchema> = S extends
  { readonly args: infer A extends z.ZodType } ? z.output<A> : Record<never, never>;

/** What a handler returns. */
export type CommandResult<S extends CommandSchema> = S extends
  { readonly returns: infer R extends z.ZodType } ? z.input<R> : void;

/** The HMP face of a command. */
export interface HmpFace<P extends readonly HmpParameter[]> {
  /** If it differs from the QMP name. */
  readonly name?: string;
  /** Other names. */
  readonly aliases?: readonly string[];
  /** In the order typed; the names are those of QMP's arguments, unless `run` is given. */
  readonly parameters?: P;
  /** The parameters as help shows them. */
  readonly usage?: string;
  /** If it differs from the command's help. */
  readonly help?: string;
  /** Without it, the QMP command is executed and nothing is printed. */
  readonly run?: HmpRun<P>;
}

/** What {@linkcode defineCommand} takes. */
export interface CommandDefinition<
  S extends CommandSchema,
  P extends readonly HmpParameter[],
> {
  /** QMP name. */
  readonly name: string;
  /** One line. */
  readonly help: string;
  /** Loads the schemas; without it the command has neither arguments nor a result. */
  readonly schema?: () => Promise<S>;
  /** Run states in which the command may be used; all if absent. */
  readonly allowedIn?: readonly RunState[];
  /** Without it the command is QMP only. */
  readonly hmp?: HmpFace<P>;
  /** Does the work; what it throws becomes the error reply. */
  handler(context: CommandContext, args: CommandArguments<S>): Awaitable<CommandResult<S>>;
}

/** Makes a table entry; the handler's types come from the schemas. */
export function defineCommand<
  S extends CommandSchema,
  const P extends readonly HmpParameter[] = [],
>(definition: CommandDefinition<S, P>): Command {
  const { name, help, allowedIn, hmp } = definition;
  const schema = async (): Promise<CommandSchema> => await definition.schema?.() ?? {};
  const execute = async (context: CommandContext, args: JsonObject): Promise<JsonValue> => {
    const { runState } = context.machine;
    if (allowedIn && !allowedIn.includes(runState)) {
      throw notPermitted(name, runState);
    }
    const parsed = parseArguments((await schema()).args, args) as CommandArguments<S>;
    return (await definition.handler(context, parsed) ?? {}) as JsonValue;
  };
  if (!hmp) return { name, help, schema, execute };
  const run: HmpRun<P> = hmp.run ?? (async (context, args) => {
    await execute(context, args as JsonObject);
  });
  return { name, help, schema, execute, hmp: defineHmp({ name, help, ...hmp, run }) };
}
