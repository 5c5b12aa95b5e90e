/**
 * The demo: a guest that counts, keeps its clock and answers, while its VMM is replaced twice.
 *
 * @module
 */
import { layout, programs } from "../tests/guests/programs.ts";
import { QmpClient } from "./qmp_client.ts";

const folder = await Deno.makeTempDir({ prefix: "denovo-demo-" });
const path = (name: string) => `${folder}/${name}`;
const program = new URL("../mod.ts", import.meta.url).pathname;
const command = [Deno.execPath(), "run", "-A", "--no-check", program];

/** QEMU's options; the monitor's socket differs between VMMs that are alive at once. */
function options(monitor: string): string[] {
  return [
    ...["-name", "demo", "-m", "64", "-kernel", path("guest.elf")],
    ...["-serial", `unix:${path("console")},server=on,wait=off`],
    ...["-qmp", `unix:${path(monitor)},server=on,wait=off`],
  ];
}

function start(args: string[]): Deno.ChildProcess {
  const [file, ...rest] = command;
  return new Deno.Command(file, { args: [...rest, ...args], stdin: "null" }).spawn();
}

/** The guest's console, like a terminal that someone has open all the time. */
class Terminal {
  #text = "";
  readonly #connection: Deno.UnixConn;

  constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    this.#read();
  }

  async type(line: string): Promise<void> {
    say(`typed:   ${line}`);
    const writer = this.#connection.writable.getWriter();
    await writer.write(new TextEncoder().encode(`${line}\n`));
    writer.releaseLock();
  }

  async expect(text: string): Promise<void> {
    while (!this.#text.includes(text)) await sleep(5);
    this.#text = this.#text.slice(this.#text.indexOf(text) + text.length);
  }

  async #read(): Promise<void> {
    let line = "";
    for await (const text of this.#connection.readable.pipeThrough(new TextDecoderStream())) {
      this.#text += text;
      const parts = (line + text).split(/\r?\n/);
      line = parts.pop()!;
      for (const part of parts) console.log(`guest:   ${part}`);
    }
  }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (text: string) => console.log(text);

/** The guest's counter, read out of its RAM through the monitor. */
async function counter(qmp: QmpClient): Promise<bigint> {
  const text = await qmp.execute<string>("human-monitor-command", {
    "command-line": `xp /1gx 0x${layout.counter.toString(16)}`,
  });
  return BigInt(text.trim().split(" ").at(-1)!);
}

/** The run state, once the guest has arrived. */
async function arrived(qmp: QmpClient): Promise<string> {
  for (;;) {
    const { status } = await qmp.execute<{ status: string }>("query-status");
    if (status !== "inmigrate") return status;
    await sleep(2);
  }
}

async function report(qmp: QmpClient, what: string): Promise<void> {
  const status = await arrived(qmp);
  const migration = await qmp.execute<{ "x-pause"?: number }>("query-migrate");
  const pause = migration["x-pause"];
  const text = pause === undefined ? "" : `, pause ${(pause / 1000).toFixed(1)} ms`;
  const before = await counter(qmp);
  await sleep(50);
  const moved = await counter(qmp) - before;
  if (status !== "running" || moved <= 0n) throw new Error(`The guest does not run: ${status}`);
  say(`monitor: ${what}: ${status}${text}, counter ${before} (+${moved} in 50 ms)`);
}

/** cpr-exec: the process replaces itself, same PID. */
async function updateByExec(qmp: QmpClient): Promise<QmpClient> {
  const state = `file:${path("vm.state")}`;
  await qmp.execute("migrate-set-parameters", {
    mode: "cpr-exec",
    "cpr-exec-command": [...command, ...options("monitor"), "-incoming", state],
  });
  await qmp.execute("migrate", { uri: state });
  await qmp.closed();
  return QmpClient.connect(path("monitor"));
}

/** cpr-transfer: a successor that is already running takes the guest over. */
async function updateByTransfer(qmp: QmpClient): Promise<[QmpClient, Deno.ChildProcess]> {
  const cpr = {
    "channel-type": "cpr",
    addr: { transport: "socket", type: "unix", path: path("cpr") },
  };
  const main = {
    "channel-type": "main",
    addr: { transport: "socket", type: "unix", path: path("main") },
  };
  const successor = start([
    ...options("monitor2"),
    ...["-incoming", `unix:${path("main")}`, "-incoming", JSON.stringify(cpr)],
  ]);
  while (!await Deno.stat(path("cpr")).catch(() => undefined)) await sleep(5);
  await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  await qmp.execute("migrate", { channels: [main, cpr] });
  return [await QmpClient.connect(path("monitor2")), successor];
}

Deno.writeFileSync(path("guest.elf"), programs.demo.bytes);
const first = start(options("monitor"));
try {
  let qmp = await QmpClient.connect(path("monitor"));
  const terminal = new Terminal(await Deno.connect({ transport: "unix", path: path("console") }));
  await terminal.expect("tick 1");
  await report(qmp, `VMM ${first.pid}`);

  say("\n--- cpr-exec: the VMM execs its successor, in the same process");
  qmp = await updateByExec(qmp);
  await report(qmp, `VMM ${first.pid} again`);
  await terminal.type("still there?");
  await terminal.expect("STILL THERE?");

  say("\n--- cpr-transfer: another process takes the guest over");
  const [next, successor] = await updateByTransfer(qmp);
  await report(next, `VMM ${successor.pid}`);
  await qmp.execute("quit");
  await first.status;
  await terminal.type("and now?");
  await terminal.expect("AND NOW?");

  say("\n--- the end");
  await next.execute("quit");
  const { code } = await successor.status;
  say(`the last VMM ended with status ${code}; the guest was never restarted`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
Deno.exit(0);
