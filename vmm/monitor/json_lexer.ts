/**
 * JSON tokens from a byte stream, resynchronising after errors the way QEMU's monitor does.
 *
 * Input is bytes, not text: a client may send anything, also in the middle of a UTF-8 sequence. After
 * a byte that fits nowhere, input is skipped up to a control character, a byte that UTF-8 never has,
 * or one of `{ } [ ] : ,`, so that a client in trouble gets one message and can go on.
 *
 * @module
 */

/** A token and where it starts. */
export interface JsonToken {
  /** `stray`: bytes that start no token; `oversize`: a token beyond {@linkcode maxTokenBytes}. */
  readonly type: "punctuator" | "string" | "number" | "keyword" | "stray" | "oversize";
  /** The token as sent, quotes included. */
  readonly bytes: Uint8Array;
  /** From 1. */
  readonly line: number;
  /** In bytes, from 1. */
  readonly column: number;
}

/** Bytes of the longest token. */
export const maxTokenBytes: number = 64 << 20;

type State =
  | "start"
  | "recovery"
  | "string"
  | "escape"
  | "keyword"
  | "minus"
  | "zero"
  | "digits"
  | "point"
  | "fraction"
  | "exponent"
  | "exponent sign"
  | "exponent digits";

/** What a byte does to the token so far: continues it in a state, or ends it. */
type Step = State | "end before" | "end after" | "stray";

const code = (char: string) => char.charCodeAt(0);
const newline = code("\n");
const backslash = code("\\");
const isDigit = (byte: number) => byte >= 0x30 && byte <= 0x39;
const isLower = (byte: number) => byte >= 0x61 && byte <= 0x7a;
const isExponentMark = (byte: number) => byte === code("e") || byte === code("E");
const isSign = (byte: number) => byte === code("+") || byte === code("-");
const isBlank = (byte: number) =>
  byte === 0x20 || byte === 0x09 || byte === 0x0d || byte === newline;
/** Bytes that no JSON text has, inside or outside of strings. */
const isForeign = (byte: number) => byte < 0x20 || byte >= 0xfe;
const isPunctuator = (byte: number) => "{}[]:,".includes(String.fromCharCode(byte));

function firstStep(byte: number): Step {
  if (isBlank(byte)) return "start";
  if (isPunctuator(byte)) return "end after";
  if (byte === code('"') || byte === code("'")) return "string";
  if (byte === code("-")) return "minus";
  if (byte === code("0")) return "zero";
  if (isDigit(byte)) return "digits";
  return isLower(byte) ? "keyword" : "stray";
}

/** One step of RFC 8259's number grammar. */
function numberStep(state: State, byte: number): Step {
  const digit = isDigit(byte);
  switch (state) {
    case "minus":
      return byte === code("0") ? "zero" : digit ? "digits" : "stray";
    case "point":
      return digit ? "fraction" : "stray";
    case "exponent":
      return digit ? "exponent digits" : isSign(byte) ? "exponent sign" : "stray";
    case "exponent sign":
      return digit ? "exponent digits" : "stray";
    case "exponent digits":
      return digit ? "exponent digits" : "end before";
    case "zero":
      if (digit) return "stray";
  }
  // What is left: digits before or after the point.
  if (digit) return state;
  if (isExponentMark(byte)) return "exponent";
  return byte === code(".") && state !== "fraction" ? "point" : "end before";
}

/** Turns bytes into tokens; a token may be spread over calls. */
export class JsonLexer {
  #state: State = "start";
  #quote = 0;
  #token = new Uint8Array(256);
  #length = 0;
  #line = 1;
  #column = 1;
  #tokenColumn = 1;
  /** How much of the bytes it was given last lies before the end of the token it gave last. */
  taken = 0;

  /** The tokens that are complete with these bytes. */
  *feed(input: Uint8Array): Generator<JsonToken> {
    let at = 0;
    while (at < input.length) {
      if (this.#state === "string") at = this.#takePlainText(input, at);
      if (at === input.length) break;
      const byte = input[at];
      const step = this.#step(byte);
      if (step === "end before") {
        this.taken = at;
        yield this.#finish(this.#state === "keyword" ? "keyword" : "number", "start");
        continue;
      }
      const token = this.#take(byte, step);
      this.taken = at + 1;
      if (token) yield token;
      this.#advance(byte);
      at++;
      if (this.#length > maxTokenBytes) yield this.#finish("oversize", "recovery");
    }
  }

  #step(byte: number): Step {
    switch (this.#state) {
      case "start":
        return firstStep(byte);
      case "recovery":
        return isForeign(byte) || isPunctuator(byte) ? "start" : "recovery";
      case "string":
        if (isForeign(byte)) return "stray";
        return byte === this.#quote ? "end after" : byte === backslash ? "escape" : "string";
      case "escape":
        return isForeign(byte) ? "stray" : "string";
      case "keyword":
        return isLower(byte) ? "keyword" : "end before";
      default:
        return numberStep(this.#state, byte);
    }
  }

  /** Handles one byte; returns the token that it completes. */
  #take(byte: number, step: Step): JsonToken | undefined {
    if (this.#state === "start") return this.#takeFirst(byte, this.#column);
    if (this.#state === "recovery") {
      if (step === "recovery") return undefined;
      this.#state = "start";
      // QEMU places a token that ends a recovery one column to the right.
      return this.#takeFirst(byte, this.#column + 1);
    }
    this.#append(Uint8Array.of(byte));
    if (step === "stray") return this.#finish("stray", "recovery");
    if (step === "end after") return this.#finish("string", "start");
    this.#state = step as State;
  }

  /** Handles a byte outside of any token. */
  #takeFirst(byte: number, column: number): JsonToken | undefined {
    const step = firstStep(byte);
    if (step === "start") return undefined;
    this.#tokenColumn = column;
    this.#append(Uint8Array.of(byte));
    if (step === "end after") return this.#finish("punctuator", "start");
    if (step === "stray") return this.#finish("stray", "recovery");
    this.#quote = byte;
    this.#state = step as State;
  }

  /** Takes string content up to a byte that needs a look; the common case, so in one go. */
  #takePlainText(input: Uint8Array, from: number): number {
    let at = from;
    const room = Math.min(input.length, from + maxTokenBytes - this.#length);
    while (
      at < room && !isForeign(input[at]) && input[at] !== this.#quote && input[at] !== backslash
    ) at++;
    this.#append(input.subarray(from, at));
    this.#column += at - from;
    return at;
  }

  #append(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.#token.length) {
      const larger = new Uint8Array(Math.max(length, 2 * this.#token.length));
      larger.set(this.#token.subarray(0, this.#length));
      this.#token = larger;
    }
    this.#token.set(bytes, this.#length);
    this.#length = length;
  }

  #finish(type: JsonToken["type"], next: State): JsonToken {
    const bytes = this.#token.slice(0, this.#length);
    if (this.#token.length > 1 << 16) this.#token = new Uint8Array(256);
    this.#length = 0;
    this.#state = next;
    return { type, bytes, line: this.#line, column: this.#tokenColumn };
  }

  #advance(byte: number): void {
    this.#column++;
    if (byte !== newline) return;
    this.#line++;
    this.#column = 1;
  }
}
