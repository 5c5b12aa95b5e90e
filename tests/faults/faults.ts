/**
 * What the tests of faults at the steps of an update share: VMMs with faults, the guest's memory
 * seen from outside, and who runs the guest.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Step } from "../../cpr/migration/timeline.ts";
import { O, openFile, type OwnedFd, readAt, seekFd, writeAll } from "../../ffi/fd.ts";
import {
  Laboratory,
  processesOf,
  type Qmp,
  sleep,
  sources,
  until,
  type Vmm,
  type VmmOptions,
} from "../conformance/program.ts";
import { describeCheck, layout } from "../guests/programs.ts";
import { beyond, childrenOf, openFiles } from "../processes.ts";
import { type Fault, FAULT_FILE, type Role } from "./faulty_vmm.ts";

const FAULTY = new URL("./faulty_vmm.ts", import.meta.url).pathname;
/** The signal that lets a stopped process go on. */
export const SIGCONT = 18;
/** The guest stands still if it does not count for so long, in milliseconds. */
const STANDS_MS = 50;

/** How the program with faults is started, options left out. */
export const faultyProgram: readonly string[] = [...sources.slice(0, -1), FAULTY];

/** A guest's memory, whoever has it mapped. */
export class GuestMemory implements Disposable {
  readonly #fd: OwnedFd;

  private constructor(fd: OwnedFd) {
    this.#fd = fd;
  }

  /** Opens the RAM of a process's guest, which outlives the process. */
  static of(pid: number): GuestMemory {
    const folder = `/proc/${pid}/fd`;
    const ram = [...Deno.readDirSync(folder)].map(({ name }) => `${folder}/${name}`)
      .find((path) => linkOf(path)?.startsWith("/memfd:memory-backend-memfd"));
    assert.ok(ram, `Process ${pid} has no guest memory`);
    return new GuestMemory(openFile(ram, O.RDWR));
  }

