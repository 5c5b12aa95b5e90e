/** A process that dies, stalls or fails at any step of a relayed cpr-exec. */
import assert from "node:assert/strict";
import { kvmTest, type Qmp, until, type Vmm } from "../conformance/program.ts";
import { kill } from "../processes.ts";
import { isStopped } from "../processes.ts";
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

/** Fails unless the guest runs in the helper alone, whose monitor answers where the VMM's did. */
async function assertRunsInHelper(
  faults: FaultLab,
  vmm: Vmm,
  memory: GuestMemory,
): Promise<Qmp> {
  assert.deepEqual(await vmm.ended(), { signal: 9 });
  const qmp = await answering(faults.lab, vmm, "running");
  const { status, "error-desc": reason } = await qmp.migration();
  assert.equal(status, "failed");
  assert.match(reason!, /^cpr-exec failed: the new program has ended$/);
  await assertRunsIn(qmp, memory);
  await until(() => faults.processes.length === 1, () => `one to be left of ${faults.processes}`);
  await vmm.said(`the guest runs on in process ${faults.processes[0]}`);
  return qmp;
}

kvmTest(
  "relayed cpr-exec: whatever happens before the helper has the guest leaves it",
  async () => {
    const possible = await Faults.of("relay");
    await using faults = await FaultLab.open();
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const { pid } = vmm.child;
    const survivor = new Survivor();
    await forEach([
      ...possible.at("helper-takes", "kill", (step) => before(step, "taken")),
      ...possible.at(
        "helper-takes",
        "stop",
        (step) => !before(step, "received") && before(step, "taken"),
      ),
      ...possible.at("old", "throw", (step) => before(step, "sent")),
    ], async (fault) => {
      await exec(faults, { vmm, qmp }, "on", fault);
      await assertFailed(qmp);
      await faults.onlyLeft(pid);
      await assertRunsIn(qmp, memory);
      await survivor.assertClean(pid);
    });
    await exec(faults, { vmm, qmp }, "on");
    await qmp.closed();
    const next = await answering(faults.lab, vmm, "running");
    assert.equal((await next.migration()).status, "completed");
    await assertRunsIn(next, memory);
    await faults.onlyLeft(pid);
  },
);

kvmTest("relayed cpr-exec: a new program that fails or stalls leads back to the old", async () => {
  const possible = await Faults.of("relay");
  await using faults = await FaultLab.open();
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  const { pid } = vmm.child;
  let monitor = qmp;
  const survivor = new Survivor();
  await forEach([
    ...possible.at("new", "throw", (step) => before(step, "taken")),
    ...possible.at("new", "stop", (step) => !before(step, "received") && before(step, "taken")),
  ], async (fault) => {
    await exec(faults, { vmm, qmp: monitor }, "on", fault);
    if (fault.action === "stop") {
      await memory.assertRuns();
      vmm.child.kill(SIGCONT);
    }
    await faults.onlyLeft(pid);
    monitor = await answering(faults.lab, vmm, "running");
    await assertFailed(monitor);
    await assertRunsIn(monitor, memory);
    await survivor.assertClean(pid);
  });
});

kvmTest("relayed cpr-exec: the helper keeps the guest when the new program dies", async () => {
  const possible = await Faults.of("relay");
  await using faults = await FaultLab.open();
  await forEach([
    ...possible.at("old", "kill", (step) => !before(step, "sent")),
    ...possible.at("new", "kill", (step) => before(step, "taken")),
  ], async (fault) => {
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    await exec(faults, { vmm, qmp }, "on", fault);
    const monitor = await assertRunsInHelper(faults, vmm, memory);
    if (fault.step === "exec" || fault.step === "loaded") {
      // It is a VMM like any other now.
      const [pid] = faults.processes;
      await exec(faults, { vmm, qmp: monitor }, "on");
      await monitor.closed();
      await assertRunsIn(await answering(faults.lab, vmm, "running"), memory);
      await faults.onlyLeft(pid);
    }
    faults.processes.forEach(kill);
    await faults.onlyLeft();
  });
});

kvmTest("relayed cpr-exec: the guest ends with the process that owned it", async () => {
  const possible = await Faults.of("relay");
  await using faults = await FaultLab.open();
  await forEach([
    ...possible.at("helper-takes", "kill", (step) => !before(step, "taken")),
    ...possible.at("old", "kill", (step) => before(step, "sent")),
    ...possible.at("helper-gives", "kill", (step) => before(step, "sent")),
    ...possible.at("new", "kill", (step) => !before(step, "taken")),
  ], async (fault) => {
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    await exec(faults, { vmm, qmp }, "on", fault);
    const status = await vmm.ended();
    const helperDied = fault.role.startsWith("helper");
    assert.deepEqual(status, helperDied ? { code: 1 } : { signal: 9 });
    if (helperDied) {
      assert.match(vmm.output, /^denovo: The VMM that has the guest does not answer/m);
    }
    await faults.onlyLeft();
    await memory.assertStands();
  });
});

kvmTest("relayed cpr-exec: a helper may die as soon as it has given the guest away", async () => {
  const possible = await Faults.of("relay");
  await using faults = await FaultLab.open();
  await forEach(
    possible.at("helper-gives", "kill", (step) => !before(step, "sent")),
    async (fault) => {
      const { vmm, qmp, memory } = await start(faults);
      using _memory = memory;
      await exec(faults, { vmm, qmp }, "on", fault);
      await assertRunsIn(await answering(faults.lab, vmm, "running"), memory);
      await faults.onlyLeft(vmm.child.pid);
      await new Survivor().assertClean(vmm.child.pid);
      vmm.kill();
    },
  );
});

kvmTest("relayed cpr-exec: the guest runs in the helper while the VMM stalls", async () => {
  const possible = await Faults.of("relay");
  await using faults = await FaultLab.open();
  await forEach(
    possible.at("old", "stop", (step) => !before(step, "sent")),
    async (fault) => {
      const { vmm, qmp, memory } = await start(faults);
      using _memory = memory;
      const going = exec(faults, { vmm, qmp }, "on", fault);
      await faults.happened({ role: "helper-takes", step: "entered" });
      await memory.assertRuns();
      await until(() => isStopped(vmm.child.pid), () => "the VMM to stall");
      vmm.child.kill(SIGCONT);
      await going;
      await assertRunsIn(await answering(faults.lab, vmm, "running"), memory);
      await faults.onlyLeft(vmm.child.pid);
      vmm.kill();
    },
  );
});
