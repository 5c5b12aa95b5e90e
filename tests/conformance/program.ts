/**
 * What the tests of the whole program share: VMMs as child processes, a QMP client, and the steps of
 * a live update.
 *
 * @module
 */
import assert from "node:assert/strict";
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { O, openFile } from "../../ffi/fd.ts";
import { type ChildProcess, type ExitStatus, spawn, type SpawnOptions } from "../../ffi/process.ts";
import { describeCheck, layout, type ProgramName, programs } from "../guests/programs.ts";
import { patience } from "../patience.ts";
import { kill, processesNaming } from "../processes.ts";

import { testAccelerator, withoutNotice } from "../needs_kvm.ts";
import type { AcceleratorName } from "../../vmm/accel/accelerator.ts";

export { kvmTest, onlyKvmTest } from "../needs_kvm.ts";
export { isAlive } from "../processes.ts";

/** A wait that takes longer than this, in milliseconds, has failed: only broken code is so slow. */
const PATIENCE_MS = patience(120_000);
const SIGKILL = 9;

/** How the program is started from its sources, as the README does; options left out. */
export const sources: readonly string[] = [
  ...[Deno.execPath(), "run", "-A", "--no-check"],
  new URL("../../mod.ts", import.meta.url).pathname,
];

/** How it is started from the bundle, in half the time: nearly all tests do that. */
export const program: readonly string[] = await bundleCommand();

/** Lets the event loop run for a while. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until a condition holds; `what` says what was waited for in vain. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: () => string,
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const start = performance.now();
  while (!await condition()) {
    assert.ok(performance.now() - start < patienceMs, `Waited in vain for ${what()}`);
    // Where time is scarce, whoever looks all the time takes it from what is looked for.
    await sleep(patience(2));
  }
}

/** An error reply. */
export class QmpError extends Error {}

interface QmpMessage {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
  readonly data?: { readonly status?: string };
  readonly timestamp?: { readonly seconds: number; readonly microseconds: number };
}

