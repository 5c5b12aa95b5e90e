/** A device whose state has come to a new version: updates from the version before, and back. */
import assert from "node:assert/strict";
import { bufferSource, readSections, type Section, u32At } from "../../cpr/stream/stream.ts";
import { layout } from "../guests/programs.ts";
import { NEWER, newerSerial } from "./newer_vmm.ts";
import {
  beginTransfer,
  kvmTest,
  Laboratory,
  program,
  type Qmp,
  setExec,
  sources,
  startSuccessor,
  type Vmm,
  type VmmOptions,
} from "./program.ts";
import { assertCounts, assertUnharmed } from "./updates.ts";

const NEWER_VMM = new URL("./newer_vmm.ts", import.meta.url).pathname;
/** How the versions are started, options left out. */
const programs = { older: program, newer: [...sources.slice(0, -1), NEWER_VMM] } as const;
type Version = keyof typeof programs;

const modes = ["cpr-transfer", "relayed cpr-exec", "direct cpr-exec", "cpr-reboot"] as const;
type Mode = typeof modes[number];
/** What of the new version the guest uses. */
type Used = "nothing" | "counter" | "subsection";

/** A guest, and the VMM that has it. */
class Guest implements AsyncDisposable {
  #updates = 0;

  private constructor(
    readonly lab: Laboratory,
    readonly used: Used,
    public vmm: Vmm,
    public qmp: Qmp,
  ) {}

  /** Starts one. */
  static async start(version: Version, used: Used): Promise<Guest> {
    const lab = await Laboratory.open();
    try {
      const { vmm, qmp } = await lab.run("vmm0", special(version, used));
      const guest = new Guest(lab, used, vmm, qmp);
      await guest.assertRuns();
      return guest;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Fails unless it counts and has found no error in itself. */
  async assertRuns(): Promise<void> {
    await assertCounts(this.qmp, layout.counter);
    await assertUnharmed(this.qmp);
  }

  /** Replaces its VMM, which must work. */
  async update(version: Version, mode: Mode): Promise<void> {
    const { vmm } = this;
    const next = await this.begin(version, mode).catch((cause: Error) => {
      throw new Error(`${cause.message}; the VMM said: ${vmm.output}`, { cause });
    });
    this.vmm = next;
    if (next === vmm) await this.qmp.closed();
    else await this.qmp.logged("MIGRATION completed");
    if (next !== vmm) await this.qmp.execute("quit");
    this.qmp = await this.lab.monitor(next);
    await this.qmp.reaches("running");
    await this.qmp.withEvents();
    await this.assertRuns();
  }

  /** Begins to replace its VMM; gives the new one, which is the same process for cpr-exec. */
  async begin(version: Version, mode: Mode): Promise<Vmm> {
    const { lab, qmp, vmm } = this;
    const name = `vmm${++this.#updates}`;
    const uri = `file:${this.stateFile}`;
    if (mode === "cpr-transfer") {
      const next = await startSuccessor(lab, name, special(version, this.used));
      await beginTransfer(qmp, next.channels);
      return next.vmm;
    }
    if (mode === "cpr-reboot") {
      await qmp.execute("migrate-set-parameters", { mode });
      await qmp.execute("migrate", { uri });
      await qmp.logged("MIGRATION completed");
      const options = ["-incoming", uri];
      return lab.start(name, { ...special(version, this.used), options });
    }
    await setExec(qmp, [...programs[version], ...vmm.options.filter(isOwn), "-incoming", uri]);
    const relay = mode === "direct cpr-exec" ? "off" : "on";
    await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": relay });
    await qmp.execute("migrate", { uri });
    return vmm;
  }

  /** Where the state goes that is written to a file. */
  get stateFile(): string {
    return this.lab.path("state");
  }

  /** The sections of the serial port in the file. */
  get savedSerial(): Section[] {
    const source = bufferSource(Deno.readFileSync(this.stateFile));
    return [...readSections(source)].filter(({ name }) => name.startsWith("isa-serial"));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.lab[Symbol.asyncDispose]();
  }
}

function special(version: Version, used: Used): VmmOptions {
  return { program: programs[version], env: { [NEWER]: used }, memory: 32 };
}

/** Leaves out how a VMM began. */
function isOwn(word: string, i: number, words: readonly string[]): boolean {
  return word !== "-incoming" && words[i - 1] !== "-incoming";
}

for (const mode of modes) {
  kvmTest(`${mode} moves a guest to a newer version and back, and to it again`, async () => {
    await using guest = await Guest.start("older", "nothing");
    await guest.update("newer", mode);
    await guest.update("older", mode);
    await guest.update("newer", mode);
  });

  kvmTest(`${mode} between newer versions keeps what only they know`, async () => {
    for (const used of ["counter", "subsection"] as const) {
      await using guest = await Guest.start("newer", used);
      await guest.update("newer", mode);
      await guest.update("newer", mode);
      // Its state shows in a file.
      await guest.update("newer", "cpr-reboot");
      const [main, part] = guest.savedSerial;
      if (used === "counter") {
        const { data, version } = main;
        assert.equal(version, 2);
        assert.equal(u32At(data, newerSerial.state.offsets.counter), 7);
        assert.equal(part, undefined);
      } else {
        assert.equal(main.version, 1);
        assert.equal(part.name, "isa-serial/part");
        assert.deepEqual([...part.data], [9, 0, 0, 0]);
      }
    }
  });
}

/** How an older version says that it does not know what the guest uses. */
const refusals = {
  counter: {
    stream: /Unsupported version 2 for 'isa-serial' serial0, newest known is 1$/m,
    preflight:
      /: device 'serial0' differs: the guest has isa-serial, \d+ bytes of state v2, the command isa-serial, \d+ bytes of state v1$/,
  },
  subsection: {
    stream: /Unknown section or instance 'isa-serial\/part' serial0\./,
    preflight:
      /: subsection 'part' of device 'serial0' differs: the guest has 4 bytes of state v1, the command none$/,
  },
} as const;

for (const used of ["counter", "subsection"] as const) {
  kvmTest(`a guest that uses a new ${used} is not taken by the version before`, async () => {
    await using guest = await Guest.start("newer", used);
    const { qmp } = guest;
    const { stream, preflight } = refusals[used];
    const next = await guest.begin("older", "cpr-transfer");
    await qmp.logged("MIGRATION failed");
    assert.match((await qmp.migration())["error-desc"]!, stream);
    assert.deepEqual(await next.ended(), { code: 1 });
    await guest.assertRuns();
    for (const mode of ["relayed cpr-exec", "direct cpr-exec"] as const) {
      await assert.rejects(guest.begin("older", mode), preflight, mode);
      await guest.assertRuns();
    }
    const after = await guest.begin("older", "cpr-reboot");
    assert.deepEqual(await after.ended(), { code: 1 });
    assert.match(after.output, stream);
    await qmp.execute("cont");
    await guest.assertRuns();
  });
}
