/**
 * Executes one HMP command line: finds the command, reads its arguments, runs it.
 *
 * `human-monitor-command` and HMP sessions both come here, so both print the same.
 *
 * @module
 */
import type { CommandContext, CommandSet } from "./context.ts";
import { Deferred, newSession } from "./context.ts";
import type { MachineControl } from "./control.ts";
import { toQmpError } from "./errors.ts";
import { readExpression } from "./expression.ts";
import { hmpHelp, hmpNames } from "./hmp_command.ts";
import type { HmpCommand, HmpParameter } from "./context.ts";
import { HmpSyntaxError, LineReader } from "./line_reader.ts";

/** A command's name ends at white space, or at the format of `x/4gx`. */
const commandName = /[^\s/]*/y;

/** A command and the name that the user typed. */
interface Found {
  readonly command: HmpCommand;
  readonly typed: string;
}

/** What a prefix of a command line stands for: the names that its last word may become. */
export function completions(table: CommandSet, line: string): readonly string[] {
  const words = line.trimStart().split(/\s+/);
  const last = words.pop()!;
  // help's argument is itself a command line.
  if (words.length > 0 && ["help", "?"].includes(words[0])) words.shift();
  const isInfo = words.length === 1 && words[0] === "info";
  if (words.length > 0 && !isInfo) return [];
  const names = isInfo ? table.infoCommands.map(({ name }) => name) : table.hmpNames;
  return names.filter((name) => name.startsWith(last));
}

/** Help for a command line's command, or for all commands. */
export function helpFor(table: CommandSet, line: string): string {
  const reader = new LineReader(line);
  reader.skipSpace();
  if (reader.atEnd) return table.hmpCommands.map((command) => hmpHelp(command)).join("");
  const found = findCommand(table, reader);
  if (typeof found === "string") return found;
  if (found.typed === "info") return infoHelp(table);
  return hmpHelp(found.command, found.typed.startsWith("info ") ? "info " : "");
}

/** Help for all of `info`'s sub-commands. */
export function infoHelp(table: CommandSet): string {
  return table.infoCommands.map((command) => hmpHelp(command, "info ")).join("");
}

/** The command that the reader is at, or a message. */
function findCommand(table: CommandSet, reader: LineReader): Found | string {
  const name = reader.takeMatch(commandName);
  const command = table.hmpCommand(name);
  if (!command) return `unknown command: '${name}'\n`;
  reader.skipSpace();
  if (name !== "info" || reader.atEnd) return { command, typed: name };
  const typed = `info ${reader.takeMatch(commandName)}`;
  const sub = table.infoCommand(typed.slice(5));
  return sub ? { command: sub, typed } : `unknown command: '${typed}'\n`;
}

/**
 * Executes a command line.
 *
 * @returns what it prints, lines ending in `\n`
 */
export async function executeLine(context: CommandContext, line: string): Promise<string> {
  const reader = new LineReader(line);
  reader.skipSpace();
  if (reader.atEnd) return "";
  const found = findCommand(context.table, reader);
  if (typeof found === "string") return found;
  const { command, typed } = found;
  try {
    const args = await readArguments(context, command, reader);
    return await command.run(context, args) ?? "";
  } catch (error) {
    if (error instanceof HmpSyntaxError) {
      return `${error.message}\nTry "help ${typed}" for more information\n`;
    }
    return `Error: ${toQmpError(error).message}\n`;
  }
}

/**
 * Executes a command line that comes from no monitor's session.
 *
 * @returns what it prints; what the command does after its reply is done once this has been taken
 */
export async function executeAlone(
  machine: MachineControl,
  table: CommandSet,
  line: string,
): Promise<string> {
  const deferred = new Deferred();
  const text = await executeLine({ machine, table, session: newSession(deferred) }, line);
  setTimeout(() => deferred.run(), 0);
  return text;
}

async function readArguments(
  context: CommandContext,
  command: HmpCommand,
  reader: LineReader,
): Promise<Record<string, unknown>> {
  const args: Record<string, unknown> = {};
  for (const parameter of command.parameters) {
    reader.skipSpace();
    const absent = parameter.optional && reader.atEnd;
    const value = absent ? undefined : await readArgument(context, command, parameter, reader);
    if (value !== undefined) args[parameter.name] = value;
  }
  reader.skipSpace();
  if (!reader.atEnd) {
    throw new HmpSyntaxError(`${hmpNames(command)}: extraneous characters at the end of line`);
  }
  return args;
}

async function readArgument(
  context: CommandContext,
  command: HmpCommand,
  parameter: HmpParameter,
  reader: LineReader,
): Promise<unknown> {
  switch (parameter.type) {
    case "flag":
      return readFlag(command, parameter, reader);
    case "format":
      return readFormat(context, reader);
    case "string":
    case "filename": {
      const text = reader.takeString();
      if (text !== undefined) return text;
      throw new HmpSyntaxError(`${hmpNames(command)}: ${parameter.type} expected`);
    }
    case "rest": {
      const text = reader.takeMatch(/.*/sy);
      if (text !== "") return text;
      throw new HmpSyntaxError(`${hmpNames(command)}: string expected`);
    }
    case "boolean": {
      const word = reader.takeMatch(/\S*/y);
      if (word === "on" || word === "off") return word === "on";
      throw new HmpSyntaxError("Expected 'on' or 'off'");
    }
    case "long":
      return await readInteger(context, reader);
    case "int": {
      const value = BigInt.asUintN(64, await readInteger(context, reader));
      if (value >> 32n === 0n) return Number(value);
      throw new HmpSyntaxError(`'${command.name}' has failed: integer is for 32-bit values`);
    }
  }
}

function readInteger(context: CommandContext, reader: LineReader): Promise<bigint> {
  const { machine, session } = context;
  return readExpression(reader, (name) => machine.register(session.cpuIndex, name));
}

/** Takes `-x` if it is this flag; another flag of the command stays for its own turn. */
function readFlag(command: HmpCommand, { letter }: HmpParameter, reader: LineReader): boolean {
  if (reader.peek() !== "-") return false;
  const given = reader.peek(1);
  if (given === letter) return reader.accept(`-${given}`);
  if (!command.parameters.some((other) => other.type === "flag" && other.letter === given)) {
    throw new HmpSyntaxError(`${hmpNames(command)}: unsupported option -${given}`);
  }
  return false;
}

const sizes = { b: 1, h: 2, w: 4, g: 8 } as const;
/** Bytes that one dump may show: the text is some five times as long and built in memory. */
const maxDumpBytes = 1 << 20;

/** Takes `/4gx`, or nothing; what is not given stays as it was the last time. */
function readFormat({ session }: CommandContext, reader: LineReader) {
  let { format, size } = session.dumpFormat;
  if (!reader.accept("/")) return { count: 1, format, size };
  const digits = reader.takeMatch(/[0-9]*/y);
  for (const char of reader.takeMatch(/[xoducbhwg]*/y)) {
    if (char in sizes) size = sizes[char as keyof typeof sizes];
    else format = char as typeof format;
  }
  if (!reader.atEnd && reader.takeMatch(/\s/y) === "") {
    throw new HmpSyntaxError(`invalid char in format: '${reader.peek()}'`);
  }
  const count = digits === "" ? 1 : Number(digits);
  if (count * size > maxDumpBytes) {
    throw new HmpSyntaxError(`invalid count in format: ${digits} (at most ${maxDumpBytes} bytes)`);
  }
  session.dumpFormat = { format, size };
  return { count, format, size };
}
