/**
 * Runs commands in the lab by its agent.
 *
 * @module
 */
import {
  ALIVE_INTERVAL_MS,
  encodeFrame,
  encodeObject,
  FrameWriter,
  Kind,
  type Outcome,
  readFrames,
  type Request,
} from "./wire.ts";

/** So many times in a row the agent may fail to say that it is alive; a busy host is slow. */
const MISSED = 24;

/** The lab has ended, or stands still: what ran in it has been neither proven nor disproven. */
export class LabGone extends Error {
  override readonly name = "LabGone";
}

/** Where a command's input comes from, and its output goes. */
export interface Streams {
  /** Nothing unless given. */
  readonly stdin?: ReadableStream<Uint8Array>;
  readonly stdout: (data: Uint8Array) => void;
  readonly stderr: (data: Uint8Array) => void;
}

/**
 * Runs a command to its end.
 *
 * @param port the agent's, on this host
 * @param signal ends the command and all that it has started
 * @returns its exit status
 * @throws {LabGone} if the lab ends or stands still
 * @throws {Error} if it cannot be started, or `signal` has come
 */
export async function runInside(
  port: number,
  request: Request,
  streams: Streams,
  signal?: AbortSignal,
): Promise<number> {
  let connection: Deno.TcpConn;
  try {
    connection = await Deno.connect({ port });
  } catch (error) {
    throw new LabGone((error as Error).message);
  }
  using end = new Ending(connection, signal);
  const writer = new FrameWriter(connection.writable);
  try {
    await writer.write(encodeObject(Kind.RUN, request));
    void feed(writer, streams.stdin);
    for await (const { kind, data } of readFrames(connection.readable)) {
      end.postpone();
      if (kind === Kind.STDOUT) streams.stdout(data);
      else if (kind === Kind.STDERR) streams.stderr(data);
      else if (kind === Kind.EXIT) return statusOf(data, request);
    }
  } catch (error) {
    if (error instanceof CannotStart) throw error;
    throw end.reason ?? new LabGone((error as Error).message);
  }
  throw end.reason ?? new LabGone("The lab has ended before the command did");
}

/** Whether the agent answers on a port within some milliseconds. */
export async function answers(port: number, limitMs: number): Promise<boolean> {
  let connection: Deno.TcpConn;
  try {
    connection = await Deno.connect({ port });
  } catch {
    return false;
  }
  using _end = new Ending(connection, AbortSignal.timeout(limitMs));
  try {
    for await (const { kind } of readFrames(connection.readable)) return kind === Kind.ALIVE;
  } catch {
    // QEMU ends a connection that nobody takes inside.
  }
  return false;
}

async function feed(writer: FrameWriter, input?: ReadableStream<Uint8Array>): Promise<void> {
  try {
    if (input) await writer.pump(Kind.INPUT, input);
    await writer.write(encodeFrame(Kind.INPUT_END));
  } catch {
    // The command has ended without reading all of it.
  }
}

function statusOf(data: Uint8Array, { argv }: Request): number {
  const { code, error } = JSON.parse(new TextDecoder().decode(data)) as Outcome;
  if (error !== undefined) throw new CannotStart(`${argv[0]}: ${error}`);
  return code;
}

/** The agent could not start the command. */
class CannotStart extends Error {}

/** Closes the connection when it is no longer needed, or its time has come. */
class Ending implements Disposable {
  /** Why it was closed early. */
  reason: Error | undefined;
  readonly #connection: Deno.Conn;
  readonly #signal: AbortSignal | undefined;
  readonly #abort = () => this.#end(new Error("The command was ended"));
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(connection: Deno.Conn, signal: AbortSignal | undefined) {
    this.#connection = connection;
    this.#signal = signal;
    this.postpone();
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort);
  }

  /** Whoever was heard is alive. */
  postpone(): void {
    clearTimeout(this.#timer);
    const limit = MISSED * ALIVE_INTERVAL_MS;
    const text = `The lab has said nothing for ${limit / 1000} s`;
    this.#timer = setTimeout(() => this.#end(new LabGone(text)), limit);
  }

  #end(reason: Error): void {
    this.reason = reason;
    this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.#connection.close();
    } catch {
      // The stream has closed it at its end.
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#close();
  }
}
