/**
 * A JSON parser for a stream of values, as QEMU's monitor has it: strings in single or double quotes,
 * values back to back or over several lines and chunks, limits against hostile input, and QEMU's
 * messages with line and column.
 *
 * An error is reported once the brackets that were open around it are closed, so that the rest of a
 * broken command is not taken for a new one.
 *
 * @module
 */
import { JsonLexer, type JsonToken, maxTokenBytes } from "./json_lexer.ts";
import type { JsonValue } from "./json_value.ts";

/** Deepest nesting of arrays and objects. */
export const maxDepth = 1024;
/** Most tokens of one value. */
export const maxTokens: number = 2 << 20;

/** What the stream holds next: a value, or what is wrong with it. */
export type JsonItem = { readonly value: JsonValue } | { readonly error: string };

/** An array or object under construction; `key` is the name that awaits its value. */
type Frame =
  | { readonly array: JsonValue[] }
  | { readonly object: Record<string, JsonValue>; key?: string };

/** What the grammar allows next. */
type Expectation =
  | "value"
  | "value or ]"
  | "key"
  | "key or }"
  | ":"
  | ", or ]"
  | ", or }"
  | "nothing";

/** Splits a stream of bytes into JSON values. */
export class JsonStream {
  readonly #lexer = new JsonLexer();
  #frames: Frame[] = [];
  #expecting: Expectation = "value";
  #result: JsonValue = null;
  #error: string | undefined;
  #braces = 0;
  #brackets = 0;
  #tokens = 0;
  #bytes = 0;

  /** How much of the bytes it was given last lies before the end of the item it gave last. */
  get taken(): number {
    return this.#lexer.taken;
  }

  /** The values and errors that are complete with these bytes. */
  *feed(input: Uint8Array): Generator<JsonItem> {
    for (const token of this.#lexer.feed(input)) {
      const item = this.#accept(token);
      if (!item) continue;
      this.#reset();
      yield item;
    }
  }

  #reset(): void {
    this.#frames = [];
    this.#expecting = "value";
    this.#result = null;
    this.#error = undefined;
    this.#braces =
      this.#brackets =
      this.#tokens =
      this.#bytes =
        0;
  }

  #accept(token: JsonToken): JsonItem | undefined {
    if (token.type === "stray") {
      return { error: at(token, `stray '${lenientText(token.bytes)}'`) };
    }
    const tooLarge = this.#limitExceeded(token);
    if (tooLarge) return { error: tooLarge };
    if (this.#error === undefined) {
      try {
        this.#parse(token);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        this.#error = at(token, error.message);
      }
    }
    const open = this.#braces >= 0 && this.#brackets >= 0 && this.#braces + this.#brackets > 0;
    if (open) return undefined;
    return this.#error === undefined ? { value: this.#result } : { error: this.#error };
  }

  /** Counts the token; returns what is too much, if anything is. */
  #limitExceeded(token: JsonToken): string | undefined {
    if (token.type === "punctuator") {
      const char = String.fromCharCode(token.bytes[0]);
      this.#braces += char === "{" ? 1 : char === "}" ? -1 : 0;
      this.#brackets += char === "[" ? 1 : char === "]" ? -1 : 0;
    }
    this.#tokens++;
    this.#bytes += token.bytes.length;
    if (token.type === "oversize" || this.#bytes > maxTokenBytes) {
      return "JSON token size limit exceeded";
    }
    if (this.#tokens > maxTokens) return "JSON token count limit exceeded";
    if (this.#braces + this.#brackets > maxDepth) return "JSON nesting depth limit exceeded";
  }

  #parse(token: JsonToken): void {
    const char = token.type === "punctuator" ? String.fromCharCode(token.bytes[0]) : "";
    switch (this.#expecting) {
      case "key or }":
        if (char === "}") return this.#close();
        return this.#takeKey(token);
      case "key":
        return this.#takeKey(token);
      case ":":
        if (char !== ":") throw new SyntaxError("expecting ':'");
        this.#expecting = "value";
        return;
      case ", or }":
        if (char === "}") return this.#close();
        if (char !== ",") throw new SyntaxError("expecting ',' or '}'");
        this.#expecting = "key";
        return;
      case ", or ]":
        if (char === "]") return this.#close();
        if (char !== ",") throw new SyntaxError("expecting ',' or ']'");
        this.#expecting = "value";
        return;
      case "value or ]":
        if (char === "]") return this.#close();
    }
    this.#takeValue(token, char);
  }

  #takeKey(token: JsonToken): void {
    if (token.type !== "string") throw new SyntaxError("expecting key");
    const frame = this.#frames.at(-1);
    if (frame && "object" in frame) frame.key = stringValue(token.bytes);
    this.#expecting = ":";
  }

  #takeValue(token: JsonToken, char: string): void {
    if (char === "{") {
      this.#frames.push({ object: {} });
      this.#expecting = "key or }";
    } else if (char === "[") {
      this.#frames.push({ array: [] });
      this.#expecting = "value or ]";
    } else if (token.type === "punctuator") {
      throw new SyntaxError("expecting value");
    } else {
      this.#store(scalarValue(token));
    }
  }

  #close(): void {
    const frame = this.#frames.pop()!;
    this.#store("array" in frame ? frame.array : frame.object);
  }

  /** Puts a complete value into the array or object around it. */
  #store(value: JsonValue): void {
    const frame = this.#frames.at(-1);
    if (!frame) {
      this.#result = value;
      this.#expecting = "nothing";
    } else if ("array" in frame) {
      frame.array.push(value);
      this.#expecting = ", or ]";
    } else {
      const key = frame.key!;
      if (Object.hasOwn(frame.object, key)) throw new SyntaxError("duplicate key");
      // Defined, not assigned: a member named __proto__ is a member like any other.
      Object.defineProperty(frame.object, key, {
        value,
        enumerable: true,
        configurable: true,
        writable: true,
      });
      this.#expecting = ", or }";
    }
  }
}

