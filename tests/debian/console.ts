/**
 * A serial console as a person has it who types at it, over a UNIX socket that each VMM listens on.
 *
 * @module
 */

/** Milliseconds between looks. */
const POLL_MS = 20;

/** The console, which connects again when the VMM that it was connected to is gone. */
export class Console implements Disposable {
  readonly #path: string;
  readonly #ends: () => string | undefined;
  readonly #onLine: (line: string) => void;
  /** What was printed and not taken yet. */
  #text = "";
  #connection: Deno.UnixConn | undefined;
  #closed = false;

  /**
   * @param path the VMM's socket
   * @param ends why there is nothing more to wait for, if there is not
   * @param onLine called with each line
   */
  constructor(path: string, ends: () => string | undefined, onLine: (line: string) => void) {
    this.#path = path;
    this.#ends = ends;
    this.#onLine = onLine;
    void this.#read();
  }

  /** Types a line. */
  async type(line: string): Promise<void> {
    await this.#wait(() => this.#connection !== undefined, "a connection");
    await this.#connection!.write(new TextEncoder().encode(`${line}\n`));
  }

  /**
   * Waits for a text; what is before it, and itself, is taken.
   *
   * @returns what was before it
   * @throws {Error} if it does not come in `seconds`
   */
  async expect(text: string, seconds: number): Promise<string> {
    await this.#wait(() => this.#text.includes(text), JSON.stringify(text), seconds);
    const at = this.#text.indexOf(text);
    const before = this.#text.slice(0, at);
    this.#text = this.#text.slice(at + text.length);
    return before;
  }

  /** Ends the connection. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#connection?.close();
  }

  async #wait(condition: () => boolean, what: string, seconds = 60): Promise<void> {
    const end = performance.now() + 1000 * seconds;
    while (!condition()) {
      const reason = this.#ends() ??
        (performance.now() > end ? `nothing of it in ${seconds} s` : undefined);
      if (reason !== undefined) {
        throw new Error(
          `The console waits for ${what} in vain: ${reason}; ${this.#text.slice(-300)}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    let line = "";
    while (!this.#closed) {
      try {
        using connection = await Deno.connect({ transport: "unix", path: this.#path });
        this.#connection = connection;
        const buffer = new Uint8Array(65536);
        for (let n; (n = await connection.read(buffer)) !== null;) {
          const text = decoder.decode(buffer.subarray(0, n), { stream: true }).replaceAll("\r", "");
          this.#text += text;
          const lines = (line + text).split("\n");
          line = lines.pop()!;
          lines.forEach(this.#onLine);
        }
      } catch {
        // Nobody listens yet, or the VMM has gone: another one will come.
      }
      this.#connection = undefined;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}
