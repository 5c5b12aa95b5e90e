/**
 * The demo: a guest that counts, keeps its clock and answers what is typed, while its VMM is
 * replaced in all three modes.
 *
 * At a terminal it goes on until C-d, and what you type goes to the guest; otherwise it types two
 * lines itself for each mode, and ends. Its arguments are further options of the VMM.
 *
 * @module
 */
import { type UpdateMode, updateVmm } from "../mod.ts";
import { layout, programs } from "../tests/guests/programs.ts";
import { isAlive, kill, processesNaming } from "../tests/processes.ts";
import { QmpClient } from "./qmp_client.ts";

const modes: readonly { readonly mode: UpdateMode; readonly text: string }[] = [
  { mode: "transfer", text: "another process takes the guest over" },
  { mode: "exec", text: "the process executes its successor; a helper has the guest meanwhile" },
  { mode: "reboot", text: "the guest goes to a file, and a new process reads it" },
];
/** Milliseconds between updates when a person is typing. */
const INTERVAL = 4000;

const folder = await Deno.makeTempDir({ prefix: "denovo-demo-" });
const path = (name: string) => `${folder}/${name}`;
const program = new URL("../mod.ts", import.meta.url).pathname;
/** The process that has the guest, and whether it may end because another one takes the guest. */
let vmm = 0, updating = false;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** The guest's console, like a terminal that someone has open all the time. */
class Terminal {
  /** What was shown and not yet expected. */
  #text = "";
  #connection!: Deno.UnixConn;
  #ended = false;

  /** Connects as soon as the VMM listens; and again when a reboot has ended the connection. */
  async open(): Promise<void> {
    this.#connection = await connect(path("console"));
    void this.#read();
  }

  async type(line: string): Promise<void> {
    await this.#connection.write(new TextEncoder().encode(`${line}\n`));
  }

  /** Waits for a line with a text, which then has been shown. */
  async expect(text: string): Promise<void> {
    while (!this.#text.includes(text)) await sleep(5);
    this.#text = this.#text.slice(this.#text.indexOf(text) + text.length);
  }

  close(): void {
    this.#ended = true;
    this.#connection.close();
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(4096);
    let line = "";
    try {
      for (let n; (n = await this.#connection.read(buffer)) !== null;) {
        const text = decoder.decode(buffer.subarray(0, n), { stream: true });
        const lines = (line + text).split(/\r?\n/);
        line = lines.pop()!;
        for (const complete of lines) {
          console.log(`guest:   ${complete}`);
          this.#text += `${complete}\n`;
        }
      }
    } catch {
      // Closed here, or reset with the VMM: both are an end.
    }
    if (!this.#ended) await this.open();
  }
}

async function connect(socket: string): Promise<Deno.UnixConn> {
  for (;;) {
    try {
      return await Deno.connect({ transport: "unix", path: socket });
    } catch {
      await sleep(10);
    }
  }
}

/** Fails unless the guest counts; gives its counter, read out of its RAM through the monitor. */
async function counter(): Promise<bigint> {
  using qmp = await QmpClient.connect(path("monitor"));
  const read = async () => {
    const text = await qmp.execute<string>("human-monitor-command", {
      "command-line": `xp /1gx 0x${layout.counter.toString(16)}`,
    });
    return BigInt(text.trim().split(" ").at(-1)!);
  };
  const before = await read();
  for (let tries = 0; tries < 100; tries++) {
    await sleep(20);
    const now = await read();
    if (now > before) return now;
  }
  throw new Error(`The guest does not run: its counter stays at ${before}`);
}

async function update({ mode, text }: typeof modes[number]): Promise<void> {
  console.log(`\n--- ${mode}: ${text}`);
  updating = true;
  const { oldPid, newPid, pauseUs } = await updateVmm({ socket: path("monitor"), mode });
  vmm = newPid;
  updating = false;
  const pause = pauseUs === undefined ? "" : `, pause ${(pauseUs / 1000).toFixed(2)} ms`;
  console.log(`update:  VMM ${oldPid} -> ${newPid}${pause}, counter ${await counter()}`);
}

/** Types a line before, and one after each mode. */
async function show(terminal: Terminal): Promise<void> {
  for (const next of modes) {
    await terminal.type(`before ${next.mode}`);
    await terminal.expect(`BEFORE ${next.mode.toUpperCase()}`);
    await update(next);
    await terminal.type(`after ${next.mode}`);
    await terminal.expect(`AFTER ${next.mode.toUpperCase()}`);
  }
}

/** Lets a person type, and updates all the while. */
async function converse(terminal: Terminal): Promise<void> {
  console.log("\nType to the guest, it answers. Every few seconds its VMM is replaced. C-d ends.");
  let ended = false;
  const updates = (async () => {
    for (let i = 0; !ended; i++) {
      await sleep(INTERVAL);
      if (!ended) await update(modes[i % modes.length]);
    }
  })();
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    await terminal.type(text.trimEnd());
  }
  ended = true;
  await updates;
}

/** Ends all VMMs of this demo, one that an update has left among them; their options name its folder. */
function endAll(): void {
  processesNaming(folder).forEach(kill);
}

/** Fails when the VMM ends; what it had to say it has said on stderr, which is ours. */
async function untilVmmEnds(): Promise<never> {
  while (updating || isAlive(vmm)) await sleep(50);
  throw new Error(`The VMM, process ${vmm}, has ended`);
}

async function demo(): Promise<void> {
  const terminal = new Terminal();
  await terminal.open();
  await terminal.expect("tick ");
  console.log(`monitor: the guest runs, counter ${await counter()}`);
  if (Deno.stdin.isTerminal()) await converse(terminal);
  else await show(terminal);
  terminal.close();
}

Deno.writeFileSync(path("guest.elf"), programs.demo.bytes);
const first = new Deno.Command(Deno.execPath(), {
  args: [
    ...["run", "-A", "--no-check", program],
    ...["-name", "demo", "-m", "64", "-kernel", path("guest.elf")],
    ...["-serial", `unix:${path("console")},server=on,wait=off`],
    ...["-qmp", `unix:${path("monitor")},server=on,wait=off`],
    ...Deno.args,
  ],
  stdin: "null",
}).spawn();
first.unref();
vmm = first.pid;
let status = 0;
try {
  await Promise.race([demo(), untilVmmEnds()]);
  using qmp = await QmpClient.connect(path("monitor"));
  await qmp.execute("quit");
  console.log("\n--- the end: the guest was never restarted");
} catch (error) {
  console.error(`demo: ${(error as Error).message}`);
  endAll();
  status = 1;
} finally {
  await Deno.remove(folder, { recursive: true });
}
Deno.exit(status);
