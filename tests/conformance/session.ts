/**
 * What the tests of the program and its monitors share: the program itself in a process of its own,
 * connections to its sockets, and a QMP client that sees every line.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type OwnedFd, readFd } from "../../ffi/fd.ts";
import { connectUnix } from "../../ffi/socket.ts";
import { sendMessage } from "../../ffi/socket_message.ts";
import { type ProgramName, programs } from "../guests/programs.ts";
import { withoutNotice } from "../needs_kvm.ts";
import { listens, sources, until } from "./program.ts";

export { isAlive, kvmTest, listens, onlyKvmTest, program, sleep, until } from "./program.ts";

/** A folder for the files of one test. */
export class TestFolder implements Disposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "denovo-" });

  /** The path of a file in it. */
  file(name: string): string {
    return `${this.path}/${name}`;
  }

  /** Writes a guest program; returns its path. */
  guest(name: ProgramName): string {
    const path = this.file(name);
    Deno.writeFileSync(path, programs[name].bytes);
    return path;
  }

  /** Removes the folder. */
  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** How a program ended, and what it printed. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the program, from its sources, to its end, with nothing on its stdin. */
export async function run(...args: string[]): Promise<Ended> {
  const { code, stdout, stderr } = await command(args, "null").output();
  return { code, stdout: decode(stdout), stderr: withoutNotice(decode(stderr)) };
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function command(args: readonly string[], stdin: "null" | "piped"): Deno.Command {
  const [deno, ...rest] = sources;
  return new Deno.Command(deno, {
    args: [...rest, ...args],
    stdin,
    stdout: "piped",
    stderr: "piped",
  });
}

/** A program that runs. */
export class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #readers: Promise<void>[];
  #stdout = "";
  #stderr = "";
  #status: Deno.CommandStatus | undefined;

  /** Starts the program. */
  constructor(...args: string[]) {
    this.#child = command(args, "piped").spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#readers = [
      collect(this.#child.stdout, (text) => this.#stdout += text),
      collect(this.#child.stderr, (text) => this.#stderr += text),
    ];
    this.#child.status.then((status) => this.#status = status);
  }

  /** Process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** What it printed so far, without carriage returns. */
  get stdout(): string {
    return this.#stdout.replaceAll("\r", "");
  }

  /** Its messages so far. */
  get stderr(): string {
    return withoutNotice(this.#stderr);
  }

  /** Whether it runs still. */
  get running(): boolean {
    return this.#status === undefined;
  }

  /** Types on its stdin. */
  async type(text: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(text));
  }

  /** Ends its stdin. */
  async endInput(): Promise<void> {
    await this.#input.close();
  }

  /** Waits until it has printed `wanted`. */
  async printed(wanted: string): Promise<void> {
    await until(() => this.stdout.includes(wanted), () => `${wanted} in ${this.#condition}`);
  }

  /** Waits until its messages contain `wanted`. */
  async complained(wanted: string): Promise<void> {
    await until(() => this.stderr.includes(wanted), () => `${wanted} in ${this.#condition}`);
  }

  /** Sends it a signal. */
  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Waits for its end; returns the exit status. */
  async ended(): Promise<number> {
    await until(() => !this.running, () => `the end of ${this.#condition}`);
    const { code, signal } = this.#status!;
    await Promise.all(this.#readers);
    assert.equal(signal, null, this.#condition);
    return code;
  }

  /** Kills it, if need be. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) this.#child.kill("SIGKILL");
    await this.#child.status;
    await Promise.all(this.#readers);
    await this.#input.abort().catch(() => {});
  }

  get #condition(): string {
    return JSON.stringify({ ...this.#status, stdout: this.stdout, stderr: this.stderr });
  }
}

async function collect(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  add: (text: string) => void,
): Promise<void> {
  for await (const text of stream.pipeThrough(new TextDecoderStream())) add(text);
}

/** Connects to a UNIX socket as soon as somebody listens there. */
export async function connect(path: string): Promise<Deno.UnixConn> {
  await listens(path);
  return await Deno.connect({ transport: "unix", path });
}

/** A text stream over a socket. */
export class TextConnection implements Disposable {
  #text = "";
  #ended = false;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;

  /** @param conn a connection, to be closed with this object */
  constructor(readonly conn: Deno.UnixConn) {
    this.#writer = conn.writable.getWriter();
    collect(conn.readable, (text) => this.#text += text).catch(() => {}).finally(() =>
      this.#ended = true
    );
  }

  /** Connects. */
  static async to(path: string): Promise<TextConnection> {
    return new TextConnection(await connect(path));
  }

  /** What came and was not taken yet. */
  get text(): string {
    return this.#text;
  }

  /** Whether the other side has hung up. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Sends text. */
  async send(text: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(text));
  }

  /** Takes what came, up to and including `end`. */
  async take(end: string): Promise<string> {
    await until(
      () => this.#text.includes(end) || this.#ended,
      () => `${JSON.stringify(end)} in ${JSON.stringify(this.#text)}`,
    );
    const at = this.#text.indexOf(end);
    assert.ok(at >= 0, `The connection ended without ${JSON.stringify(end)}: ${this.#text}`);
    const taken = this.#text.slice(0, at + end.length);
    this.#text = this.#text.slice(taken.length);
    return taken;
  }

  /** Waits until the other side hangs up; returns what came until then. */
  async end(): Promise<string> {
    await until(() => this.#ended, () => "the end of a connection");
    return this.#text;
  }

  /** Hangs up. */
  [Symbol.dispose](): void {
    // Where the other side was first, the stream has closed the connection already.
    if (!this.#ended) this.conn.close();
  }
}

/** A JSON object. */
// deno-lint-ignore no-explicit-any -- what a member is the assertions show
export type Json = any;

/** A QMP client. */
export class Qmp implements Disposable {
  /** Events that were not taken yet. */
  readonly events: Json[] = [];
  /** The greeting. */
  greeting: Json;
  readonly #replies: Json[] = [];

  /** @param connection to a QMP monitor; nothing was read from it */
  constructor(readonly connection: TextConnection) {}

  /** Connects and negotiates. */
  static async to(path: string): Promise<Qmp> {
    const qmp = new Qmp(await TextConnection.to(path));
    await qmp.negotiate();
    return qmp;
  }

  /** Reads the greeting and ends capabilities negotiation. */
  async negotiate(): Promise<void> {
    this.greeting = await this.line();
    assert.deepEqual(await this.execute("qmp_capabilities"), {});
  }

  /** The next line, whatever it is. */
  async line(): Promise<Json> {
    return JSON.parse(await this.connection.take("\r\n"));
  }

  /** The next line that is a reply; events before it are put into `events`. */
  async reply(): Promise<Json> {
    while (this.#replies.length === 0) this.#sort(await this.line());
    return this.#replies.shift();
  }

  /** Executes a command and returns its result. @throws {Error} for an error reply */
  async execute(name: string, args?: Json): Promise<Json> {
    const reply = await this.call(name, args);
    if ("error" in reply) throw new Error(`${name}: ${reply.error.class}: ${reply.error.desc}`);
    return reply.return;
  }

  /** Executes a command and returns the reply, result or error. */
  async call(name: string, args?: Json): Promise<Json> {
    const request = args === undefined ? { execute: name } : { execute: name, arguments: args };
    await this.connection.send(`${JSON.stringify(request)}\n`);
    return await this.reply();
  }

  /** Executes an HMP command; returns what it prints, without carriage returns. */
  async hmp(line: string): Promise<string> {
    const text: string = await this.execute("human-monitor-command", { "command-line": line });
    return text.replaceAll("\r", "");
  }

  /** Takes the next event of this name, dropping others before it. */
  async event(name: string): Promise<Json> {
    for (;;) {
      while (this.events.length === 0) this.#sort(await this.line());
      const event = this.events.shift();
      if (event.event === name) return event;
    }
  }

  #sort(line: Json): void {
    ("event" in line ? this.events : this.#replies).push(line);
  }

  /** Hangs up. */
  [Symbol.dispose](): void {
    this.connection[Symbol.dispose]();
  }
}

/** A QMP client that can pass descriptors. */
export class PassingClient implements Disposable {
  readonly #socket: OwnedFd;
  readonly #buffer = new Uint8Array(65536);
  #text = "";

  /** Connects and negotiates. */
  static async to(path: string): Promise<PassingClient> {
    const client = new PassingClient(connectUnix(path, { nonblocking: true }));
    assert.ok("QMP" in await client.#line());
    assert.deepEqual(await client.call("qmp_capabilities"), { return: {} });
    return client;
  }

  private constructor(socket: OwnedFd) {
    this.#socket = socket;
  }

  /** Executes a command, passing descriptors along. */
  async call(name: string, args: Json = {}, fds: readonly number[] = []): Promise<Json> {
    const data = new TextEncoder().encode(JSON.stringify({ execute: name, arguments: args }));
    assert.equal(sendMessage(this.#socket.fd, data, fds), data.length);
    return await this.#line();
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  async #line(): Promise<Json> {
    await until(() => {
      const n = readFd(this.#socket.fd, this.#buffer);
      if (n > 0) this.#text += new TextDecoder().decode(this.#buffer.subarray(0, n));
      return this.#text.includes("\r\n");
    }, () => `a line in ${this.#text}`);
    const end = this.#text.indexOf("\r\n");
    const line = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 2);
    return JSON.parse(line);
  }
}

/** A VM with a QMP client, and what ends them. */
export class Bench implements AsyncDisposable {
  private constructor(
    readonly folder: TestFolder,
    readonly vmm: Program,
    readonly qmp: Qmp,
    readonly qmpPath: string,
  ) {}

  /** Starts a VM with the guest `demo`. */
  static async open(...more: string[]): Promise<Bench> {
    const folder = new TestFolder();
    const qmpPath = folder.file("qmp");
    const vmm = new Program(
      ...["-kernel", folder.guest("demo"), "-m", "64", "-serial", "null"],
      ...["-qmp", `unix:${qmpPath},server=on,wait=off`, ...more],
    );
    return new Bench(folder, vmm, await Qmp.to(qmpPath), qmpPath);
  }

  /** Ends the VM and removes its files. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.qmp[Symbol.dispose]();
    await this.vmm[Symbol.asyncDispose]();
    this.folder[Symbol.dispose]();
  }
}