/** A QMP client. */
export class Qmp implements Disposable {
  /**
   * What came, in order: `reply`, `error`, an event's name, or `MIGRATION` with its status.
   */
  readonly log: string[] = [];
  /** When an event was last, by its name: microseconds. */
  readonly times = new Map<string, number>();
  /** Whether the other side has closed the connection. */
  ended = false;
  readonly #connection: Deno.UnixConn;
  readonly #replies: QmpMessage[] = [];
  #text = "";
  #greeted = false;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    void this.#read();
  }

  /** Connects at the first attempt or fails; then negotiates. */
  static async connectAtOnce(path: string): Promise<Qmp> {
    const qmp = new Qmp(await Deno.connect({ transport: "unix", path }));
    await until(() => qmp.#greeted || qmp.ended, () => `QMP's greeting on ${path}`);
    assert.ok(qmp.#greeted, `Connection to ${path} ended before QMP's greeting`);
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  /** Connects as soon as somebody listens. */
  static async connect(path: string): Promise<Qmp> {
    await listens(path);
    return await Qmp.connectAtOnce(path);
  }

  /** Executes a command. @throws {QmpError} with the reply's description */
  async execute<T = unknown>(command: string, args: object = {}): Promise<T> {
    const request = JSON.stringify({ execute: command, arguments: args }) + "\n";
    // To a VMM that has gone nothing can be written: the connection's end says it.
    await this.#connection.write(new TextEncoder().encode(request)).catch(() => this.#close());
    await until(() => this.#replies.length > 0 || this.ended, () => `the reply to ${request}`);
    const reply = this.#replies.shift();
    assert.ok(reply, `Connection ended before the reply to ${request}`);
    if (reply.error) throw new QmpError(reply.error.desc);
    return reply.return as T;
  }

  /** Executes a command that must fail; returns the error's description. */
  async refusal(command: string, args: object = {}): Promise<string> {
    try {
      await this.execute(command, args);
    } catch (error) {
      if (error instanceof QmpError) return error.message;
      throw error;
    }
    assert.fail(`${command} was not refused`);
  }

  /** Executes a line of the human monitor. */
  hmp(line: string): Promise<string> {
    return this.execute<string>("human-monitor-command", { "command-line": line });
  }

  /** The VM's run state. */
  async runState(): Promise<string> {
    return (await this.execute<{ status: string }>("query-status")).status;
  }

  /** The migration's state. */
  migration(): Promise<{ status?: string; "error-desc"?: string; "blocked-reasons"?: string[] }> {
    return this.execute("query-migrate");
  }

  /** Waits until an entry is in the log. */
  async logged(entry: string): Promise<void> {
    await until(() => this.log.includes(entry), () => `${entry} in ${this.log.join(", ")}`);
  }

  /** Waits until the VM is in a run state. */
  async reaches(state: string): Promise<void> {
    let now = "";
    const look = async () => (now = await this.runState()) === state;
    await until(look, () => `${state}, it is ${now}`);
  }

  /** Waits until the other side closes the connection. */
  async closed(): Promise<void> {
    await until(() => this.ended, () => `the connection's end; ${this.log.join(", ")}`);
  }

  /** Switches migration events on. */
  async withEvents(): Promise<this> {
    await this.setCapability("events");
    this.log.length = 0;
    return this;
  }

  /** Switches a migration capability on, or off. */
  async setCapability(capability: string, state = true): Promise<void> {
    await this.execute("migrate-set-capabilities", { capabilities: [{ capability, state }] });
  }

  /** One of a guest program's 8-byte words. */
  async word(address: number): Promise<number> {
    const text = await this.hmp(`xp /1gx 0x${address.toString(16)}`);
    const match = /0x([0-9a-f]{16})\s*$/.exec(text);
    assert.ok(match, `Memory at 0x${address.toString(16)} reads as ${text}`);
    return Number(BigInt(`0x${match[1]}`));
  }

  /** Waits until one of these words has grown. */
  async grown(address: number): Promise<void> {
    const before = await this.word(address);
    let now = before;
    const story = () => `Word 0x${address.toString(16)}, which was ${before} and is ${now}`;
    await until(
      async () => (now = await this.word(address)) !== before,
      () => `${story()}, to grow`,
    );
    assert.ok(now > before, story());
  }

  /** Fails unless a self-checking guest runs: it counts, takes ticks, and has found no error. */
  async assertGuestRuns(): Promise<void> {
    for (const address of [layout.counter, layout.ticks]) await this.grown(address);
    assert.equal(describeCheck(await this.word(layout.check)), "no error");
  }

  /** Fails if a self-checking guest does anything. */
  async assertGuestStands(): Promise<void> {
    const words = [layout.counter, layout.ticks];
    const read = async () => {
      const values: number[] = [];
      for (const address of words) values.push(await this.word(address));
      return values;
    };
    const before = await read();
    await sleep(200);
    assert.deepEqual(await read(), before);
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#close();
  }

  #close(): void {
    if (this.ended) return;
    this.ended = true;
    this.#connection.close();
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(65536);
    const decoder = new TextDecoder();
    try {
      for (let n; (n = await this.#connection.read(buffer)) !== null;) {
        this.#text += decoder.decode(buffer.subarray(0, n), { stream: true });
        const lines = this.#text.split("\n");
        this.#text = lines.pop()!;
        for (const line of lines) this.#take(JSON.parse(line));
      }
    } catch (error) {
      // A VMM that is killed resets its connections; closing ours ends the read.
      if (error instanceof SyntaxError) throw error;
    }
    this.#close();
  }

  #take(message: QmpMessage): void {
    if (message.event !== undefined) {
      const {
        event,
        data,
        timestamp: { seconds, microseconds } = { seconds: 0, microseconds: 0 },
      } = message;
      this.times.set(event, seconds * 1e6 + microseconds);
      this.log.push(event === "MIGRATION" ? `${event} ${data?.status}` : event);
    } else if (message.error || "return" in message) {
      this.log.push(message.error ? "error" : "reply");
      this.#replies.push(message);
    } else this.#greeted = true;
  }
}

/** Waits until somebody listens on a UNIX socket's path: proc(5), `/proc/net/unix`, __SO_ACCEPTCON. */
export async function listens(path: string): Promise<void> {
  const line = new RegExp(`^(\\S+ ){3}00010000 .* ${path}$`, "m");
  await until(
    () => line.test(Deno.readTextFileSync("/proc/net/unix")),
    () => `a listener on ${path}`,
  );
}

/** A VMM in a process of its own. */
export class Vmm {
  constructor(
    readonly child: ChildProcess,
    /** Its options. */
    readonly options: readonly string[],
    readonly qmpPath: string,
    readonly outputPath: string,
  ) {}

  /** What it has written to stdout and stderr. */
  get output(): string {
    return withoutNotice(Deno.readTextFileSync(this.outputPath));
  }

  /** Kills it, and waits until it is gone. */
  kill(): void {
    this.child.kill(SIGKILL);
    this.child.wait();
  }

  /** Waits for its end. */
  async ended(): Promise<ExitStatus> {
    let status: ExitStatus | undefined;
    await until(
      () => (status = this.child.poll()) !== undefined,
      () => `the end of process ${this.child.pid}; it said: ${this.output}`,
    );
    return status!;
  }

  /** Waits until its output holds a text. */
  async said(text: string): Promise<void> {
    await until(() => this.output.includes(text), () => `'${text}' in: ${this.output}`);
  }
}

/** What is special about a VMM. */
export interface VmmOptions extends SpawnOptions {
  /** The guest; `demo` unless given. */
  readonly guest?: ProgramName;
  /** Options that come after the common ones. */
  readonly options?: readonly string[];
  /** The `-serial` option's value; unless given, a file that all VMMs of the laboratory share. */
  readonly serial?: string;
  /** RAM in MiB. */
  readonly memory?: number;
  /** The name of its QMP socket, where it is not that of the VMM. */
  readonly qmp?: string;
  /** What runs the guest, where that is not {@linkcode testAccelerator}. */
  readonly accel?: AcceleratorName;
  /** How it is started, where that is not {@linkcode program}. */
  readonly program?: readonly string[];
}

/** The options that choose an accelerator; none where it is the VMM's own choice. */
function acceleratorOptions(accel?: AcceleratorName): string[] {
  if (accel === undefined && testAccelerator === "kvm") return [];
  return ["-accel", accel ?? testAccelerator];
}

/** `DENOVO_TEST_EXEC` has all updates by cpr-exec take one way, where a test does not say which. */
function execOptions(): string[] {
  const way = Deno.env.get("DENOVO_TEST_EXEC");
  return way === undefined ? [] : ["-global", `migration.x-cpr-exec-relay=${way}`];
}

/** The processes whose command lines name a laboratory's folder, in ascending order. */
export function processesOf({ folder }: Laboratory): number[] {
  return processesNaming(folder);
}

/** A folder, and the VMMs that live in it; everything ends with it. */
export class Laboratory implements AsyncDisposable {
  readonly #vmms: Vmm[] = [];
  readonly #clients: Qmp[] = [];
  readonly #null = openFile("/dev/null", O.RDWR);

  private constructor(readonly folder: string) {}

  /** Makes an empty one. */
  static async open(): Promise<Laboratory> {
    return new Laboratory(await Deno.makeTempDir({ prefix: "denovo-cpr-" }));
  }

  /** A path in the folder. */
  path(name: string): string {
    return `${this.folder}/${name}`;
  }

  /** What the guest has printed into the shared serial file, without carriage returns. */
  get serialText(): string {
    return Deno.readTextFileSync(this.path("serial")).replaceAll("\r", "");
  }

  /** Waits until the guest has printed a text into the shared serial file. */
  async printed(text: string): Promise<void> {
    await until(() => this.serialText.includes(text), () => `'${text}' in: ${this.serialText}`);
  }

  /** The options of a VMM. */
  optionsOf(name: string, special: VmmOptions = {}): string[] {
    const { guest = "demo", serial = `file:${this.path("serial")}`, memory = 64 } = special;
    const image = this.path(guest);
    Deno.writeFileSync(image, programs[guest].bytes);
    return [
      ...["-kernel", image, "-m", `${memory}`, "-serial", serial],
      ...acceleratorOptions(special.accel),
      ...execOptions(),
      ...["-device", "isa-debug-exit,iobase=0x501,iosize=2"],
      ...["-qmp", `unix:${this.path(`${special.qmp ?? name}.qmp`)},server=on,wait=off`],
      ...(special.options ?? []),
    ];
  }

  /** Starts a VMM. */
  start(name: string, special: VmmOptions = {}): Vmm {
    return this.startWith(name, this.optionsOf(name, special), special);
  }

  /** Starts a VMM with exactly these options. */
  startWith(name: string, options: readonly string[], special: VmmOptions = {}): Vmm {
    const outputPath = this.path(`${name}.output`);
    using output = openFile(outputPath, O.WRONLY | O.CREAT | O.TRUNC, 0o644);
    const { fds = [] } = special;
    const child = spawn([...(special.program ?? program), ...options], {
      ...special,
      fds: [[this.#null.fd, 0], [output.fd, 1], [output.fd, 2], ...fds],
    });
    const qmpPath = this.path(`${special.qmp ?? name}.qmp`);
    const vmm = new Vmm(child, options, qmpPath, outputPath);
    this.#vmms.push(vmm);
    return vmm;
  }

  /** Connects to a VMM's monitor as soon as it listens. */
  async monitor(vmm: Vmm): Promise<Qmp> {
    return this.#own(await Qmp.connect(vmm.qmpPath));
  }

  /** Connects to a VMM's monitor, which must be listening. */
  async monitorAtOnce(vmm: Vmm): Promise<Qmp> {
    return this.#own(await Qmp.connectAtOnce(vmm.qmpPath));
  }

  /** Starts a VMM, and waits until its guest has greeted. */
  async run(name: string, special: VmmOptions = {}): Promise<{ vmm: Vmm; qmp: Qmp }> {
    const vmm = this.start(name, special);
    const qmp = await this.monitor(vmm);
    await qmp.reaches("running");
    return { vmm, qmp: await qmp.withEvents() };
  }

  /** Ends all VMMs and removes the folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client[Symbol.dispose]();
    for (const vmm of this.#vmms) {
      vmm.kill();
      vmm.child[Symbol.dispose]();
    }
    // A helper goes on with the guest when its VMM is killed, and what dies may still write here.
    for (let left; (left = processesOf(this)).length > 0; await sleep(1)) left.forEach(kill);
    this.#null.close();
    await Deno.remove(this.folder, { recursive: true });
  }

  #own(qmp: Qmp): Qmp {
    this.#clients.push(qmp);
    return qmp;
  }
}

/** The events of a cpr-exec in the old VMM, in QEMU's order, `migrate`'s reply among them. */
export const execLog = [
  "MIGRATION setup",
  "STOP",
  "reply",
  "MIGRATION active",
  "MIGRATION_PASS",
  "MIGRATION device",
  "MIGRATION completed",
];

/** The same of a cpr-transfer. */
export const transferLog = [
  "MIGRATION setup",
  "reply",
  "STOP",
  "MIGRATION active",
  "MIGRATION_PASS",
  "MIGRATION device",
  "MIGRATION completed",
];

/** Chooses cpr-exec with a command. */
export async function setExec(qmp: Qmp, command: readonly string[]): Promise<void> {
  await qmp.execute("migrate-set-parameters", { mode: "cpr-exec", "cpr-exec-command": command });
}

/**
 * Replaces a VMM by cpr-exec.
 *
 * @param vmm the VMM
 * @param qmp its monitor; its connection ends
 * @param incoming `-incoming`'s value, unless it is the state file
 * @param more further options of the successor
 * @returns the successor's monitor, to which connecting never fails
 */
export async function execUpdate(
  lab: Laboratory,
  vmm: Vmm,
  qmp: Qmp,
  { incoming, more = [] }: { incoming?: string; more?: readonly string[] } = {},
): Promise<Qmp> {
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, [...program, ...vmm.options, ...more, "-incoming", incoming ?? uri]);
  qmp.log.length = 0;
  await qmp.execute("migrate", { uri });
  await qmp.closed();
  return await lab.monitorAtOnce(vmm);
}

/** A UNIX socket as a channel. */
export function unixChannel(type: "main" | "cpr", path: string) {
  return { "channel-type": type, addr: { transport: "socket", type: "unix", path } };
}

/** A successor that waits for its descriptors. */
export interface Successor {
  readonly vmm: Vmm;
  /** The arguments of `migrate` that lead to it. */
  readonly channels: readonly object[];
}

/**
 * Starts a successor for cpr-transfer, and waits until its cpr channel listens.
 *
 * @param incoming `-incoming`'s value for the main channel, unless it is a UNIX socket
 */
export async function startSuccessor(
  lab: Laboratory,
  name: string,
  special: VmmOptions & { readonly incoming?: string } = {},
): Promise<Successor> {
  const main = lab.path(`${name}.main`);
  const cpr = unixChannel("cpr", lab.path(`${name}.cpr`));
  const vmm = lab.start(name, {
    ...special,
    options: [
      ...(special.options ?? []),
      ...["-incoming", special.incoming ?? `unix:${main}`, "-incoming", JSON.stringify(cpr)],
    ],
  });
  await listens(lab.path(`${name}.cpr`));
  return { vmm, channels: [unixChannel("main", main), cpr] };
}

/** Begins a cpr-transfer to a successor. */
export async function beginTransfer(qmp: Qmp, channels: readonly object[]): Promise<void> {
  await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  qmp.log.length = 0;
  await qmp.execute("migrate", { channels });
}

/** Replaces a VMM by cpr-transfer; returns the successor and its monitor. */
export async function transferUpdate(
  lab: Laboratory,
  name: string,
  qmp: Qmp,
  special: VmmOptions = {},
): Promise<{ vmm: Vmm; qmp: Qmp }> {
  await qmp.withEvents();
  const { vmm, channels } = await startSuccessor(lab, name, special);
  await beginTransfer(qmp, channels);
  await qmp.logged("MIGRATION completed");
  return { vmm, qmp: await lab.monitor(vmm) };
}