const at = (token: JsonToken, message: string) =>
  `${token.line}:${token.column}: JSON parse error, ${message}`;

const lenientDecoder = new TextDecoder("utf-8", { ignoreBOM: true });
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenientText = (bytes: Uint8Array) => lenientDecoder.decode(bytes);

function scalarValue(token: JsonToken): JsonValue {
  if (token.type === "string") return stringValue(token.bytes);
  const text = lenientText(token.bytes);
  if (token.type === "number") return numberValue(text);
  switch (text) {
    case "true":
      return true;
    case "false":
      return false;
    case "null":
      return null;
  }
  throw new SyntaxError(`invalid keyword '${text}'`);
}

/** Integers keep their value from -2^63 to 2^64 - 1; beyond that QEMU makes them floating-point. */
function numberValue(text: string): number | bigint {
  const double = Number(text);
  if (Number.isSafeInteger(double) || !/^-?[0-9]+$/.test(text)) return double;
  const integer = text.length > 20 ? undefined : BigInt(text);
  const fits = integer !== undefined && integer >= -(1n << 63n) && integer < 1n << 64n;
  return fits ? integer : double;
}

const escapes: Record<string, string> = {
  '"': '"',
  "'": "'",
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** The text of a string token. */
function stringValue(token: Uint8Array): string {
  let text: string;
  try {
    text = strictDecoder.decode(token.subarray(1, -1));
  } catch {
    throw new SyntaxError("invalid UTF-8 sequence in string");
  }
  // QEMU takes noncharacters (U+FFFE, U+FDD0, ...) for invalid, sent as they are or escaped.
  if (/\p{Noncharacter_Code_Point}/u.test(text)) {
    throw new SyntaxError("invalid UTF-8 sequence in string");
  }
  if (!text.includes("\\")) return text;
  const escape = /\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|u[^]{0,4}|[^])/gu;
  return text.replace(escape, (whole, unit?: string, low?: string) => {
    if (unit !== undefined) return unicodeEscape(unit, low);
    if (whole[1] === "u") {
      const digits = /^\\u[0-9a-fA-F]*/.exec(whole)![0];
      // QEMU quotes the escape up to and with the first character that is no hexadecimal digit.
      const end = whole[digits.length] ?? String.fromCharCode(token[0]);
      throw new SyntaxError(`${digits}${end} is not a valid Unicode character`);
    }
    const plain = escapes[whole[1]];
    if (plain === undefined) throw new SyntaxError("invalid escape sequence in string");
    return plain;
  });
}

/** A `\uXXXX` escape, or two that make a surrogate pair. */
function unicodeEscape(unit: string, low: string | undefined): string {
  const high = parseInt(unit, 16);
  const isPair = low !== undefined && high >= 0xd800 && high < 0xdc00;
  const char = String.fromCharCode(high, ...isPair ? [parseInt(low, 16)] : []);
  if (/[\p{Surrogate}\p{Noncharacter_Code_Point}]/u.test(char)) {
    throw new SyntaxError(`\\u${unit} is not a valid Unicode character`);
  }
  return isPair || low === undefined ? char : char + unicodeEscape(low, undefined);
}
