/**
 * Arguments of `denovo img`'s commands, by their short and long names.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { parseSize } from "../options/values.ts";

/** An option: whether it has a value, and its short name. */
export interface Flag {
  readonly type: "string" | "boolean";
  readonly short?: string;
  readonly multiple?: boolean;
}

/** An option that there is not, or one without its value. */
export class UsageError extends Error {}

/** What was given. */
export class Arguments {
  readonly #values: Record<string, unknown>;
  /** What is no option. */
  readonly rest: readonly string[];

  /**
   * @param flags options by their long names
   * @throws {UsageError} in QEMU's words if something was given that there is not
   */
  constructor(args: readonly string[], flags: Readonly<Record<string, Flag>>) {
    // A negative size is no option.
    const isSize = (arg: string) => /^-\d/.test(arg);
    const sizes = args.filter(isSize);
    const { values, positionals, tokens } = parseArgs({
      args: args.filter((arg) => !isSize(arg)),
      options: flags,
      strict: false,
      tokens: true,
    });
    for (const token of tokens) {
      if (token.kind !== "option") continue;
      const { name, rawName, value } = token;
      const type = Object.hasOwn(flags, name) ? flags[name].type : undefined;
      if (type === undefined || (type === "boolean" && value !== undefined)) {
        throw new UsageError(`unrecognized option '${rawName}'`);
      }
      if (type === "string" && value === undefined) {
        throw new UsageError(`missing argument for option '${rawName}'`);
      }
    }
    this.#values = values;
    this.rest = [...positionals, ...sizes];
  }

  /** Whether an option was given. */
  has(name: string): boolean {
    return this.#values[name] === true;
  }

  /** An option's value. */
  get(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" ? value : undefined;
  }

  /** The values of an option that may be given again. */
  all(name: string): string[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value.map(String) : [];
  }

  /** The only argument that is no option. @throws {Error} if there are others, or none */
  one(): string {
    if (this.rest.length !== 1) throw new Error("Expecting one image file name");
    return this.rest[0];
  }
}

/** Options that most commands have. */
export const common = {
  quiet: { type: "boolean", short: "q" },
  format: { type: "string", short: "f" },
  "force-share": { type: "boolean", short: "U" },
} as const satisfies Readonly<Record<string, Flag>>;

/** An option that shows how far a command is. */
export const progress = { progress: { type: "boolean", short: "p" } } as const satisfies Readonly<
  Record<string, Flag>
>;

/** Shows which part is done, from 0 to 1, as `-p` does. */
export function showProgress(part: number): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`    (${(part * 100).toFixed(2)}/100%)\r`));
}

/** Reads a size. @throws {Error} in QEMU's words, that name the value */
export function readSize(text: string, what = "image size"): number {
  try {
    return parseSize(text);
  } catch (error) {
    throw new Error(
      `Invalid ${what} specified: '${text}'. You may use k, M, G, T, P or E suffixes for kilobytes,` +
        " megabytes, gigabytes, terabytes, petabytes and exabytes",
      { cause: error },
    );
  }
}

/** How the result is printed. */
export const output = { output: { type: "string" } } as const satisfies Readonly<
  Record<string, Flag>
>;

/** Whether JSON is wanted. @throws {Error} in QEMU's words for what is neither */
export function wantsJson(args: Arguments): boolean {
  const format = args.get("output") ?? "human";
  if (format !== "human" && format !== "json") {
    throw new Error("--output must be used with human or json as argument.");
  }
  return format === "json";
}

/** Prints a value as QEMU's tools do. */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 4));
}
