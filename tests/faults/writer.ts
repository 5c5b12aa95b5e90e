/**
 * `deno task writer [--updates N] [--seed N]`: a guest writes numbered records to a disk, several at a
 * time, while its VMM is replaced N times (200), mostly by cpr-transfer and now and then by cpr-exec by
 * way of a helper. In every third update the process that shall have the guest next is killed before
 * it has it, at one step after the other. Somebody else tries all the while to get the image. Ends with
 * status 1 if a record is lost or there twice, or the image was ever free. The seed chooses the modes.
 *
 * @module
 */
import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import { assertNoneLost, assertRecords } from "../conformance/disk_records.ts";
import { type Laboratory, type Qmp, until, type Vmm } from "../conformance/program.ts";
import { Thief } from "../conformance/thief.ts";
import { layout } from "../guests/programs.ts";
import { answering, assertFailed, FaultLab, type GuestMemory } from "./faults.ts";
import type { Fault } from "./faulty_vmm.ts";
import { before, exec, Faults, start, transfer } from "./modes.ts";

/** Of so many updates, one is by cpr-exec. */
const EXEC_EVERY = 4;
/** Of so many updates, one fails. */
const KILL_EVERY = 3;

/** What was done. */
export interface Tally {
  /** Updates after which the guest was in another VMM. */
  moved: number;
  /** Updates in which the next VMM was killed. */
  killed: number;
  /** Of all these, those by cpr-exec. */
  execs: number;
  /** Requests that the guest has had done. */
  requests: number;
  /** Sectors of the disk that were compared with what the guest knows, at the end. */
  compared: number;
}

/** Faults, one after the other, over and over. */
function* inTurn(faults: readonly Fault[]): Generator<Fault, never> {
  for (;;) yield* faults;
}

/** The deaths of those that do not have the guest yet. */
async function deaths() {
  const [transfers, relays] = [await Faults.of("transfer"), await Faults.of("relay")];
  return {
    transfer: inTurn(transfers.at("new", "kill", (step) => before(step, "taken"))),
    exec: inTurn([
      ...relays.at("helper-takes", "kill", (step) => before(step, "taken")),
      ...relays.at("new", "kill", (step) => before(step, "taken")),
    ]),
  };
}

/** A guest that writes, in whatever process has it at the moment. */
class Writer implements AsyncDisposable {
  #pid: number;

  private constructor(
    readonly faults: FaultLab,
    readonly image: string,
    readonly thief: Thief,
    readonly memory: GuestMemory,
    /** The VMM whose options and monitor's address the guest's VMM has. */
    private vmm: Vmm,
    private qmp: Qmp,
  ) {
    this.#pid = vmm.child.pid;
  }

  static async start(): Promise<Writer> {
    const faults = await FaultLab.open(diskOptions);
    const image = imageIn(faults.lab);
    Deno.writeFileSync(image, new Uint8Array(1 << 20));
    const { vmm, qmp, memory } = await start(faults);
    await faults.lab.printed("2048 sectors\n");
    const thief = new Thief(image);
    await thief.tries();
    return new Writer(faults, image, thief, memory, vmm, qmp);
  }

  /** cpr-transfer, in which the next VMM may be killed. */
  async transfer(fault?: Fault): Promise<void> {
    const { faults, qmp } = this;
    const { vmm } = await transfer(faults, qmp, fault);
    if (fault) {
      assert.deepEqual(await vmm.ended(), { signal: 9 });
      await assertFailed(qmp);
    } else {
      await qmp.logged("MIGRATION completed");
      await qmp.execute("quit");
      this.#pid = vmm.child.pid;
      this.vmm = vmm;
      this.qmp = await (await faults.lab.monitor(vmm)).withEvents();
    }
    await this.#goesOn();
  }

