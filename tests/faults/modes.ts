/**
 * The updates that the tests of faults make: each mode with a fault in it, and what steps each takes
 * without one.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Step, steps } from "../../cpr/migration/timeline.ts";
import {
  beginTransfer,
  type Qmp,
  QmpError,
  setExec,
  startSuccessor,
  type Successor,
  type Vmm,
} from "../conformance/program.ts";
import { answering, FaultLab, faultyProgram, GuestMemory } from "./faults.ts";
import type { Action, Fault, Role } from "./faulty_vmm.ts";

/** The ways in which a guest moves from one VMM to the next. */
export const modes = ["transfer", "exec", "relay", "anchor", "reboot"] as const;

/** One of them. */
export type Mode = typeof modes[number];

/** Whether a step comes before another. */
export function before(step: Step, other: Step): boolean {
  return steps.indexOf(step) < steps.indexOf(other);
}

let names = 0;

/** A guest in a VMM with faults. */
export interface Start {
  readonly vmm: Vmm;
  readonly qmp: Qmp;
  readonly memory: GuestMemory;
}

/** Starts a guest. */
export async function start(faults: FaultLab): Promise<Start> {
  faults.arm(undefined);
  const { vmm, qmp } = await faults.lab.run(`vmm${names++}`, faults.special);
  return { vmm, qmp, memory: GuestMemory.of(vmm.child.pid) };
}

/** An error reply, or the connection's end, is no failure here: what became of the guest counts. */
async function anyReply(reply: Promise<unknown>, qmp: Qmp): Promise<void> {
  try {
    await reply;
  } catch (error) {
    if (!(error instanceof QmpError) && !qmp.ended) throw error;
  }
}

/** Begins a cpr-transfer, and waits for its fault; the old VMM may be gone afterwards. */
export async function transfer(faults: FaultLab, qmp: Qmp, fault?: Fault): Promise<Successor> {
  const successor = await startSuccessor(faults.lab, `vmm${names++}`, faults.special);
  faults.arm(fault);
  await anyReply(beginTransfer(qmp, successor.channels), qmp);
  if (fault) await faults.happened(fault);
  return successor;
}

/** What `x-cpr-exec-relay` has to be for each mode of cpr-exec. */
const relays = { exec: "off", relay: "on", anchor: "anchor" } as const;

/** Begins a cpr-exec, directly, by way of a helper or of an anchor, and waits for its fault. */
export async function exec(
  faults: FaultLab,
  { vmm, qmp }: { readonly vmm: Vmm; readonly qmp: Qmp },
  relay: typeof relays[keyof typeof relays],
  fault?: Fault,
): Promise<void> {
  const uri = `file:${faults.lab.path("state")}`;
  await setExec(qmp, [...faultyProgram, ...vmm.options, "-incoming", uri]);
  await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": relay });
  qmp.log.length = 0;
  faults.arm(fault);
  await anyReply(qmp.execute("migrate", { uri }), qmp);
  if (fault) await faults.happened(fault);
}

/** Begins to write a guest into a file, and waits for its fault. */
export async function save(
  faults: FaultLab,
  qmp: Qmp,
  file: string,
  fault?: Fault,
): Promise<void> {
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  qmp.log.length = 0;
  faults.arm(fault);
  await anyReply(qmp.execute("migrate", { uri: `file:${file}` }), qmp);
  if (fault) await faults.happened(fault);
}

/** Starts a VMM that takes its guest from a file, and waits for its fault. */
export async function load(faults: FaultLab, file: string, fault?: Fault): Promise<Vmm> {
  faults.arm(fault);
  const vmm = faults.lab.start(`vmm${names++}`, {
    ...faults.special,
    options: ["-incoming", `file:${file}`],
  });
  if (fault) await faults.happened(fault);
  return vmm;
}

/** The steps that each role takes in an update without faults. */
export async function record(mode: Mode): Promise<Map<Role, Step[]>> {
  await using faults = await FaultLab.open();
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  switch (mode) {
    case "transfer": {
      const next = await transfer(faults, qmp);
      await qmp.logged("MIGRATION completed");
      await (await faults.lab.monitor(next.vmm)).reaches("running");
      break;
    }
    case "reboot": {
      const file = faults.lab.path("state");
      await save(faults, qmp, file);
      await qmp.logged("MIGRATION completed");
      const before = faults.steps;
      await (await faults.lab.monitor(await load(faults, file))).reaches("running");
      return byRole([...before, ...await entered(faults)]);
    }
    default:
      await exec(faults, { vmm, qmp }, relays[mode]);
      await answering(faults.lab, vmm, "running");
  }
  return byRole(await entered(faults));
}

/** All steps, once the new VMM has noted that its vCPUs run. */
async function entered(faults: FaultLab) {
  await faults.happened({ role: "new", step: "entered" });
  return faults.steps;
}

function byRole(steps: FaultLab["steps"]): Map<Role, Step[]> {
  const seen = new Map<Role, Step[]>();
  for (const { role, step } of steps) {
    const list = seen.get(role) ?? [];
    if (!list.includes(step)) seen.set(role, [...list, step]);
  }
  return seen;
}

/** What has been recorded. */
const recorded = new Map<Mode, ReadonlyMap<Role, readonly Step[]>>();

/** The faults of one mode. */
export class Faults {
  readonly #seen: ReadonlyMap<Role, readonly Step[]>;

  private constructor(seen: ReadonlyMap<Role, readonly Step[]>) {
    this.#seen = seen;
  }

  /** Those of a mode, by the steps that it takes without any. */
  static async of(mode: Mode): Promise<Faults> {
    const seen = recorded.get(mode) ?? await record(mode);
    recorded.set(mode, seen);
    return new Faults(seen);
  }

  /** One for each step of a role, or for those of them that are wanted. */
  at(role: Role, action: Action, wanted: (step: Step) => boolean = () => true): Fault[] {
    const list = this.#seen.get(role)?.filter(wanted) ?? [];
    assert.ok(list.length > 0, `No such steps of ${role} were seen`);
    return list.map((step) => ({ role, step, action }));
  }
}

/** Runs one case after the other; a failure says which it was. */
export async function forEach(
  faults: readonly Fault[],
  run: (fault: Fault) => Promise<void>,
): Promise<void> {
  for (const fault of faults) {
    try {
      await run(fault);
    } catch (error) {
      const { role, step, action } = fault;
      throw new Error(`${action} of ${role} at ${step}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}
