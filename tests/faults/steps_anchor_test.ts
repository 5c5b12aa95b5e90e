/** A process that dies, stalls or fails at any step of an anchored cpr-exec. */
import assert from "node:assert/strict";
import { until } from "../conformance/program.ts";
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
  Survivor,
} from "./faults.ts";
import { before, exec, Faults, forEach, start } from "./modes.ts";

onlyKvmTest(
  "anchored cpr-exec: a failure at any step leaves the guest in the same process",
  async () => {
    const possible = await Faults.of("anchor");
    await using faults = await FaultLab.open();
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const { pid } = vmm.child;
    let monitor = qmp;
    let survivor = new Survivor();
    await forEach(possible.at("old", "throw"), async (fault) => {
      await exec(faults, { vmm, qmp: monitor }, "anchor", fault);
      await assertFailed(monitor);
      await faults.onlyLeft(pid);
      await assertRunsIn(monitor, memory);
      await survivor.assertClean(pid);
    });
    survivor = new Survivor();
    await forEach(
      possible.at("new", "throw", (step) => before(step, "taken")),
      async (fault) => {
        await exec(faults, { vmm, qmp: monitor }, "anchor", fault);
        monitor = await answering(faults.lab, vmm, "running");
        await assertFailed(monitor, `fault of new at ${fault.step}`);
        await assertRunsIn(monitor, memory);
        await faults.onlyLeft(pid);
        await survivor.assertClean(pid);
      },
    );
    await exec(faults, { vmm, qmp: monitor }, "anchor");
    await monitor.closed();
    monitor = await answering(faults.lab, vmm, "running");
    assert.equal((await monitor.migration()).status, "completed");
    await assertRunsIn(monitor, memory);
  },
);

onlyKvmTest(
  "anchored cpr-exec: a process that is killed leaves no guest and no anchor",
  async () => {
    const possible = await Faults.of("anchor");
    await using faults = await FaultLab.open();
    await forEach([...possible.at("old", "kill"), ...possible.at("new", "kill")], async (fault) => {
      const { vmm, qmp, memory } = await start(faults);
      using _memory = memory;
      await exec(faults, { vmm, qmp }, "anchor", fault);
      assert.deepEqual(await vmm.ended(), { signal: 9 });
      await faults.onlyLeft();
      await memory.assertStands();
    });
  },
);

onlyKvmTest("anchored cpr-exec: the guest runs on while the new program stalls", async () => {
  const possible = await Faults.of("anchor");
  // A guest that touches no device.
  await using faults = await FaultLab.open(() => ({ guest: "smp", options: ["-smp", "2"] }));
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  await faults.lab.printed("cpus 2");
  const { pid } = vmm.child;
  let monitor = qmp;
  await forEach([
    ...possible.at("old", "stop", (step) => !before(step, "handed-over")),
    ...possible.at("new", "stop", (step) => before(step, "stop")),
  ], async (fault) => {
    const going = exec(faults, { vmm, qmp: monitor }, "anchor", fault);
    await faults.happened(fault);
    await until(() => isStopped(pid), () => "the process to stall");
    await bothCount(memory);
    vmm.child.kill(SIGCONT);
    await going;
    await monitor.closed();
    monitor = await answering(faults.lab, vmm, "running");
    assert.equal((await monitor.migration()).status, "completed");
    await bothCount(memory);
    await faults.onlyLeft(pid);
  });
});

/** Waits until both vCPUs of the guest `smp` have counted on. */
async function bothCount(memory: GuestMemory): Promise<void> {
  for (const cpu of [0, 1]) {
    const record = layout.cpuRecords + cpu * layout.cpuRecordSize;
    const before = memory.word(record);
    await until(() => memory.word(record) > before, () => `CPU ${cpu} to count`);
  }
  memory.assertIntact();
}

onlyKvmTest(
  "anchored cpr-exec: an anchor that dies takes the guest along, and nobody goes back",
  async () => {
    await using faults = await FaultLab.open();
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const { pid } = vmm.child;
    const fault = { role: "new", step: "machine-built", action: "stop" } as const;
    const going = exec(faults, { vmm, qmp }, "anchor", fault);
    await faults.happened(fault);
    // It says so first, and a SIGCONT that comes before the SIGSTOP is lost.
    await until(() => isStopped(pid), () => "the process to stall");
    const [anchor, ...others] = childrenOf(pid);
    assert.deepEqual(others, []);
    Deno.kill(anchor, "SIGKILL");
    await until(() => isZombie(anchor), () => "the anchor's end");
    vmm.child.kill(SIGCONT);
    await going;
    assert.deepEqual(await vmm.ended(), { code: 1 });
    const message =
      `Process ${anchor}, which had the guest meanwhile, has ended, and the guest with it`;
    assert.ok(vmm.output.includes(message), vmm.output);
    await faults.onlyLeft();
  },
);
