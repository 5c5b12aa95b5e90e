/**
 * The command line of `deno task debian`.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { type UpdateMode, updateModes } from "../../cpr/update/update.ts";

/** What it says. */
export interface Options {
  /** Updates by each mode. */
  readonly count: number;
  readonly modes: readonly UpdateMode[];
  /** For the VMM. */
  readonly options: readonly string[];
}

/** Reads it. @throws {Error} if it makes no sense */
export function readOptions(args: readonly string[]): Options {
  const { values, positionals } = parseArgs({
    args: args[0] === "--" ? args.slice(1) : [...args],
    options: { updates: { type: "string" }, modes: { type: "string" } },
    allowPositionals: true,
  });
  const count = Number(values.updates ?? 20);
  if (!Number.isInteger(count) || count < 0) {
    throw new Error(`--updates ${values.updates} is not a number`);
  }
  const modes = (values.modes ?? updateModes.join(",")).split(",").map((name) => {
    const mode = updateModes.find((mode) => mode === name);
    if (!mode) throw new Error(`--modes ${name}: the modes are ${updateModes.join(", ")}`);
    return mode;
  });
  return { count, modes, options: positionals };
}
