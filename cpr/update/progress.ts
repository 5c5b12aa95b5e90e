/**
 * Progress on a terminal: one line for each step, which says how long it took once it is done;
 * elsewhere plain lines.
 *
 * @module
 */

const CLEAR_LINE = "\r\x1b[2K";

/** Shows the steps of an update on stdout. */
export class Progress {
  readonly #terminal = Deno.stdout.isTerminal();
  readonly #encoder = new TextEncoder();
  #current: { readonly text: string; readonly since: number } | undefined;

  /** A step begins, and the one before it is done. */
  step(text: string): void {
    if (!this.#terminal) return this.#write(`${text}\n`);
    this.end(true);
    this.#current = { text, since: performance.now() };
    this.#write(`… ${text}`);
  }

  /** The current step has ended, well or badly. */
  end(ok: boolean): void {
    if (!this.#current) return;
    const { text, since } = this.#current;
    this.#current = undefined;
    const took = `${Math.round(performance.now() - since)} ms`;
    this.#write(`${CLEAR_LINE}${ok ? "✓" : "✗"} ${text} (${took})\n`);
  }

  #write(text: string): void {
    Deno.stdout.writeSync(this.#encoder.encode(text));
  }
}
