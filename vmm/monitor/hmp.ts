/**
 * An HMP session: a human at a terminal.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import type { CommandTable } from "./command_table.ts";
import { type CommandContext, Deferred, newSession } from "./context.ts";
import type { MachineControl } from "./control.ts";
import { completions, executeLine } from "./hmp_line.ts";
import { Readline } from "./readline.ts";
import { type ByteTransport, PassedFds } from "./transport.ts";
import { denovoVersion } from "./version.ts";

const toBytes = (latin1: string) => Uint8Array.from(latin1, (char) => char.charCodeAt(0));
const toLatin1 = (bytes: Uint8Array) => {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
};

/** One HMP connection, from its banner to its end. */
export class HmpSession {
  readonly #context: CommandContext;
  readonly #transport: ByteTransport;
  readonly #fds = new PassedFds();
  readonly #deferred = new Deferred();
  readonly #readline: Readline;
  #queue: Promise<void> = Promise.resolve();
  #closed = false;

  /** Writes the banner and the first prompt. */
  constructor(machine: MachineControl, table: CommandTable, transport: ByteTransport) {
    this.#transport = transport;
    this.#readline = new Readline("(qemu) ", {
      write: (bytes) => this.#write(toBytes(bytes)),
      complete: (line) => completions(table, line),
    });
    const { history } = this.#readline;
    const session = { ...newSession(this.#deferred, () => this.#fds.take()), history };
    this.#context = { machine, table, session };
    this.#print(`Denovo ${denovoVersion} monitor - type 'help' for more information\n`);
    this.#readline.start();
  }

  /**
   * Handles what was typed. While a command runs, what follows waits for its end.
   *
   * @param bytes from the terminal
   * @param fds descriptors that came with them; the session owns them from here on
   * @returns once all of it is done: read on only then, so that a client cannot fill memory
   */
  receive(bytes: Uint8Array, fds: readonly OwnedFd[] = []): Promise<void> {
    this.#fds.push(fds);
    if (this.#closed) this.#fds.close();
    const text = toLatin1(bytes);
    this.#queue = this.#queue.then(() => this.#handle(text));
    return this.#queue;
  }

  /** Ends the session: output is dropped, untaken descriptors are closed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#fds.close();
    this.#transport.close();
  }

  async #handle(text: string): Promise<void> {
    for (const char of text) {
      if (this.#closed) return;
      const line = this.#readline.receive(char);
      if (line === undefined) continue;
      this.#print(await executeLine(this.#context, new TextDecoder().decode(toBytes(line))));
      this.#readline.start();
      this.#deferred.run();
    }
  }

  #print(text: string): void {
    if (text !== "") this.#write(new TextEncoder().encode(text.replaceAll("\n", "\r\n")));
  }

  #write(bytes: Uint8Array<ArrayBuffer>): void {
    if (!this.#closed) this.#transport.write(bytes);
  }
}
