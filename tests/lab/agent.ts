/**
 * Runs inside the lab: takes commands from the host, one a connection, as `wire.ts` says.
 *
 *     deno run -A agent.ts PORT
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

/** Milliseconds that output may still come after a command's end, from what it has left behind. */
const LINGER_MS = 500;

/** One command and its connection. */
class Job {
  readonly #connection: Deno.Conn;
  readonly #writer: FrameWriter;
  #child: Deno.ChildProcess | undefined;
  #input: WritableStreamDefaultWriter<Uint8Array> | undefined;
  #done = false;

  constructor(connection: Deno.Conn) {
    this.#connection = connection;
    this.#writer = new FrameWriter(connection.writable);
  }

  /** Serves the connection to its end. */
  async serve(): Promise<void> {
    const alive = () => this.#writer.write(encodeFrame(Kind.ALIVE)).catch(() => {});
    const timer = setInterval(alive, ALIVE_INTERVAL_MS);
    await alive();
    try {
      for await (const { kind, data } of readFrames(this.#connection.readable)) {
        if (kind === Kind.RUN) void this.#run(JSON.parse(new TextDecoder().decode(data)));
        else if (kind === Kind.INPUT) await this.#feed(data);
        else if (kind === Kind.INPUT_END) await this.#input?.close().catch(() => {});
      }
    } catch {
      // The host has gone, or what it says makes no sense: both end the command.
    }
    clearInterval(timer);
    this.#kill();
  }

  /** Bytes for a command that takes no more are nobody's. */
  async #feed(data: Uint8Array): Promise<void> {
    await this.#input?.write(data).catch(() => {});
  }

  async #run(request: Request): Promise<void> {
    let outcome: Outcome;
    try {
      outcome = await this.#command(request);
    } catch (error) {
      outcome = { code: 127, error: (error as Error).message };
    }
    this.#done = true;
    try {
      await this.#writer.write(encodeObject(Kind.EXIT, outcome));
      this.#connection.close();
    } catch {
      // Nobody wants to know any more.
    }
  }

  async #command({ argv: [file, ...args], cwd, env }: Request): Promise<Outcome> {
    const child = this.#child = new Deno.Command(file, {
      ...{ args, cwd, env },
      ...{ stdin: "piped", stdout: "piped", stderr: "piped" },
      // A process group of its own, which can be ended as a whole.
      detached: true,
    }).spawn();
    this.#input = child.stdin.getWriter();
    const output = Promise.all([
      this.#writer.pump(Kind.STDOUT, child.stdout),
      this.#writer.pump(Kind.STDERR, child.stderr),
    ]).catch(() => {});
    const { code } = await child.status;
    await Promise.race([output, new Promise((resolve) => setTimeout(resolve, LINGER_MS))]);
    return { code };
  }

  #kill(): void {
    if (!this.#child || this.#done) return;
    try {
      Deno.kill(-this.#child.pid, "SIGKILL");
    } catch {
      // It has ended meanwhile.
    }
  }
}

const listener = Deno.listen({ port: Number(Deno.args[0]) });
console.log(`agent: port ${(listener.addr as Deno.NetAddr).port}`);
for await (const connection of listener) void new Job(connection).serve();
