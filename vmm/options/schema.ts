/**
 * Declares what an option's parameters are, and reads them.
 *
 * @module
 */
import { OptionError } from "./error.ts";
import type { RawOptions } from "./grammar.ts";
import {
  checkUint,
  parseBool,
  parseEnum,
  parseId,
  parseSizeProperty,
  parseUint,
} from "./values.ts";

/** A parameter's type; a list is an enumeration of words. */
export type ParameterType =
  | "bool"
  | "string"
  | "id"
  | "chardev"
  | "drive"
  | "netdev"
  | "link"
  | "size"
  | "uint8"
  | "uint16"
  | "uint32"
  | "uint64"
  | readonly string[];

/** Parameter types by name. */
export type Schema = Readonly<Record<string, ParameterType>>;

/** What a parameter of type `T` reads as. */
export type ValueOf<T> = T extends "bool" ? boolean
  : T extends "string" | "id" | "chardev" | "drive" | "netdev" | "link" ? string
  : T extends readonly (infer Word)[] ? Word
  : number;

/** The values that were given, by parameter name. */
export type Values<S extends Schema> = { -readonly [K in keyof S]?: ValueOf<S[K]> };

/** Any parameter's value. */
export type Value = string | number | boolean;

const BITS = { uint8: 8, uint16: 16, uint32: 32, uint64: 64 } as const;

function fromText(name: string, type: ParameterType, text: string): Value {
  if (typeof type === "object") return parseEnum(name, text, type);
  switch (type) {
    case "bool":
      return parseBool(name, text);
    case "string":
    case "chardev":
    case "drive":
    case "netdev":
    case "link":
      return text;
    case "id":
      return parseId(text);
    case "size":
      return parseSizeProperty(name, text);
    default:
      return parseUint(name, text, BITS[type]);
  }
}

function fromJsonValue(name: string, type: ParameterType, value: unknown): Value {
  const expected = (what: string) =>
    new OptionError(`Invalid parameter type for '${name}', expected: ${what}`);
  switch (type) {
    case "bool":
      if (typeof value !== "boolean") throw expected("boolean");
      return value;
    case "size":
    case "uint8":
    case "uint16":
    case "uint32":
    case "uint64":
      if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
        throw new OptionError(`Parameter '${name}' expects uint64`);
      }
      return type === "size" ? value : checkUint(name, value, BITS[type]);
    default:
      if (typeof value !== "string") throw expected("string");
      return fromText(name, type, value);
  }
}

/** Converts one value to its declared type. @throws OptionError in QEMU's words */
export function readValue(name: string, type: ParameterType, value: unknown, json: boolean): Value {
  return json ? fromJsonValue(name, type, value) : fromText(name, type, String(value));
}

/** QEMU's words for a parameter that does not exist. */
export function invalidParameter(name: string, json: boolean): OptionError {
  return new OptionError(
    json ? `Parameter '${name}' is unexpected` : `Invalid parameter '${name}'`,
  );
}

/**
 * Reads the parameters that a schema declares.
 *
 * @param options what the user typed
 * @param schema the parameters there are
 * @param unknown makes the error for a parameter that the schema does not have
 * @throws OptionError on a value of the wrong type and on unknown parameters
 */
export function readOptions<const S extends Schema>(
  options: RawOptions,
  schema: S,
  unknown: (name: string, json: boolean) => OptionError = invalidParameter,
): Values<S> {
  const values: Record<string, Value> = {};
  for (const [name, type] of Object.entries(schema)) {
    if (!options.entries.has(name)) continue;
    values[name] = readValue(name, type, options.entries.get(name), options.json);
  }
  for (const name of options.entries.keys()) {
    if (!Object.hasOwn(schema, name)) throw unknown(name, options.json);
  }
  return values as Values<S>;
}

/** A copy without the keys whose value is undefined. */
export function compact<T extends object>(object: T): T {
  return Object.fromEntries(
    Object.entries(object).filter(([, value]) => value !== undefined),
  ) as T;
}
