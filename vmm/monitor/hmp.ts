/**
 * An HMP session: a human at a terminal.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import { decodeText, encodeText } from "../../ffi/text.ts";
import type { CommandSet } from "./context.ts";
import { type CommandContext, Deferred, newSession } from "./context.ts";
import type { MachineControl } from "./control.ts";
import { completions, executeLine } from "./hmp_line.ts";
import { toBytes, toLatin1 } from "./latin1.ts";
import { Readline } from "./readline.ts";
import type { HmpState } from "./schema/session.ts";
import { type ByteTransport, PassedFds } from "./transport.ts";
import { denovoVersion } from "./version.ts";

/** One HMP connection, from its banner to its end. */
export class HmpSession {
  readonly #context: CommandContext;
  readonly #transport: ByteTransport;
  readonly #fds = new PassedFds();
  readonly #deferred = new Deferred();
  readonly #readline: Readline;
  #queue: Promise<void> = Promise.resolve();
  #closed = false;
  /** What has come and was not looked at yet. */
  #typed = "";
  #busy = false;

  /**
   * Writes the banner and the first prompt.
   *
   * @param state of a session that is to go on instead
   */
  constructor(
    machine: MachineControl,
    table: CommandSet,
    transport: ByteTransport,
    state?: HmpState,
  ) {
    this.#transport = transport;
    this.#readline = new Readline("(qemu) ", {
      write: (bytes) => this.#write(toBytes(bytes)),
      complete: (line) => completions(table, line),
    });
    const { history } = this.#readline;
    const session = { ...newSession(this.#deferred, () => this.#fds.take()), history };
    this.#context = { machine, table, session };
    if (state) this.#resume(state);
    else this.#greet();
  }

  #greet(): void {
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
    this.#typed += toLatin1(bytes);
    this.#queue = this.#queue.then(() => this.#handle());
    return this.#queue;
  }

  /** What another session needs to go on with this one's connection. */
  save(): HmpState {
    const { cpuIndex } = this.#context.session;
    return { typed: this.#typed, busy: this.#busy, cpuIndex, readline: this.#readline.save() };
  }

  #resume({ typed, busy, cpuIndex, readline }: HmpState): void {
    this.#readline.restore(readline);
    if (cpuIndex < this.#context.machine.vcpus.length) this.#context.session.cpuIndex = cpuIndex;
    if (busy) this.#readline.start();
    void this.receive(toBytes(typed));
  }

  /** Ends the session: output is dropped, untaken descriptors are closed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#fds.close();
    this.#transport.close();
  }

  async #handle(): Promise<void> {
    while (this.#typed !== "" && !this.#closed) {
      const line = this.#readline.receive(this.#typed[0]);
      this.#typed = this.#typed.slice(1);
      if (line === undefined) continue;
      this.#busy = true;
      this.#print(await executeLine(this.#context, decodeText(toBytes(line))));
      this.#busy = false;
      this.#readline.start();
      this.#deferred.run();
    }
  }

  #print(text: string): void {
    if (text !== "") this.#write(encodeText(text.replaceAll("\n", "\r\n")));
  }

  #write(bytes: Uint8Array<ArrayBuffer>): void {
    if (!this.#closed) this.#transport.write(bytes);
  }
}
