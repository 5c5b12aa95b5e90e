/**
 * A VMM's process and its monitor.
 *
 * @module
 */
import { Qmp, sleep } from "../program.ts";

/** No step of an update that works takes this long. */
const PATIENCE_MS = 30_000;

/** What `query-migrate` says that is of interest here. */
export interface MigrateInfo {
  readonly status?: string;
  readonly "error-desc"?: string;
  readonly "x-pause"?: number;
  readonly "x-timeline"?: unknown;
  readonly "x-pause-usage"?: unknown;
}

/** Rejects if a promise takes too long. @param what names what was waited for */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const error = new Error(`Waited in vain for ${what}`);
  const timer = setTimeout(() => reject(error), PATIENCE_MS);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    // Whoever lost the race must not end the program later.
    promise.catch(() => {});
  }
}

/** Waits until a condition holds. @throws {Error} if it does not in time */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const start = performance.now();
  while (!condition()) {
    if (performance.now() - start > PATIENCE_MS) throw new Error(`Waited in vain for ${what}`);
    await sleep(1);
  }
}

/** A running VMM. After cpr-exec it is the same process with another program. */
export class VmmProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  #qmp: Qmp | undefined;
  #stderr = "";
  #stoppedUs: number | undefined;
  readonly #collected: Promise<void>;

  /**
   * @param command the command line, without the monitor
   * @param socket where its monitor shall listen
   * @param more what is only for its start, e.g. `-incoming`
   */
  constructor(
    readonly command: readonly string[],
    readonly socket: string,
    more: readonly string[] = [],
  ) {
    const [program, ...args] = [...this.argv, ...more];
    const options = { args, stdin: "null", stdout: "null", stderr: "piped" } as const;
    this.#child = new Deno.Command(program, options).spawn();
    this.#collected = this.#collect();
  }

  /** The command line with the monitor. */
  get argv(): string[] {
    return [...this.command, "-qmp", `unix:${this.socket},server=on,wait=off`];
  }

  /** The process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** What it printed as errors, the last of it. */
  get complaint(): string {
    return this.#stderr.trim().slice(-300);
  }

  /** When its guest was stopped last, microseconds of CLOCK_REALTIME; undefined if never. */
  get stoppedUs(): number | undefined {
    return this.#qmp?.stoppedUs ?? this.#stoppedUs;
  }

  /** Connects to the monitor, anew after an exec; MIGRATION events are on then. */
  async connect(): Promise<void> {
    this.#stoppedUs = this.stoppedUs;
    this.#qmp?.[Symbol.dispose]();
    this.#qmp = undefined;
    this.#qmp = await within(
      Promise.race([Qmp.connect(this.socket), this.#died()]),
      `the monitor at ${this.socket}`,
    );
    await this.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "events", state: true }],
    });
  }

  /** Executes a QMP command. @throws {Error} with the error's description */
  async execute(command: string, argument?: unknown): Promise<unknown> {
    return await within(this.#monitor.execute(command, argument), `the reply to ${command}`);
  }

  /** `query-migrate`. */
  async migrateInfo(): Promise<MigrateInfo> {
    return await this.execute("query-migrate") as MigrateInfo;
  }

  /** Waits for the migration's end. @throws {Error} with the reason, if it did not complete */
  async migrated(): Promise<void> {
    const { data } = await within(
      this.#monitor.event(({ event, data }) =>
        event === "MIGRATION" && ["completed", "failed", "cancelled"].includes(`${data.status}`)
      ),
      "the end of the migration",
    );
    if (data.status === "completed") return;
    const { "error-desc": reason } = await this.migrateInfo();
    throw new Error(`The migration has ${data.status}: ${reason ?? "no reason given"}`);
  }

  /** Waits until the monitor's connection has ended. @throws {Error} if the migration fails */
  async execed(): Promise<void> {
    const failed = this.#monitor.event(({ event, data }) =>
      event === "MIGRATION" && data.status === "failed"
    );
    await within(failed.then(() => true, () => false), "the exec").then(async (hasFailed) => {
      if (!hasFailed) return;
      const { "error-desc": reason } = await this.migrateInfo();
      throw new Error(`The migration has failed: ${reason ?? "no reason given"}`);
    });
  }

  /** Waits until the guest runs here and the migration is complete. */
  async running(): Promise<MigrateInfo> {
    for (const start = performance.now();;) {
      const { running } = await this.execute("query-status") as { running: boolean };
      const info = await this.migrateInfo();
      if (info.status === "failed") throw new Error(`The migration failed: ${info["error-desc"]}`);
      if (running && info.status === "completed") return info;
      if (performance.now() - start > PATIENCE_MS) throw new Error("The guest does not run");
      await sleep(2);
    }
  }

  /** `query-migrate` of a Denovo whose guest runs: the pause is known once all vCPUs have gone on. */
  async accounted(): Promise<MigrateInfo> {
    for (const start = performance.now();;) {
      const info = await this.migrateInfo();
      if (info["x-pause"] !== undefined) return info;
      if (performance.now() - start > PATIENCE_MS) throw new Error("The VMM tells no pause");
      await sleep(2);
    }
  }

  /** Ends it by `quit`. */
  async quit(): Promise<void> {
    await this.execute("quit");
    await within(this.#child.status, "the end of the old VMM");
  }

  /** Kills it, if it is still there. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#qmp?.[Symbol.dispose]();
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.status;
  }

  get #monitor(): Qmp {
    if (!this.#qmp) throw new Error("The monitor is not connected");
    return this.#qmp;
  }

  async #collect(): Promise<void> {
    for await (const chunk of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      this.#stderr = (this.#stderr + chunk).slice(-4096);
    }
  }

  async #died(): Promise<never> {
    const { code, signal } = await this.#child.status;
    await this.#collected;
    throw new Error(`The VMM has ended with ${signal ?? `status ${code}`}: ${this.complaint}`);
  }
}
