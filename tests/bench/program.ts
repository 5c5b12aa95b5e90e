/**
 * Starts Denovo's bundle as a user does, and talks QMP to it.
 *
 * @module
 */
import { makePipe, readFd } from "../../ffi/fd.ts";
import { spawn } from "../../ffi/process.ts";
import { type ProgramName, programs } from "../guests/programs.ts";

/** A folder for files of a benchmark, deleted at the end of an `await using` scope. */
export class Workspace implements AsyncDisposable {
  private constructor(readonly path: string) {}

  /** Makes an empty one. */
  static async create(): Promise<Workspace> {
    return new Workspace(await Deno.makeTempDir({ prefix: "denovo-bench-" }));
  }

  /** Writes a guest program into it. */
  async guest(name: ProgramName): Promise<string> {
    const file = `${this.path}/${name}`;
    await Deno.writeFile(file, programs[name].bytes);
    return file;
  }

  /** The beginning of a command line: what follows has a cache of Deno's of its own. */
  get uncached(): string[] {
    return ["env", `DENO_DIR=${this.#cache}`];
  }

  /** Lets what is started {@linkcode uncached} next be the first that is. */
  emptyCache(): void {
    Deno.mkdirSync(this.#cache, { recursive: true });
    Deno.removeSync(this.#cache, { recursive: true });
  }

  get #cache(): string {
    return `${this.path}/cache`;
  }

  /** Deletes the folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** Lets the event loop run for a while. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Whether a program is there. */
export async function isInstalled(program: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: ["--version"] }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Ticks of the times in /proc, a second: USER_HZ of every Linux on x86. */
const TICKS = 100;

/** Processor time that a process has used so far, in seconds (proc_pid_stat(5): utime and stime). */
export function processorSeconds(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** Milliseconds from just before a process is spawned to the first byte on its stdout. */
export function firstByte(argv: readonly string[]): number {
  const [reader, writer] = makePipe();
  using _reader = reader;
  const start = performance.now();
  using child = spawn(argv, { fds: [[writer.fd, 1]] });
  writer.close();
  const got = readFd(reader.fd, new Uint8Array(64));
  const elapsed = performance.now() - start;
  child.wait();
  if (got <= 0) throw new Error(`${argv.join(" ")} printed nothing`);
  return elapsed;
}

interface Reply {
  return?: unknown;
  error?: { desc: string };
  event?: string;
  data?: Record<string, unknown>;
  timestamp?: { seconds: number; microseconds: number };
}

/** An event as it came. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** A QMP connection. */
export class Qmp implements Disposable {
  #buffer = "";
  readonly #decoder = new TextDecoder();
  #events: QmpEvent[] = [];
  /** When the guest was stopped last: microseconds of CLOCK_REALTIME, from the event STOP. */
  stoppedUs: number | undefined;

  private constructor(readonly connection: Deno.Conn) {}

  /** Connects and negotiates, once somebody listens. @throws {Error} if nobody does in 60 s */
  static async connect(path: string): Promise<Qmp> {
    for (const start = performance.now();;) {
      let qmp: Qmp | undefined;
      try {
        qmp = new Qmp(await Deno.connect({ transport: "unix", path }));
        await qmp.#line();
        await qmp.execute("qmp_capabilities");
        return qmp;
      } catch (error) {
        qmp?.[Symbol.dispose]();
        if (performance.now() - start > 60_000) throw error;
        await sleep(5);
      }
    }
  }

  /** Executes a command and returns its result. @throws {Error} with the error's description */
  async execute(command: string, argument?: unknown): Promise<unknown> {
    const text = JSON.stringify({ execute: command, arguments: argument });
    await this.connection.write(new TextEncoder().encode(`${text}\n`));
    for (;;) {
      const reply = await this.#next();
      if (!reply) continue;
      if (reply.error) throw new Error(`${command}: ${reply.error.desc}`);
      if ("return" in reply) return reply.return;
    }
  }

  /** The next event that fits, from the last one that was waited for. */
  async event(fits: (event: QmpEvent) => boolean): Promise<QmpEvent> {
    for (;;) {
      const index = this.#events.findIndex(fits);
      if (index >= 0) return this.#events.splice(0, index + 1)[index];
      if (await this.#next()) throw new Error("The VMM sent a reply to no command");
    }
  }

  /** Ends the connection. */
  [Symbol.dispose](): void {
    this.connection.close();
  }

  /** Reads a message; an event is kept for later and is no reply. */
  async #next(): Promise<Reply | undefined> {
    const message: Reply = JSON.parse(await this.#line());
    if (message.event === undefined) return message;
    const { seconds, microseconds } = message.timestamp ?? { seconds: 0, microseconds: 0 };
    if (message.event === "STOP") this.stoppedUs = seconds * 1e6 + microseconds;
    this.#events.push({ event: message.event, data: message.data ?? {} });
    return undefined;
  }

  async #line(): Promise<string> {
    const chunk = new Uint8Array(65536);
    while (!this.#buffer.includes("\n")) {
      const n = await this.connection.read(chunk);
      if (n === null) throw new Error("The QMP connection has ended");
      this.#buffer += this.#decoder.decode(chunk.subarray(0, n), { stream: true });
    }
    const end = this.#buffer.indexOf("\n");
    const line = this.#buffer.slice(0, end);
    this.#buffer = this.#buffer.slice(end + 1);
    return line;
  }
}
