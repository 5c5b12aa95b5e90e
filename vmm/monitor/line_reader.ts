/**
 * A position in an HMP command line.
 *
 * @module
 */

/** What is wrong with a command line; the message is printed as it is. */
export class HmpSyntaxError extends Error {
  /** The class's name. */
  override readonly name = "HmpSyntaxError";
}

/** Reads a command line from left to right. */
export class LineReader {
  readonly #line: string;
  #at = 0;

  /** Starts at the line's first character. */
  constructor(line: string) {
    this.#line = line;
  }

  /** Whether nothing is left. */
  get atEnd(): boolean {
    return this.#at >= this.#line.length;
  }

  /** What is left. */
  get rest(): string {
    return this.#line.slice(this.#at);
  }

  /** The character `offset` positions ahead; empty at the end. */
  peek(offset = 0): string {
    return this.#line.charAt(this.#at + offset);
  }

  /** Takes one character; empty at the end. */
  take(): string {
    const char = this.peek();
    this.#at += char.length;
    return char;
  }

  /** Takes the text if it comes next. */
  accept(text: string): boolean {
    if (!this.#line.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  /** Takes what a sticky pattern matches here; empty if it does not. */
  takeMatch(sticky: RegExp): string {
    sticky.lastIndex = this.#at;
    const text = sticky.exec(this.#line)?.[0] ?? "";
    this.#at += text.length;
    return text;
  }

  /** Moves to the next character that is no white space. */
  skipSpace(): void {
    this.takeMatch(/\s*/y);
  }

  /**
   * Takes a word, or a text in double quotes with `\n \r \\ \' \"`.
   *
   * @returns undefined if there is none or it is malformed
   */
  takeString(): string | undefined {
    this.skipSpace();
    if (this.atEnd) return undefined;
    if (!this.accept('"')) return this.takeMatch(/\S+/y);
    let text = "";
    for (;;) {
      const char = this.take();
      if (char === "") return undefined;
      if (char === '"') return text;
      if (char !== "\\") {
        text += char;
        continue;
      }
      const escaped = this.take();
      if (escaped === "" || !"nr\\'\"".includes(escaped)) return undefined;
      text += { n: "\n", r: "\r" }[escaped] ?? escaped;
    }
  }
}
