/**
 * Checks arguments by their zod schema and says what is wrong in the words of QEMU's QAPI visitors.
 *
 * @module
 */
import type { z } from "zod";
import { QmpError } from "./errors.ts";
import type { JsonObject } from "./json_value.ts";

type Path = readonly PropertyKey[];

/** QAPI's names of types, by zod's: a number is an integer, since no argument of QMP's is anything else. */
const typeNames: Record<string, string> = { int: "integer", number: "integer" };

/** A member's path as QAPI writes it: `channels[0].addr.path`. */
function pathText(path: Path): string {
  return path.map((part, index) => {
    if (typeof part === "number") return `[${part}]`;
    return index === 0 ? String(part) : `.${String(part)}`;
  }).join("");
}

function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const part of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) {
      return undefined;
    }
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return value;
}

const wrongType = (path: Path, expected: string) =>
  `Invalid parameter type for '${pathText(path)}', expected: ${expected}`;

/** What is wrong with an enum's value: QAPI names the member alone, and list elements not at all. */
function wrongEnumValue(path: Path, value: unknown): string {
  if (typeof value !== "string") return wrongType(path, "string");
  const name = path.at(-1);
  return `Parameter '${typeof name === "string" ? name : "null"}' does not accept value '${value}'`;
}

function describe(issue: z.core.$ZodIssue, input: JsonObject): string {
  const { path } = issue;
  if (issue.code === "unrecognized_keys") {
    return `Parameter '${pathText([...path, issue.keys[0]])}' is unexpected`;
  }
  const value = valueAt(input, path);
  if (value === undefined) return `Parameter '${pathText(path)}' is missing`;
  // A schema with words of its own puts % in the place of the parameter's name.
  if (issue.message.includes("'%'")) return issue.message.replace("%", pathText(path));
  switch (issue.code) {
    case "invalid_type":
      return wrongType(path, typeNames[issue.expected] ?? issue.expected);
    case "invalid_value":
      return wrongEnumValue(path, value);
    case "invalid_union":
      if (issue.discriminator !== undefined) return wrongEnumValue(path, value);
      break;
    case "too_big":
    case "too_small":
      if (issue.origin === "int") return wrongType(path, "integer");
  }
  return `Parameter '${pathText(path)}' is invalid: ${issue.message}`;
}

/**
 * Checks a command's arguments.
 *
 * @param schema undefined for a command that takes none
 * @returns the arguments as the schema transforms them
 * @throws {QmpError} for the first thing that is wrong, in the order of the schema's members
 */
export function parseArguments(schema: z.ZodType | undefined, args: JsonObject): unknown {
  if (!schema) {
    const [unexpected] = Object.keys(args);
    if (unexpected !== undefined) throw new QmpError(`Parameter '${unexpected}' is unexpected`);
    return args;
  }
  const result = schema.safeParse(args);
  if (result.success) return result.data;
  throw new QmpError(describe(result.error.issues[0], args));
}
