/** A guest that touches a device while an anchor runs it: it waits, and nothing is lost or done twice. */
import assert from "node:assert/strict";
import { type Qmp, setExec, sleep, until } from "../conformance/program.ts";
import { layout } from "../guests/programs.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { childrenOf, isStopped, isZombie } from "../processes.ts";
import {
  answering,
  assertFailed,
  assertRunsIn,
  FaultLab,
  type GuestMemory,
  SIGCONT,
} from "./faults.ts";
import type { Fault } from "./faulty_vmm.ts";
import { exec, type Start, start } from "./modes.ts";

/** Waits until the guest `demo` stands: it has something to print, once a second. */
async function waitsForItsDevice(memory: GuestMemory): Promise<void> {
  await until(async () => {
    const before = memory.word(layout.counter);
    await sleep(50);
    return memory.word(layout.counter) === before;
  }, () => "the guest to stand still");
}

/** Waits until the guest has printed its next line, and fails unless each has come once and whole. */
async function assertPrintedAll({ lab }: FaultLab): Promise<void> {
  const ticks = () => [...lab.serialText.matchAll(/^tick (\d+)\n/gm)].map(([, n]) => Number(n));
  const before = ticks().length;
  await until(
    () => ticks().length > before + 1,
    () => `a line after ${JSON.stringify(lab.serialText)}`,
  );
  const printed = ticks();
  assert.deepEqual(printed, printed.map((_, i) => printed[0] + i));
  const rest = lab.serialText.slice(lab.serialText.indexOf("tick "));
  assert.match(rest, /^(tick \d+\n)+(t|ti|tic|tick|tick \d*)?$/);
}

onlyKvmTest(
  "a guest whose access waits in the anchor finds it served by the new program",
  async () => {
    await using faults = await FaultLab.open();
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const going = await execStalled(faults, { vmm, qmp });
    await waitsForItsDevice(memory);
    vmm.child.kill(SIGCONT);
    await going.done;
    const monitor = await answering(faults.lab, vmm, "running");
    assert.equal((await monitor.migration()).status, "completed");
    await assertPrintedAll(faults);
    await assertRunsIn(monitor, memory);
  },
);

onlyKvmTest(
  "an access that the new program has served is not served again on the way back",
  async () => {
    await using faults = await FaultLab.open();
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const going = await execStalled(faults, { vmm, qmp });
    await waitsForItsDevice(memory);
    const next: Fault = { role: "new", step: "loaded", action: "throw" };
    faults.arm(next);
    vmm.child.kill(SIGCONT);
    await going.done;
    await faults.happened(next);
    const monitor = await answering(faults.lab, vmm, "running");
    await assertFailed(monitor, "fault of new at loaded");
    await assertPrintedAll(faults);
    await assertRunsIn(monitor, memory);
  },
);

onlyKvmTest(
  "an exec that fails serves what waits in the anchor, and the guest goes on",
  async () => {
    await using faults = await FaultLab.open();
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const fault: Fault = { role: "old", step: "sent", action: "stop" };
    await beginNowhere(faults, qmp, fault);
    await until(() => isStopped(vmm.child.pid), () => "the process to stall");
    await waitsForItsDevice(memory);
    vmm.child.kill(SIGCONT);
    await assertFailed(qmp, "execvp /nonexistent failed: No such file or directory");
    await assertPrintedAll(faults);
    await faults.onlyLeft(vmm.child.pid);
    await assertRunsIn(qmp, memory);
  },
);

onlyKvmTest(
  "an anchor that is killed before the exec leaves the guest, and what it waits for, to its process",
  async () => {
    await using faults = await FaultLab.open();
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const { pid } = vmm.child;
    // In the guest as in an access that waits.
    for (const prepare of [() => Promise.resolve(), () => waitsForItsDevice(memory)]) {
      const fault: Fault = { role: "old", step: "sent", action: "stop" };
      await beginNowhere(faults, qmp, fault);
      await until(() => isStopped(pid), () => "the process to stall");
      await prepare();
      const [anchor] = childrenOf(pid);
      Deno.kill(anchor, "SIGKILL");
      await until(() => isZombie(anchor), () => "the anchor's end");
      vmm.child.kill(SIGCONT);
      await assertFailed(qmp, "execvp /nonexistent failed: No such file or directory");
      await assertPrintedAll(faults);
      await faults.onlyLeft(pid);
      await assertRunsIn(qmp, memory);
    }
  },
);

onlyKvmTest(
  "what a guest has asked for in the anchor is not lost on the way back",
  async () => {
    // With isa-debug-exit at the port that the guest writes to as soon as it is told to.
    const options = ["-device", `isa-debug-exit,iobase=${layout.unclaimedPort},iosize=1`];
    await using faults = await FaultLab.open(() => ({ guest: "exits", options }));
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    memory.poke(layout.mode, "h".charCodeAt(0));
    await memory.assertRuns();
    const going = await execStalled(faults, { vmm, qmp });
    memory.poke(layout.mode, "p".charCodeAt(0));
    await waitsForItsDevice(memory);
    const next: Fault = { role: "new", step: "loaded", action: "throw" };
    faults.arm(next);
    vmm.child.kill(SIGCONT);
    await going.done;
    await faults.happened(next);
    const status = await vmm.ended();
    assert.ok("code" in status && status.code % 2 === 1, JSON.stringify(status));
    await faults.onlyLeft();
  },
);

/** Begins an anchored cpr-exec whose new program stalls as soon as it has its machine. */
async function execStalled(
  faults: FaultLab,
  old: Pick<Start, "vmm" | "qmp">,
): Promise<{ readonly done: Promise<void> }> {
  const fault: Fault = { role: "new", step: "machine-built", action: "stop" };
  const done = exec(faults, old, "anchor", fault);
  await faults.happened(fault);
  await until(() => isStopped(old.vmm.child.pid), () => "the process to stall");
  return { done };
}

async function beginNowhere(faults: FaultLab, qmp: Qmp, fault: Fault): Promise<void> {
  await setExec(qmp, ["/nonexistent"]);
  await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": "anchor" });
  faults.arm(fault);
  await qmp.execute("migrate", { uri: `file:${faults.lab.path("state")}` });
  await faults.happened(fault);
}
