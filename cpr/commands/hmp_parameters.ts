/**
 * `migrate_set_parameter`: a parameter as text.
 *
 * @module
 */
import type { CommandContext } from "../../vmm/monitor/context.ts";
import { QmpError } from "../../vmm/monitor/errors.ts";
import { readBool } from "../../vmm/options/values.ts";
import { defaultParameters, type ParameterName } from "../migration/parameters.ts";

const SUFFIXES: Record<string, number> = { "": 1, k: 1, m: 2, g: 3, t: 4, p: 5, e: 6 };
/** Parameters whose number is bytes per second in MiB unless a suffix says otherwise. */
const BANDWIDTHS: readonly string[] = [
  "max-bandwidth",
  "avail-switchover-bandwidth",
  "max-postcopy-bandwidth",
];

/** Sets a parameter from what was typed. @throws {QmpError} in QEMU's words */
export async function setParameterText(
  context: CommandContext,
  name: string,
  text: string,
): Promise<void> {
  if (!(name in defaultParameters)) throw new QmpError(`invalid parameter value: ${name}`);
  const value = parseValue(name as ParameterName, text);
  await context.table.execute(context, "migrate-set-parameters", { [name]: value });
}

function parseValue(name: ParameterName, text: string): string | number | boolean | string[] {
  const sample = defaultParameters[name];
  if (Array.isArray(sample)) return splitCommand(text);
  if (typeof sample === "boolean") return parseBoolean(name, text);
  return typeof sample === "number" ? parseNumber(name, text) : text;
}

function parseBoolean(name: string, text: string): boolean {
  const value = readBool(text);
  if (value === undefined) throw new QmpError(`Parameter '${name}' expects 'on' or 'off'`);
  return value;
}

function parseNumber(name: string, text: string): number {
  if (/^-\d+$/.test(text)) {
    throw new QmpError(`Value '${text}' is out of range for parameter '${name}'`);
  }
  const match = /^(\d+(?:\.\d+)?)([kmgtpe]?)b?$/i.exec(text);
  if (!match) {
    throw new QmpError(
      `Parameter '${name}' expects a non-negative number below 2^64\n` +
        "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n" +
        "and exabytes, respectively.",
    );
  }
  const suffix = match[2].toLowerCase();
  const power = suffix === "" ? BANDWIDTHS.includes(name) ? 2 : 0 : SUFFIXES[suffix];
  return Math.floor(Number(match[1]) * 1024 ** power);
}

/**
 * Splits a command as a shell's quoting does, without any expansion.
 *
 * @throws {QmpError} if a quote is not closed
 */
export function splitCommand(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    const escapes = quote === "" || quote === '"' && /["\\$`]/.test(text[i + 1] ?? "");
    if (char === "\\" && quote !== "'" && escapes && i + 1 < text.length) {
      word = (word ?? "") + text[++i];
    } else if (quote !== "" && char === quote) quote = "";
    else if (quote === "" && (char === "'" || char === '"')) {
      quote = char;
      word ??= "";
    } else if (quote === "" && /\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? "") + char;
  }
  if (quote !== "") {
    throw new QmpError(
      `Text ended before matching quote was found for ${quote}. (The text was '${text}')`,
    );
  }
  if (word !== undefined) words.push(word);
  return words;
}
