/**
 * One guest and update after update, by whatever mode; a console that outlives every VMM; and what
 * the guest `steady` tells of itself.
 *
 * @module
 */
import assert from "node:assert/strict";
import { O, openFile, type OwnedFd, readFd, writeFd } from "../../ffi/fd.ts";
import type { AcceleratorName } from "../../vmm/accel/accelerator.ts";
import { describeCheck, layout } from "../guests/programs.ts";
import {
  beginTransfer,
  type Laboratory,
  program,
  type Qmp,
  setExec,
  sleep,
  startSuccessor,
  until,
  type Vmm,
  type VmmOptions,
} from "./program.ts";

/** The ways to replace a VMM. */
export const modes = ["cpr-transfer", "cpr-exec", "cpr-reboot"] as const;

/** One of {@linkcode modes}. */
export type Mode = typeof modes[number];

/** What is special about an update. */
export interface UpdateOptions {
  /** Milliseconds by which to prolong the pause of cpr-reboot. */
  readonly delayMs?: number;
  /** The run state in which the guest arrives, unless it runs. */
  readonly arrives?: "running" | "paused" | "suspended";
  /** What runs the guest from then on, unless it is what ran it before. */
  readonly accel?: AcceleratorName;
}

/** What `query-migrate` tells of pauses, in µs. */
export interface Pauses {
  readonly "x-pause": number;
  readonly "x-pauses"?: readonly number[];
}

/** What a successor tells of pauses, once all vCPUs have gone on: it may say before that it runs. */
export async function pausesOf<T extends Pauses>(qmp: Qmp): Promise<T> {
  let info: T;
  const look = async () => (info = await qmp.execute<T>("query-migrate"))["x-pause"] !== undefined;
  await until(look, () => `the pause, there is ${JSON.stringify(info)}`);
  return info!;
}

/** A guest, and the VMM that runs it at the moment. */
export class Chain {
  /** Updates so far. */
  updates = 0;
  /** By way of what cpr-exec goes, `x-cpr-exec-relay`, if that is to be told. */
  relay?: "on" | "off" | "anchor";

  private constructor(
    readonly lab: Laboratory,
    private special: VmmOptions,
    /** The VMM that has the guest. */
    public vmm: Vmm,
    /** Its monitor. */
    public qmp: Qmp,
    private name: string,
  ) {}

  /** Starts a guest. */
  static async start(lab: Laboratory, special: VmmOptions): Promise<Chain> {
    const { vmm, qmp } = await lab.run("vmm0", special);
    return new Chain(lab, special, vmm, qmp, "vmm0");
  }

  /** Replaces the VMM; comes back when the guest is in the new one and the old one is gone. */
  async update(mode: Mode, options: UpdateOptions = {}): Promise<void> {
    const { delayMs = 0, arrives = "running", accel } = options;
    if (accel) this.special = { ...this.special, accel };
    this.updates++;
    if (mode === "cpr-exec") await this.#exec();
    else if (mode === "cpr-transfer") await this.#transfer();
    else await this.#reboot(delayMs);
    await this.qmp.reaches(arrives);
  }

  /** Gives the VMMs from the next one on other options. */
  become(special: VmmOptions): void {
    this.special = special;
  }

  /** The last update's pauses in all, as the VMM measured them, in µs. */
  async pause(): Promise<number> {
    const { "x-pauses": pauses, "x-pause": pause } = await pausesOf(this.qmp);
    return (pauses ?? [pause]).reduce((sum, one) => sum + one, 0);
  }

  /** A descriptive error's end: what guest and VMM said. */
  get story(): string {
    return `after ${this.updates} updates; the VMM said: ${this.vmm.output}`;
  }