  /** cpr-exec by way of a helper; that, or the new program, may be killed. */
  async exec(fault?: Fault): Promise<void> {
    const { faults, qmp, vmm } = this;
    await exec(faults, { vmm, qmp }, "on", fault);
    if (fault?.role === "helper-takes") await assertFailed(qmp);
    else {
      // Where the new program has died, the helper has the guest, and listens.
      if (fault) await this.#helperHasIt();
      else await qmp.closed();
      this.qmp = await answering(faults.lab, vmm, "running");
      assert.equal((await this.qmp.migration()).status, fault ? "failed" : "completed");
    }
    await this.#goesOn();
  }

  /** Looks at everything, when the guest is stopped for good. */
  async finish(): Promise<Pick<Tally, "requests" | "compared">> {
    const { faults, memory, qmp, image, thief } = this;
    await assertNoneLost(qmp);
    await qmp.execute("stop");
    memory.assertIntact();
    assert.doesNotMatch(faults.lab.serialText, /FAIL/);
    await thief.finish();
    const requests = Number(memory.word(layout.counter));
    return { requests, compared: await assertRecords(image, qmp) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.memory[Symbol.dispose]();
    await this.thief[Symbol.asyncDispose]();
    await this.faults[Symbol.asyncDispose]();
  }

  /** The process that has the guest, and nobody else but the thief, is left, and the guest writes. */
  async #goesOn(): Promise<void> {
    await this.faults.onlyLeft(this.#pid, this.thief.pid);
    await this.qmp.reaches("running");
    await this.memory.assertRuns();
    this.thief.assertEmptyHanded();
  }

  async #helperHasIt(): Promise<void> {
    const others = () => this.faults.processes.filter((pid) => pid !== this.thief.pid);
    await until(
      () => others().length === 1 && others()[0] !== this.#pid,
      () => `the helper to be alone, there are ${others()}`,
    );
    [this.#pid] = others();
  }
}

function imageIn(lab: Laboratory): string {
  return lab.path("disk.img");
}

function diskOptions(lab: Laboratory) {
  const drive = `file=${imageIn(lab)},format=raw,if=none,id=d`;
  return {
    guest: "virtio_blk",
    options: ["-drive", drive, "-device", "virtio-blk-device,drive=d"],
  } as const;
}

/**
 * Replaces the VMM of a guest that writes.
 *
 * @param updates how often, those that fail among them
 * @param seed chooses the modes
 * @param onUpdate called after each, with how many there were
 * @returns what was done
 * @throws {Error} if anything is wrong
 */
export async function writeThrough(
  updates: number,
  seed: number,
  onUpdate: (count: number) => void = () => {},
): Promise<Tally> {
  const kills = await deaths();
  await using writer = await Writer.start();
  const tally = { moved: 0, killed: 0, execs: 0 };
  for (let i = 0; i < updates; i++) {
    const mode = (i + seed) % EXEC_EVERY === 0 ? "exec" : "transfer";
    const fault = i % KILL_EVERY === KILL_EVERY - 1 ? kills[mode].next().value : undefined;
    try {
      await writer[mode](fault);
    } catch (error) {
      const what = fault ? `, ${fault.role} killed at ${fault.step}` : "";
      throw new Error(`Update ${i + 1} by ${mode}${what}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    tally[fault ? "killed" : "moved"]++;
    if (mode === "exec") tally.execs++;
    onUpdate(i + 1);
  }
  return { ...tally, ...await writer.finish() };
}

/** Runs the task. */
async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args.filter((argument) => argument !== "--"),
    options: {
      updates: { type: "string", default: "200" },
      seed: { type: "string", default: `${Date.now() % 1000}` },
    },
  });
  const [updates, seed] = [Number(values.updates), Number(values.seed)];
  for (const [name, value] of Object.entries({ updates, seed })) {
    if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} is no number`);
  }
  console.log(`${updates} updates of a guest that writes, seed ${seed}`);
  const tally = await writeThrough(updates, seed, (count) => {
    if (count % 10 === 0) console.log(`${count} of ${updates}`);
  });
  console.log(
    `${tally.moved} times in another VMM, ${tally.killed} times the next one killed, ` +
      `${tally.execs} of these by cpr-exec; ${tally.requests} requests, none lost, none done twice; ` +
      `${tally.compared} sectors have the last record; nobody else had the image`,
  );
}

if (import.meta.main) await main();
