/**
 * A small QMP client over a UNIX socket.
 *
 * @module
 */

/** A message from the VM. */
export interface QmpMessage {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
}

/** One QMP connection, past its negotiation. */
export class QmpClient implements Disposable {
  readonly #connection: Deno.UnixConn;
  readonly #lines: AsyncIterator<string>;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    this.#lines = lines(connection.readable);
  }

  /**
   * Connects, waiting for the socket to appear, and negotiates.
   *
   * @param path the socket
   * @param limitMs how long to wait for it
   */
  static async connect(path: string, limitMs = 10_000): Promise<QmpClient> {
    const client = new QmpClient(await connectWhenThere(path, Date.now() + limitMs));
    await client.#next();
    await client.execute("qmp_capabilities");
    return client;
  }

  /** Runs a command and returns its result. @throws {Error} with the reply's `desc` */
  async execute<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    const request = JSON.stringify({ execute: command, arguments: args }) + "\n";
    const writer = this.#connection.writable.getWriter();
    await writer.write(new TextEncoder().encode(request));
    writer.releaseLock();
    for (;;) {
      const message = await this.#next();
      if (message.event) continue;
      if (message.error) throw new Error(message.error.desc);
      return message.return as T;
    }
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#connection.close();
  }

  async #next(): Promise<QmpMessage> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("The VM has closed the connection");
    return JSON.parse(value);
  }
}

async function connectWhenThere(path: string, deadline: number): Promise<Deno.UnixConn> {
  for (;;) {
    try {
      return await Deno.connect({ transport: "unix", path });
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

async function* lines(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    for (const part of parts) if (part.trim() !== "") yield part;
  }
}
