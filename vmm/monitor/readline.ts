/**
 * Line editing on a byte terminal, as QEMU's monitor does it: the monitor echoes, and redraws the line
 * after each change.
 *
 * Text is kept as bytes (one character a byte), since a terminal sends UTF-8 in pieces.
 *
 * @module
 */
/** Bytes of the longest line. */
export const maxLineBytes = 4095;
/** Lines that are remembered. */
export const maxHistory = 64;
const screenColumns = 80;
const tab = "\t";

/** What a line editor needs from its surroundings. */
export interface ReadlineHost {
  /** Sends bytes to the terminal, one a character. */
  write(bytes: string): void;
  /** Words that the last word of a line's beginning may become. */
  complete(line: string): readonly string[];
}

/** A line that is being typed, and those before it. */
export interface ReadlineState {
  readonly line: string;
  readonly cursor: number;
  /** The beginning of an escape sequence. */
  readonly escape: string;
  readonly history: string[];
}

/** Edits one line at a time and remembers the lines. */
export class Readline {
  /** Lines entered, oldest first; a line entered again moves to the end. */
  readonly history: string[] = [];
  readonly #prompt: string;
  readonly #host: ReadlineHost;
  #line = "";
  #cursor = 0;
  /** What the terminal shows. */
  #shown = "";
  #shownCursor = 0;
  #escape = "";
  /** Place in the history; its length stands for the line being typed. */
  #recalled = 0;

  /** Starts with an empty line; nothing is written yet. */
  constructor(prompt: string, host: ReadlineHost) {
    this.#prompt = prompt;
    this.#host = host;
  }

  /** Shows the prompt for a new line. */
  start(): void {
    this.#line = this.#shown = "";
    this.#cursor = this.#shownCursor = 0;
    this.#escape = "";
    this.#recalled = this.history.length;
    this.#host.write(this.#prompt);
  }

  /** The line as it is, for another editor on the same terminal. */
  save(): ReadlineState {
    return {
      line: this.#line,
      cursor: this.#cursor,
      escape: this.#escape,
      history: [...this.history],
    };
  }

  /** Goes on where another editor was: the terminal shows its line. */
  restore({ line, cursor, escape, history }: ReadlineState): void {
    this.#line = this.#shown = line;
    this.#cursor = this.#shownCursor = Math.min(cursor, line.length);
    this.#escape = escape;
    this.history.splice(0, this.history.length, ...history);
    this.#recalled = this.history.length;
  }

  /** Handles one byte (as a character); returns the line if it ends one. */
  receive(char: string): string | undefined {
    if (this.#escape !== "") this.#continueEscape(char);
    else if (char === "\r" || char === "\n") return this.#enter();
    else if (char === "\x1b") this.#escape = char;
    else if (char >= " " && char !== "\x7f") this.#insert(char);
    else this.#control(char);
    this.#update();
    return undefined;
  }

  #enter(): string {
    const line = this.#line;
    if (line !== "") {
      const before = this.history.indexOf(line);
      if (before >= 0) this.history.splice(before, 1);
      this.history.push(line);
      if (this.history.length > maxHistory) this.history.shift();
    }
    this.#host.write("\r\n");
    return line;
  }

  #control(char: string): void {
    switch (char) {
      case "\x01": // ^A
        return this.#move(0);
      case "\x04": // ^D
        return this.#delete(this.#cursor, this.#cursor + 1);
      case "\x05": // ^E
        return this.#move(this.#line.length);
      case "\x08": // ^H
      case "\x7f":
        return this.#delete(this.#cursor - 1, this.#cursor);
      case tab:
        return this.#complete();
      case "\x0b": // ^K
        return this.#delete(this.#cursor, this.#line.length);
      case "\x0c": // ^L
        this.#host.write(`\x1b[2J\x1b[1;1H${this.#prompt}`);
        this.#shown = "";
        this.#shownCursor = 0;
        return;
      case "\x15": // ^U
        return this.#delete(0, this.#cursor);
      case "\x17": // ^W
        return this.#delete(
          this.#line.slice(0, this.#cursor).search(/\S*\s*$/),
          this.#cursor,
        );
    }
  }

  /** Handles an escape sequence: `ESC [` or `ESC O`, digits, a final character. */
  #continueEscape(char: string): void {
    const sequence = this.#escape + char;
    const isOpen = /^(?:[[O]|\[[0-9]{1,4})$/.test(sequence.slice(1));
    this.#escape = isOpen ? sequence : "";
    if (isOpen) return;
    switch (sequence.slice(2)) {
      case "A":
        return this.#recall(-1);
      case "B":
        return this.#recall(1);
      case "C":
        return this.#move(this.#cursor + 1);
      case "D":
        return this.#move(this.#cursor - 1);
      case "H":
      case "1~":
        return this.#move(0);
      case "F":
      case "4~":
        return this.#move(this.#line.length);
      case "3~":
        return this.#delete(this.#cursor, this.#cursor + 1);
    }
  }

  #move(to: number): void {
    this.#cursor = Math.min(Math.max(to, 0), this.#line.length);
  }

  #insert(text: string): void {
    if (this.#line.length + text.length > maxLineBytes) return;
    this.#line = this.#line.slice(0, this.#cursor) + text + this.#line.slice(this.#cursor);
    this.#cursor += text.length;
  }

  #delete(from: number, to: number): void {
    if (from < 0) return;
    this.#line = this.#line.slice(0, from) + this.#line.slice(to);
    this.#cursor = from;
  }

  #recall(step: number): void {
    const index = this.#recalled + step;
    if (index < 0 || index > this.history.length) return;
    this.#recalled = index;
    this.#line = this.history[index] ?? "";
    this.#cursor = this.#line.length;
  }

  /** Inserts what all candidates have in common; lists them if there are several. */
  #complete(): void {
    const before = this.#line.slice(0, this.#cursor);
    const candidates = this.#host.complete(before);
    if (candidates.length === 0) return;
    const typed = before.length - (before.search(/\S*$/));
    if (candidates.length === 1) return this.#insert(`${candidates[0].slice(typed)} `);
    const [first] = candidates;
    let common = first.length;
    while (!candidates.every((name) => name.startsWith(first.slice(0, common)))) common--;
    this.#insert(first.slice(typed, common));
    const width = Math.max(10, ...candidates.map((name) => name.length + 2));
    const perRow = Math.max(1, Math.floor(screenColumns / width));
    let list = "\r\n";
    for (let at = 0; at < candidates.length; at += perRow) {
      const row = candidates.slice(at, at + perRow);
      list += `${row.map((name) => name.padEnd(width)).join("")}\r\n`;
    }
    this.#host.write(list + this.#prompt);
    this.#shown = "";
    this.#shownCursor = 0;
  }

  /** Makes the terminal show the line: all of it if it has changed, else just the cursor. */
  #update(): void {
    const back = (columns: number) => "\x1b[D".repeat(columns);
    if (this.#line !== this.#shown) {
      this.#host.write(
        `${back(this.#shownCursor)}${this.#line}\x1b[K${back(this.#line.length - this.#cursor)}`,
      );
    } else if (this.#cursor < this.#shownCursor) {
      this.#host.write(back(this.#shownCursor - this.#cursor));
    } else if (this.#cursor > this.#shownCursor) {
      this.#host.write("\x1b[C".repeat(this.#cursor - this.#shownCursor));
    }
    this.#shown = this.#line;
    this.#shownCursor = this.#cursor;
  }
}
