/**
 * How QEMU reads a single value: sizes, numbers, booleans, ids.
 *
 * @module
 */
import { OptionError } from "./error.ts";

const SUFFIXES = "BKMGTPE";

/**
 * Reads a number of bytes: `4096`, `0x1000`, `128M`, `1.5G`. Suffixes are powers of 1024.
 *
 * @returns bytes, or undefined if the text is no size
 */
function readSize(text: string): number | undefined {
  if (/^0x[0-9a-f]+$/i.test(text)) return Number(text);
  const [, digits, fraction, suffix] = /^(\d+)(\.\d*)?([bkmgtpe])?$/i.exec(text) ?? [];
  if (digits === undefined) return undefined;
  const unit = 1024 ** (suffix ? SUFFIXES.indexOf(suffix.toUpperCase()) : 0);
  const part = Number(`0${fraction ?? ""}`);
  if (part !== 0 && unit === 1) return undefined;
  return Number(digits) * unit + Math.round(part * unit);
}

/** Refuses integers that a JavaScript number cannot hold exactly. */
function checkRange(name: string, text: string, value: number): number {
  if (Number.isSafeInteger(value)) return value;
  throw new OptionError(`Value '${text}' is out of range for parameter '${name}'`);
}

/**
 * Reads a number of bytes: `4096`, `0x1000`, `128M`, `1.5G`; suffixes are powers of 1024.
 *
 * @param text the size
 * @param name the parameter's name, for messages
 * @returns bytes
 * @throws OptionError if it is no size, or above 2^53
 */
export function parseSize(text: string, name = "size"): number {
  const size = readSize(text);
  if (size === undefined) {
    throw new OptionError(`Parameter '${name}' expects a non-negative number below 2^64`);
  }
  return checkRange(name, text, size);
}

/** Like {@linkcode parseSize}, in the words of an object's property. */
export function parseSizeProperty(name: string, text: string): number {
  const size = readSize(text);
  if (size === undefined) throw new OptionError(`Parameter '${name}' expects a size value`);
  return checkRange(name, text, size);
}

/**
 * Reads an integer as C does: decimal, `0x` hexadecimal, `0` octal.
 *
 * @throws OptionError if it is none
 */
export function parseInteger(name: string, text: string): number {
  const [, sign, octal, other] = /^([+-]?)(?:0([0-7]+)|(0x[0-9a-f]+|0|[1-9]\d*))$/i.exec(text) ??
    [];
  if (sign === undefined) throw new OptionError(`Parameter '${name}' expects integer`);
  const value = checkRange(name, text, octal ? parseInt(octal, 8) : Number(other));
  return sign === "-" && value !== 0 ? -value : value;
}

/**
 * Reads an integer of `bits` bits without a sign.
 *
 * @throws OptionError if it is none, or too large
 */
export function parseUint(name: string, text: string, bits: number): number {
  return checkUint(name, parseInteger(name, text), bits);
}

/** Checks that an integer fits into `bits` bits without a sign. */
export function checkUint(name: string, value: number, bits: number): number {
  if (value < 0 || value >= 2 ** bits) {
    throw new OptionError(`Parameter '${name}' expects uint${bits}_t`);
  }
  return value;
}

const BOOLEANS = new Map([
  ...["on", "yes", "true", "y"].map((word) => [word, true] as const),
  ...["off", "no", "false", "n"].map((word) => [word, false] as const),
]);

/** Reads a boolean, or undefined if the text is none. */
export function readBool(text: string): boolean | undefined {
  return BOOLEANS.get(text);
}

/** Reads `on`, `yes`, `true`, `y` and their opposites. @throws OptionError on anything else */
export function parseBool(name: string, text: string): boolean {
  const value = readBool(text);
  if (value === undefined) throw new OptionError(`Parameter '${name}' expects 'on' or 'off'`);
  return value;
}

/** Checks that a text is one of the allowed ones. @throws OptionError if not */
export function parseEnum<T extends string>(name: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((word) => word === text);
  if (found === undefined) {
    throw new OptionError(`Parameter '${name}' does not accept value '${text}'`);
  }
  return found;
}

/** Checks an id: letters, digits, `-`, `.`, `_`, starting with a letter. @throws OptionError */
export function parseId(text: string): string {
  if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(text)) {
    throw new OptionError(
      "Parameter 'id' expects an identifier of letters, digits, '-', '.', '_', starting with a letter",
    );
  }
  return text;
}

/** Checks a UUID and writes it in lower case. @throws OptionError */
export function parseUuid(text: string): string {
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text)) {
    throw new OptionError("failed to parse UUID string: wrong format");
  }
  return text.toLowerCase();
}
