/**
 * Live updates: how long the guest stands still while its VMM is replaced.
 *
 * Two views of the same pause. The guest's own: `counter_cpl3` keeps the longest gap between two
 * readings of the TSC; the gap is cleared right before `migrate` and read right after, through the
 * guest's memfd, without the VMM's help. The VMM's: `x-pause` in the successor's `query-migrate`.
 *
 * @module
 */
import { layout } from "../guests/programs.ts";
import { createVm } from "./machines.ts";
import { denovoCommand, Qmp, sleep, Workspace } from "./program.ts";
import type { BenchOptions, Measurement } from "./statistics.ts";

/** Measures cpr-transfer and cpr-exec. */
export async function* liveUpdate({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using work = await Workspace.create();
  const tscKhz = await guestTscKhz(await work.guest("hello"));
  for (const mode of ["cpr-transfer", "cpr-exec"] as const) {
    const updates = await Updates.start(work, mode);
    const gaps: number[] = [];
    const pauses: number[] = [];
    const idle: number[] = [];
    try {
      for (let i = 0; i < (quick ? 3 : 20); i++) {
        idle.push(await updates.gapOver(() => sleep(200)) / tscKhz);
        gaps.push(await updates.gapOver(() => updates.update()) / tscKhz);
        const pause = await updates.pause();
        if (pause !== undefined) pauses.push(pause / 1000);
      }
    } finally {
      await updates.end();
    }
    yield { name: `${mode}: guest's longest gap`, unit: "ms", samples: gaps };
    if (pauses.length > 0) yield { name: `${mode}: x-pause`, unit: "ms", samples: pauses };
    yield { name: `${mode}: gap in 200 ms without update`, unit: "ms", samples: idle };
  }
}

async function guestTscKhz(kernel: string): Promise<number> {
  await using vm = await createVm({ kernel });
  return vm.machine.vcpus[0].kvm.tscKhz;
}

/** One guest that goes from VMM to VMM. */
class Updates {
  #generation = 0;
  #child: Deno.ChildProcess;
  #qmp!: Qmp;
  /** The guest's RAM: the same memfd in every generation. */
  #ram!: Deno.FsFile;

  private constructor(
    readonly work: Workspace,
    readonly mode: "cpr-transfer" | "cpr-exec",
    readonly command: readonly string[],
  ) {
    this.#child = this.#spawn([]);
  }

  static async start(work: Workspace, mode: "cpr-transfer" | "cpr-exec"): Promise<Updates> {
    const guest = ["-kernel", await work.guest("counter_cpl3"), "-display", "none"];
    const updates = new Updates(work, mode, [...await denovoCommand(), ...guest]);
    try {
      updates.#qmp = await Qmp.connect(updates.#socket);
      updates.#ram = await openRam(updates.#child.pid);
      await updates.#grows();
      return updates;
    } catch (error) {
      await updates.end();
      throw error;
    }
  }

  /** Updates once; done when the guest runs in the successor. */
  async update(): Promise<void> {
    await this.#qmp.execute("migrate-set-parameters", { mode: this.mode });
    if (this.mode === "cpr-exec") await this.#exec();
    else await this.#transfer();
    await this.#grows();
  }

  /** The guest's longest gap during an action, in TSC cycles. */
  async gapOver(action: () => Promise<void>): Promise<number> {
    await this.#ram.seek(layout.maxGap, Deno.SeekMode.Start);
    await this.#ram.write(new Uint8Array(8));
    await action();
    return this.#word(layout.maxGap);
  }

  /** What the successor says the pause was, in microseconds; undefined if it does not. */
  async pause(): Promise<number | undefined> {
    const info = await this.#qmp.execute("query-migrate") as { "x-pause"?: number };
    return info["x-pause"];
  }

  /** Ends the last VMM. */
  async end(): Promise<void> {
    this.#ram?.close();
    this.#qmp?.[Symbol.dispose]();
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }

  async #exec(): Promise<void> {
    const state = `file:${this.work.path}/state`;
    await this.#qmp.execute("migrate-set-parameters", {
      "cpr-exec-command": [...this.#argv(), "-incoming", state],
    });
    await this.#qmp.execute("migrate", { uri: state });
    this.#qmp[Symbol.dispose]();
    this.#qmp = await Qmp.connect(this.#socket);
    await this.#running();
  }

  async #transfer(): Promise<void> {
    const old = { child: this.#child, qmp: this.#qmp };
    this.#generation++;
    const address = (type: "main" | "cpr") => ({
      "channel-type": type,
      addr: { transport: "socket", type: "unix", path: `${this.work.path}/${type}` },
    });
    const channels = [address("main"), address("cpr")];
    this.#child = this.#spawn(channels.flatMap((c) => ["-incoming", JSON.stringify(c)]));
    while (!await exists(`${this.work.path}/cpr`)) await sleep(2);
    await sleep(50);
    await old.qmp.execute("migrate", { channels });
    this.#qmp = await Qmp.connect(this.#socket);
    await this.#running();
    await old.qmp.execute("quit");
    old.qmp[Symbol.dispose]();
    await old.child.status;
    for (const path of ["main", "cpr"]) {
      if (await exists(`${this.work.path}/${path}`)) await Deno.remove(`${this.work.path}/${path}`);
    }
  }

  async #running(): Promise<void> {
    const status = async () => await this.#qmp.execute("query-status") as { running: boolean };
    while (!(await status()).running) await sleep(2);
  }

  /** Waits until the guest counts. */
  async #grows(): Promise<void> {
    const before = await this.#word(layout.counter);
    while (await this.#word(layout.counter) <= before) await sleep(1);
  }

  async #word(address: number): Promise<number> {
    const bytes = new Uint8Array(8);
    await this.#ram.seek(address, Deno.SeekMode.Start);
    await this.#ram.read(bytes);
    return Number(new DataView(bytes.buffer).getBigUint64(0, true));
  }

  get #socket(): string {
    return `${this.work.path}/${this.mode}-${this.#generation}`;
  }

  #argv(): string[] {
    return [...this.command, "-qmp", `unix:${this.#socket},server=on,wait=off`];
  }

  #spawn(more: readonly string[]): Deno.ChildProcess {
    const [program, ...args] = [...this.#argv(), ...more];
    return new Deno.Command(program, { args, stdin: "null", stdout: "null" }).spawn();
  }
}

/** Opens a VMM's guest RAM through its descriptor. */
async function openRam(pid: number): Promise<Deno.FsFile> {
  const folder = `/proc/${pid}/fd`;
  for await (const { name } of Deno.readDir(folder)) {
    const target = await Deno.readLink(`${folder}/${name}`).catch(() => "");
    if (target.startsWith("/memfd:memory-backend-memfd")) {
      return await Deno.open(`${folder}/${name}`, { read: true, write: true });
    }
  }
  throw new Error(`Process ${pid} has no memfd with the guest's RAM`);
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
