/**
 * HMP's integer expressions: `0x1000 + 8 * 4`, `$rip`, `'a'`.
 *
 * Binding from weak to strong: `+ -`, then `& | ^`, then `* / %`, then unary `+ - ~` and parentheses.
 * (That `+` binds weaker than `&` is QEMU's, not C's.) Values are 64 bits wide.
 *
 * @module
 */
import type { Awaitable } from "./control.ts";
import { HmpSyntaxError, type LineReader } from "./line_reader.ts";

/** Looks up a register by its name without `$`. */
export type RegisterLookup = (name: string) => Awaitable<bigint | undefined>;

/** Deepest nesting: each level costs stack, and the line is the client's. */
const maxNesting = 256;

/** Evaluates the expression at the reader's position and moves behind it; signed 64-bit result. */
export async function readExpression(
  reader: LineReader,
  register: RegisterLookup,
): Promise<bigint> {
  const value = await new Evaluator(reader, register).sum();
  reader.skipSpace();
  return BigInt.asIntN(64, value);
}

class Evaluator {
  readonly #reader: LineReader;
  readonly #register: RegisterLookup;
  #nesting = 0;

  constructor(reader: LineReader, register: RegisterLookup) {
    this.#reader = reader;
    this.#register = register;
  }

  async sum(): Promise<bigint> {
    let value = await this.#logic();
    for (;;) {
      if (this.#accept("+")) value += await this.#logic();
      else if (this.#accept("-")) value -= await this.#logic();
      else return value;
      value = BigInt.asIntN(64, value);
    }
  }

  async #logic(): Promise<bigint> {
    let value = await this.#product();
    for (;;) {
      if (this.#accept("&")) value &= await this.#product();
      else if (this.#accept("|")) value |= await this.#product();
      else if (this.#accept("^")) value ^= await this.#product();
      else return value;
    }
  }

  async #product(): Promise<bigint> {
    let value = await this.#unary();
    for (;;) {
      if (this.#accept("*")) value = BigInt.asIntN(64, value * await this.#unary());
      else if (this.#accept("/")) value /= await this.#divisor();
      else if (this.#accept("%")) value %= await this.#divisor();
      else return value;
    }
  }

  async #divisor(): Promise<bigint> {
    const value = await this.#unary();
    if (value === 0n) throw new HmpSyntaxError("division by zero");
    return value;
  }

  async #unary(): Promise<bigint> {
    if (++this.#nesting > maxNesting) throw new HmpSyntaxError("expression too deep");
    try {
      if (this.#accept("+")) return await this.#unary();
      if (this.#accept("-")) return -await this.#unary();
      if (this.#accept("~")) return ~await this.#unary();
      if (this.#accept("(")) {
        const value = await this.sum();
        if (!this.#accept(")")) throw new HmpSyntaxError("')' expected");
        return value;
      }
      return await this.#operand();
    } finally {
      this.#nesting--;
    }
  }

  async #operand(): Promise<bigint> {
    const reader = this.#reader;
    reader.skipSpace();
    if (reader.atEnd) throw new HmpSyntaxError("unexpected end of expression");
    if (reader.accept("'")) {
      const char = reader.take();
      if (!reader.accept("'")) throw new HmpSyntaxError("missing terminating ' character");
      return BigInt(char.codePointAt(0) ?? 0);
    }
    if (reader.accept("$")) {
      const value = await this.#register(reader.takeMatch(/[A-Za-z0-9_.]*/y).toLowerCase());
      if (value === undefined) throw new HmpSyntaxError("unknown register");
      return BigInt.asIntN(64, value);
    }
    return this.#number();
  }

  /** A number as strtoull reads it in base 0: hexadecimal after 0x, octal after 0, else decimal. */
  #number(): bigint {
    const digits = this.#reader.takeMatch(/0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*/y);
    if (digits === "") {
      throw new HmpSyntaxError(`invalid char '${this.#reader.peek()}' in expression`);
    }
    const value = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
    if (value >= 1n << 64n) throw new HmpSyntaxError("number too large");
    return BigInt.asIntN(64, value);
  }

  #accept(char: string): boolean {
    this.#reader.skipSpace();
    return this.#reader.accept(char);
  }
}
