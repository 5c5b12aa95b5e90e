/**
 * A client of the guest's agent (QEMU's guest agent protocol, qga/qapi-schema.json) over the socket of a
 * port. It asks all the time: one question after the other, and one is always on its way.
 *
 * @module
 */

/** Milliseconds between attempts to connect. */
const POLL_MS = 20;

interface Reply {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

/** One connection: a line of JSON for each question and each reply. */
class Connection implements Disposable {
  readonly #connection: Deno.UnixConn;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";

  constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    this.#reader = connection.readable.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Sends a question. */
  async ask(execute: string, args?: object): Promise<void> {
    const question = JSON.stringify({ execute, arguments: args }) + "\n";
    await this.write(new TextEncoder().encode(question));
  }

  async write(bytes: Uint8Array): Promise<void> {
    while (bytes.length > 0) bytes = bytes.subarray(await this.#connection.write(bytes));
  }

  /** The next reply. @throws {Error} if the connection ends */
  async reply(): Promise<Reply> {
    while (!this.#text.includes("\n")) {
      const { value, done } = await this.#reader.read();
      if (done) throw new Error("The connection to the agent's port has ended");
      this.#text += value;
    }
    const end = this.#text.indexOf("\n");
    const line = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 1);
    return JSON.parse(line);
  }

  [Symbol.dispose](): void {
    try {
      this.#connection.close();
    } catch {
      // It has ended, or was closed to end a read.
    }
  }
}

/** Asks an agent. */
export class Agent implements AsyncDisposable {
  /** Questions that were answered. */
  answers = 0;
  /** Connections so far. */
  connections = 0;
  #failure: Error | undefined;
  #closed = false;
  #mayEnd = false;
  #connection: Connection | undefined;
  readonly #asking: Promise<void>;

  /** @param path the port's socket, on which each VMM listens */
  constructor(readonly path: string) {
    this.#asking = this.#run();
  }

  /**
   * Says whether the connection may end, as it does when the guest goes through a file; the agent is
   * asked over a new one then, and a question may remain without an answer.
   */
  mayEnd(value: boolean): void {
    this.#mayEnd = value;
  }

  /** Waits until two questions more are answered: the second was asked after this. @throws {Error} */
  async responds(patienceMs: number): Promise<void> {
    const [before, end] = [this.answers, performance.now() + patienceMs];
    while (this.answers < before + 2) {
      if (this.#failure) throw this.#failure;
      if (performance.now() > end) throw new Error(`The agent is silent after ${before} answers`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Asks no more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#connection?.[Symbol.dispose]();
    await this.#asking;
  }

  async #run(): Promise<void> {
    while (!this.#closed && !this.#failure) {
      const connection = await this.#connect();
      if (!connection) continue;
      using _connection = this.#connection = connection;
      this.connections++;
      try {
        await this.#ask(connection);
      } catch (error) {
        if (!this.#mayEnd && !this.#closed) this.#failure = error as Error;
      }
    }
  }

  async #connect(): Promise<Connection | undefined> {
    try {
      return new Connection(await Deno.connect({ transport: "unix", path: this.path }));
    } catch {
      // Nobody listens yet, or the VMM has gone: another one will come.
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async #ask(connection: Connection): Promise<void> {
    await synchronize(connection, this.connections);
    for (let id = 1; !this.#closed; id++) {
      await connection.ask("guest-sync", { id });
      assertReply(await connection.reply(), id);
      await connection.ask("guest-ping");
      assertReply(await connection.reply(), {});
      this.answers += 2;
    }
  }
}

function assertReply(reply: Reply, wanted: unknown): void {
  const [got, want] = [reply, { return: wanted }].map((value) => JSON.stringify(value));
  if (got !== want) throw new Error(`The agent says ${got}, not ${want}`);
}

/** What the agent said to a connection before this comes first: guest-sync is for that. */
async function synchronize(connection: Connection, number: number): Promise<void> {
  // Ends a question of which only a part has reached the agent, which it may complain of.
  await connection.write(Uint8Array.of(0xff));
  const id = 1_000_000_000 + number;
  await connection.ask("guest-sync", { id });
  while ((await connection.reply()).return !== id);
}