  async #exec(): Promise<void> {
    const { lab, qmp, vmm } = this;
    const uri = `file:${lab.path("state")}`;
    const command = [...program, ...lab.optionsOf(this.name, this.special), "-incoming", uri];
    await setExec(qmp, command);
    const { relay } = this;
    if (relay) await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": relay });
    await qmp.execute("migrate", { uri });
    await qmp.closed();
    this.qmp = await lab.monitor(vmm);
  }

  async #transfer(): Promise<void> {
    const { lab, qmp, vmm } = this;
    this.name = `vmm${this.updates}`;
    await qmp.withEvents();
    const next = await startSuccessor(lab, this.name, this.special);
    await beginTransfer(qmp, next.channels);
    await this.#completed(next.vmm);
    await this.#moveTo(next.vmm, vmm);
  }

  async #reboot(delayMs: number): Promise<void> {
    const { lab, qmp, vmm, special } = this;
    this.name = `vmm${this.updates}`;
    const uri = `file:${lab.path("state")}`;
    await qmp.withEvents();
    await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
    await qmp.execute("migrate", { uri });
    await this.#completed();
    await sleep(delayMs);
    const options = [...(special.options ?? []), "-incoming", uri];
    await this.#moveTo(lab.start(this.name, { ...special, options }), vmm);
  }

  /** Waits for the end of an update; fails at once, with the reason, if it has failed. */
  async #completed(next?: Vmm): Promise<void> {
    const { log } = this.qmp;
    const ends = ["MIGRATION completed", "MIGRATION failed"];
    await until(() => ends.some((end) => log.includes(end)), () => `an end in ${log.join(", ")}`);
    const { status, "error-desc": reason } = await this.qmp.migration();
    const said = next ? `; the new one: ${next.output}` : "";
    assert.equal(status, "completed", `${reason} ${this.story}${said}`);
  }

  /** The old VMM ends before anything is asked of the new one, as a user would have it. */
  async #moveTo(next: Vmm, old: Vmm): Promise<void> {
    await this.qmp.execute("quit");
    assert.deepEqual(await old.ended(), { code: 0 }, old.output);
    this.vmm = next;
    try {
      this.qmp = await this.lab.monitor(next);
    } catch (error) {
      throw new Error(`No monitor ${this.story}`, { cause: error });
    }
  }
}

/** A console of two FIFOs: what is typed while no VMM reads, or printed and not read, stays there. */
export class FifoConsole implements Disposable {
  readonly #buffer = new Uint8Array(65536);
  readonly #decoder = new TextDecoder();
  #text = "";

  private constructor(readonly path: string, readonly input: OwnedFd, readonly output: OwnedFd) {}

  /** Makes the FIFOs `PATH.in` and `PATH.out`. */
  static async open(path: string): Promise<FifoConsole> {
    const paths = [`${path}.in`, `${path}.out`];
    const { success } = await new Deno.Command("mkfifo", { args: paths }).output();
    assert.ok(success, `mkfifo ${paths}`);
    const [input, output] = paths.map((name) => openFile(name, O.RDWR | O.NONBLOCK));
    return new FifoConsole(path, input, output);
  }

  /** The `-serial` option's value. */
  get serial(): string {
    return `pipe:${this.path}`;
  }

