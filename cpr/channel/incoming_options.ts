/**
 * `-incoming`: a URI, `defer`, a JSON channel or dotted keys; the last of a channel type counts.
 *
 * @module
 */
import { parseKeyval } from "../../vmm/options/command_line.ts";
import { type MigrationAddress, type MigrationChannel, parseUri } from "./address.ts";

/** What the `-incoming` options say. */
export interface IncomingOptions {
  /** Where the state comes from; `defer` waits for `migrate-incoming`. */
  readonly main: MigrationAddress | "defer";
  /** The argument that says so, for messages. */
  readonly argument?: string;
  /** Where descriptors come from. */
  readonly cpr?: MigrationAddress;
}

const PROTOCOLS = /^(unix|tcp|fd|exec|file):/;

/**
 * Parses all `-incoming` arguments.
 *
 * @returns undefined when there are none
 * @throws {Error} in QEMU's words, with the option in front
 */
export async function parseIncoming(
  args: readonly string[],
): Promise<IncomingOptions | undefined> {
  if (args.length === 0) return undefined;
  let main: Pick<IncomingOptions, "main" | "argument"> = { main: "defer" };
  let cpr: MigrationAddress | undefined;
  for (const argument of args) {
    try {
      if (argument === "defer") main = { main: "defer" };
      else if (PROTOCOLS.test(argument)) main = { main: parseUri(argument), argument };
      else {
        const channel = await parseChannel(argument);
        if (channel["channel-type"] === "cpr") cpr = channel.addr;
        else main = { main: channel.addr, argument };
      }
    } catch (error) {
      throw new Error(`-incoming ${argument}: ${(error as Error).message}`, { cause: error });
    }
  }
  if (cpr && (cpr.transport !== "socket" || (cpr.type !== "unix" && cpr.type !== "fd"))) {
    throw new Error("bad cpr channel socket type; must be unix");
  }
  return cpr ? { ...main, cpr } : main;
}

/** Channels are rare and come before any pause: only they pay for loading zod. */
async function parseChannel(argument: string): Promise<MigrationChannel> {
  const { parseArguments } = await import("../../vmm/monitor/validate.ts");
  const { migrationChannel } = await import("../commands/schema.ts");
  const value = argument.startsWith("{") ? parseJson(argument) : dotted(argument);
  return parseArguments(migrationChannel, value) as MigrationChannel;
}

function parseJson(text: string): Parameters<typeof JSON.stringify>[0] {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("JSON parse error, expecting value");
  }
}

/** Dotted keys are text throughout; the one number among the members is a file's offset. */
function dotted(text: string): Parameters<typeof JSON.stringify>[0] {
  const value = parseKeyval(text, "channel-type") as { addr?: { offset?: unknown } };
  const offset = value.addr?.offset;
  if (typeof offset === "string" && /^\d+$/.test(offset)) value.addr!.offset = Number(offset);
  return value;
}
