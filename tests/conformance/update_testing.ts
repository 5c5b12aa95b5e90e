/**
 * What the tests of `update` share: a VMM that is updated, and the command.
 *
 * @module
 */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kill } from "../processes.ts";
import { Laboratory, program, Qmp, type Vmm, type VmmOptions } from "./program.ts";

export const modes = ["transfer", "exec", "reboot"] as const;

/** What a run of the command has come to. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A VMM that is updated; successors, which nobody waits for, end with it. */
export class Subject implements AsyncDisposable {
  readonly #pids = new Set<number>();
  readonly pidfile: string;
  readonly socket: string;

  private constructor(readonly lab: Laboratory, readonly special: VmmOptions, readonly vmm: Vmm) {
    this.pidfile = lab.path("pid");
    this.socket = vmm.qmpPath;
  }

  /** Starts a VMM with two monitors: the update keeps one of them busy. */
  static async start(describe: (lab: Laboratory) => VmmOptions = () => ({})): Promise<Subject> {
    const lab = await Laboratory.open();
    const special = describe(lab);
    const options = [
      ...["-pidfile", lab.path("pid"), "-qmp", `unix:${lab.path("second")},server=on,wait=off`],
      ...(special.options ?? []),
    ];
    const full = { ...special, options };
    const subject = new Subject(lab, full, lab.start("vmm", full));
    using qmp = await subject.monitor();
    await qmp.reaches("running");
    await qmp.assertGuestRuns();
    return subject;
  }

  /** The options of the VMM, and further ones. */
  options(...more: string[]): string[] {
    return [...this.lab.optionsOf("vmm", this.special), ...more];
  }

  /** The VMM's process, as its pidfile has it. */
  get pid(): number {
    const pid = Number(Deno.readTextFileSync(this.pidfile));
    this.#pids.add(pid);
    return pid;
  }

  monitor(): Promise<Qmp> {
    return Qmp.connect(this.socket);
  }

  /** Starts the command. */
  spawn(...args: string[]): Deno.ChildProcess {
    const [file, ...rest] = program;
    return new Deno.Command(file, {
      args: [...rest, "update", "-qmp", this.socket, ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  }

  /** Runs the command to its end. */
  run(...args: string[]): Promise<Outcome> {
    return outcomeOf(this.spawn(...args));
  }

  /** Fails unless the guest runs where it ran, and can be updated as before. */
  async assertUntouched(): Promise<void> {
    assert.equal(this.pid, this.vmm.child.pid);
    using second = await Qmp.connectAtOnce(this.lab.path("second"));
    assert.equal(await second.runState(), "running");
    using qmp = await Qmp.connectAtOnce(this.socket);
    assert.equal(await qmp.runState(), "running");
    await qmp.assertGuestRuns();
    const parameters = await qmp.execute<Record<string, unknown>>("query-migrate-parameters");
    assert.equal(parameters.mode, "normal");
    assert.deepEqual(parameters["cpr-exec-command"], []);
    const left = Array.from(Deno.readDirSync(this.lab.folder), ({ name }) => name)
      .filter((name) => name.includes(".update-"));
    assert.deepEqual(left, []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of [...this.#pids, this.pidIfThere() ?? 0]) {
      if (pid > 0 && pid !== this.vmm.child.pid) kill(pid);
    }
    await this.lab[Symbol.asyncDispose]();
  }

  private pidIfThere(): number | undefined {
    try {
      return this.pid;
    } catch {
      return undefined;
    }
  }
}

export async function outcomeOf(child: Deno.ChildProcess): Promise<Outcome> {
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** The guest's counter. */
export async function counterOf(subject: Subject): Promise<number> {
  using qmp = await Qmp.connectAtOnce(subject.socket);
  assert.equal(await qmp.runState(), "running");
  await qmp.assertGuestRuns();
  return await qmp.word(layout.counter);
}

/** Runs the command without a VMM. */
export async function runAlone(...args: string[]): Promise<Outcome> {
  const [file, ...rest] = program;
  const command = new Deno.Command(file, {
    args: [...rest, "update", ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  return await outcomeOf(command.spawn());
}