  /** What the guest has printed so far, without carriage returns. */
  get text(): string {
    for (let n; (n = readFd(this.output.fd, this.#buffer)) > 0;) {
      const some = this.#decoder.decode(this.#buffer.subarray(0, n), { stream: true });
      this.#text += some.replaceAll("\r", "");
    }
    return this.#text;
  }

  /** Types a text. */
  async type(text: string): Promise<void> {
    let rest = new TextEncoder().encode(text);
    for (; rest.length > 0; rest = rest.subarray(Math.max(writeFd(this.input.fd, rest), 0))) {
      await sleep(0);
    }
  }

  /** Waits until the guest has printed a text beyond the first `from` characters. */
  async printed(wanted: string, from = 0): Promise<void> {
    await until(
      () => {
        assert.doesNotMatch(this.text, /FAIL.*\n/);
        return this.text.includes(wanted, from);
      },
      () => `${JSON.stringify(wanted)} in ${JSON.stringify(this.text.slice(-2000))}`,
    );
  }

  /** Closes both FIFOs. */
  [Symbol.dispose](): void {
    this.input.close();
    this.output.close();
  }
}

/** Types numbers without a pause into a guest that echoes them. */
export class EchoTypist implements Disposable {
  /** Everything typed so far. */
  typed = "";
  readonly #from: number;
  readonly #typing: Promise<void>;
  #stop = false;

  /** @param console a console on which nothing else is printed from now on */
  constructor(readonly console: FifoConsole) {
    this.#from = console.text.length;
    this.#typing = this.#type();
    // Of interest to `finish`; a test that has failed closes the console under it.
    this.#typing.catch(() => {});
  }

  /** What came back. */
  get echo(): string {
    return this.console.text.slice(this.#from);
  }

  /** Waits until what was typed by now, and a little more, has come back. */
  async echoes(): Promise<void> {
    const goal = this.typed.length + 16;
    await until(
      () => this.echo.length >= goal,
      () =>
        `the echo of ${goal} characters, there are ${this.echo.length}: ${this.echo.slice(-80)}`,
    );
  }

  /** Stops typing; fails unless every character has come back once. */
  async finish(): Promise<void> {
    this.#stop = true;
    await this.#typing;
    await until(
      () => this.echo.length >= this.typed.length,
      () => `the echo of ${this.typed.length} characters, there are ${this.echo.length}`,
    );
    // A character that comes twice comes within a moment.
    await sleep(50);
    assert.equal(this.echo, this.typed);
  }

  /** Stops typing, whatever comes back. */
  [Symbol.dispose](): void {
    this.#stop = true;
  }

  async #type(): Promise<void> {
    for (let n = 0; !this.#stop;) {
      // More than the UART and its FIFO hold, so that some of it is always on its way.
      while (!this.#stop && this.typed.length - this.echo.length < 200) {
        const text = `${n++} `;
        this.typed += text;
        await this.console.type(text);
      }
      await sleep(1);
    }
  }
}

const record = { counter: 0, ticks: 16, behind: 0xb0 } as const;

/** The address of a word of a CPU's record in `steady`. */
export function steadyAddress(cpu: number, word: keyof typeof record): number {
  return layout.steadyRecords + cpu * layout.steadyRecordSize + record[word];
}

/** Several of a guest's words. */
export async function words(qmp: Qmp, addresses: readonly number[]): Promise<number[]> {
  const values: number[] = [];
  for (const address of addresses) values.push(await qmp.word(address));
  return values;
}

/** Fails if a guest that verifies itself has found an error. */
export async function assertUnharmed(qmp: Qmp): Promise<void> {
  const check = describeCheck(await qmp.word(layout.check));
  if (check === "no error") return;
  const behind = [0, 1, 2, 3].map((cpu) => steadyAddress(cpu, "behind"));
  assert.fail(`${check}; behind in \`steady\`: ${await words(qmp, behind)}`);
}

/** Fails unless one of a guest's words goes on growing, while the guest finds itself unharmed. */
export async function assertCounts(qmp: Qmp, address: number): Promise<void> {
  const before = await qmp.word(address);
  await until(async () => {
    await assertUnharmed(qmp);
    return await qmp.word(address) >= before + 2;
  }, () => `word 0x${address.toString(16)} to grow beyond ${before}`);
}

/** Fails unless every CPU of `steady` goes on counting and taking timer interrupts, unharmed. */
export async function assertSteady(qmp: Qmp, cpus: number): Promise<void> {
  for (let cpu = 0; cpu < cpus; cpu++) {
    for (const word of ["counter", "ticks"] as const) {
      await assertCounts(qmp, steadyAddress(cpu, word));
    }
  }
  await assertUnharmed(qmp);
}

/** Updates by one mode after the other, each of which finds the guest counting in `layout.counter`. */
export async function goThrough(chain: Chain, modes: readonly Mode[]): Promise<void> {
  for (const mode of modes) {
    await assertCounts(chain.qmp, layout.counter);
    await chain.update(mode);
  }
}

/** Stops a guest; fails unless it has counted to the end, and neither found nor told of an error. */
export async function endUnharmed({ lab, qmp }: Chain): Promise<void> {
  await assertCounts(qmp, layout.counter);
  await qmp.execute("stop");
  await assertUnharmed(qmp);
  assert.equal(lab.serialText.includes("FAIL"), false, lab.serialText);
}