  /** One of the words of {@linkcode layout}. */
  word(address: number): bigint {
    const bytes = new Uint8Array(8);
    assert.equal(readAt(this.#fd.fd, bytes, address), 8);
    return new BigUint64Array(bytes.buffer)[0];
  }

  /** Writes a byte of the guest's. */
  poke(address: number, byte: number): void {
    seekFd(this.#fd.fd, address);
    writeAll(this.#fd.fd, Uint8Array.of(byte));
  }

  /** Fails unless the guest counts, and has found no error in itself. */
  async assertRuns(): Promise<void> {
    const before = this.word(layout.counter);
    await until(() => this.word(layout.counter) > before, () => `more than ${before} iterations`);
    this.assertIntact();
  }

  /** Fails if the guest counts, or has found an error in itself. */
  async assertStands(): Promise<void> {
    const before = this.word(layout.counter);
    await sleep(STANDS_MS);
    assert.equal(this.word(layout.counter), before, "the guest runs");
    this.assertIntact();
  }

  /** Fails if the guest has found an error in itself. */
  assertIntact(): void {
    assert.equal(describeCheck(Number(this.word(layout.check))), "no error");
  }

  /** Closes the memory. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}

function linkOf(path: string): string | undefined {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return undefined;
  }
}

/** What a process has open, by kind: inodes are left out. */
function kindsOfFiles(pid: number): string[] {
  return openFiles(pid).map((target) => target.replace(/:\[\d+\]/, "")).sort();
}

/** A laboratory whose VMMs have faults; no process outlives it. */
export class FaultLab implements AsyncDisposable {
  /** What a VMM with faults is started with. */
  readonly special: VmmOptions;
  readonly #file: string;

  private constructor(readonly lab: Laboratory, special: VmmOptions) {
    this.#file = lab.path("fault");
    this.special = {
      ...special,
      program: faultyProgram,
      env: { [FAULT_FILE]: this.#file },
      memory: 32,
    };
  }

  /** Makes an empty one. @param describe what else is special about its VMMs */
  static async open(describe: (lab: Laboratory) => VmmOptions = () => ({})): Promise<FaultLab> {
    const lab = await Laboratory.open();
    return new FaultLab(lab, describe(lab));
  }

  /** Says what shall happen; undefined: nothing. */
  arm(fault: Fault | undefined): void {
    Deno.writeTextFileSync(`${this.#file}.log`, "");
    if (!fault) return;
    // At once as a whole: a VMM may look for it at this very moment.
    Deno.writeTextFileSync(`${this.#file}.new`, JSON.stringify(fault));
    Deno.renameSync(`${this.#file}.new`, this.#file);
  }

  /** Waits until a fault has happened, or a step without one. */
  async happened({ role, step, action }: Omit<Fault, "action"> & Partial<Fault>): Promise<void> {
    const line = action ? `${role} ${step} ${action}` : `${role} ${step}`;
    await until(() => this.#log.includes(line), () => `'${line}' in ${this.#log.join(", ")}`);
  }

  /** The steps since the last `arm`, by the part that the process played. */
  get steps(): { role: Role; step: Step }[] {
    return this.#log.map((line) => {
      const [role, step] = line.split(" ");
      return { role: role as Role, step: step as Step };
    });
  }

  get #log(): string[] {
    return Deno.readTextFileSync(`${this.#file}.log`).split("\n").slice(0, -1);
  }

  /** The processes of this laboratory that live, in ascending order. */
  get processes(): number[] {
    return processesOf(this.lab);
  }

  /** Waits until no processes are left but these. */
  async onlyLeft(...pids: number[]): Promise<void> {
    const wanted = pids.toSorted((a, b) => a - b).join();
    await until(
      () => this.processes.join() === wanted,
      () => `only ${wanted} to be left of ${this.processes}`,
    );
  }

  /** Kills a VMM and waits until it is gone. */
  kill(vmm: Vmm): void {
    vmm.kill();
    Deno.removeSync(vmm.qmpPath);
  }

  /** Ends everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }
}

/**
 * Fails unless the guest runs in the VMM behind a monitor, and nowhere else: it counts, and does not
 * any more while it is stopped there.
 */
export async function assertRunsIn(qmp: Qmp, memory: GuestMemory): Promise<void> {
  await qmp.reaches("running");
  await memory.assertRuns();
  await qmp.execute("stop");
  await memory.assertStands();
  await qmp.execute("cont");
  await memory.assertRuns();
}

/** Fails unless a VMM that lives on without its guest refuses to run it. */
export async function assertGivenUp(qmp: Qmp, memory: GuestMemory): Promise<void> {
  await qmp.reaches("postmigrate");
  assert.match(await qmp.refusal("cont"), /it cannot run here again/);
  assert.match(await qmp.refusal("system_reset"), /it cannot run here again/);
  memory.assertIntact();
}

/**
 * The monitor of whoever listens where a VMM did, once its guest is in a run state. A process that
 * listened there may be on its way to become another.
 */
export async function answering(lab: Laboratory, vmm: Vmm, state: string): Promise<Qmp> {
  let answers: Qmp;
  const look = async () => {
    try {
      answers = await lab.monitor(vmm);
      if (await answers.runState() === state) return true;
      answers[Symbol.dispose]();
    } catch {
      // Its end came before the answer.
    }
    return false;
  };
  await until(look, () => `'${state}' from ${vmm.qmpPath}: ${vmm.output}`);
  return await answers!.withEvents();
}

/** Fails unless an update is reported as failed, with a reason in which a text occurs. */
export async function assertFailed(qmp: Qmp, text = ""): Promise<void> {
  if ((await qmp.migration()).status !== "failed") await qmp.logged("MIGRATION failed");
  const { status, "error-desc": reason } = await qmp.migration();
  assert.equal(status, "failed");
  assert.ok(reason, "no reason is given");
  assert.ok(reason.includes(text), reason);
}

/** Fails unless a VMM ends with an error that it has told its user. */
export async function assertEndsWithError(vmm: Vmm): Promise<void> {
  assert.deepEqual(await vmm.ended(), { code: 1 }, vmm.output);
  assert.match(vmm.output, /^denovo: ./m);
}

/** How often a look at a VMM may have been too early: what a rehearsal needed is closed later. */
const EARLY_LOOKS = 2;

/** A VMM that survives faults: it must not lose or gain a descriptor by them. */
export class Survivor {
  #files: string[] | undefined;
  #losses = 0;

  /** Fails if the process has other things open than after the first fault, or a child. */
  async assertClean(pid: number): Promise<void> {
    const before = this.#files ?? kindsOfFiles(pid);
    let now: string[] = [];
    const gained = () => beyond(now = kindsOfFiles(pid), before);
    await until(
      () => gained().length === 0 && childrenOf(pid).length === 0,
      () => `the end of files ${gained()} and of children ${childrenOf(pid)}`,
    );
    const lost = beyond(before, now);
    if (lost.length > 0) this.#losses++;
    assert.ok(this.#losses <= EARLY_LOOKS, `With each fault it has less open, now without ${lost}`);
    this.#files = now;
  }
}
