/** A process that dies or fails at any step of a direct cpr-exec, and of a cpr-reboot. */
import assert from "node:assert/strict";
import { kvmTest } from "../conformance/program.ts";
import {
  answering,
  assertEndsWithError,
  assertFailed,
  assertRunsIn,
  FaultLab,
  GuestMemory,
  Survivor,
} from "./faults.ts";
import { before, exec, Faults, forEach, load, save, start } from "./modes.ts";

kvmTest("cpr-exec: a failure at any step leaves the guest in the same process", async () => {
  const possible = await Faults.of("exec");
  await using faults = await FaultLab.open();
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  const { pid } = vmm.child;
  let monitor = qmp;
  let survivor = new Survivor();
  await forEach(possible.at("old", "throw"), async (fault) => {
    await exec(faults, { vmm, qmp: monitor }, "off", fault);
    await assertFailed(monitor);
    await assertRunsIn(monitor, memory);
    await faults.onlyLeft(pid);
    await survivor.assertClean(pid);
  });
  survivor = new Survivor();
  await forEach(
    possible.at("new", "throw", (step) => before(step, "taken")),
    async (fault) => {
      await exec(faults, { vmm, qmp: monitor }, "off", fault);
      monitor = await answering(faults.lab, vmm, "running");
      await assertFailed(monitor, `fault of new at ${fault.step}`);
      await assertRunsIn(monitor, memory);
      await faults.onlyLeft(pid);
      await survivor.assertClean(pid);
    },
  );
  await exec(faults, { vmm, qmp: monitor }, "off");
  await monitor.closed();
  monitor = await answering(faults.lab, vmm, "running");
  assert.equal((await monitor.migration()).status, "completed");
  await assertRunsIn(monitor, memory);
});

kvmTest("cpr-exec: the one process that there is leaves nothing when it is killed", async () => {
  const possible = await Faults.of("exec");
  await using faults = await FaultLab.open();
  await forEach([...possible.at("old", "kill"), ...possible.at("new", "kill")], async (fault) => {
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    await exec(faults, { vmm, qmp }, "off", fault);
    assert.deepEqual(await vmm.ended(), { signal: 9 });
    await faults.onlyLeft();
    await memory.assertStands();
  });
});

kvmTest("cpr-reboot: a failure at any step of saving lets the guest go on", async () => {
  const possible = await Faults.of("reboot");
  await using faults = await FaultLab.open();
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  const { pid } = vmm.child;
  const survivor = new Survivor();
  const file = faults.lab.path("state");
  await forEach(possible.at("old", "throw"), async (fault) => {
    await save(faults, qmp, file, fault);
    await assertFailed(qmp);
    await assertRunsIn(qmp, memory);
    await survivor.assertClean(pid);
  });
  await save(faults, qmp, file);
  await qmp.logged("MIGRATION completed");
  await memory.assertStands();
});

kvmTest("cpr-reboot: a VMM that is killed while it saves leaves no file that loads", async () => {
  const possible = await Faults.of("reboot");
  await using faults = await FaultLab.open();
  await forEach(possible.at("old", "kill"), async (fault) => {
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const file = faults.lab.path("state");
    await Deno.remove(file).catch(() => {});
    await save(faults, qmp, file, fault);
    assert.deepEqual(await vmm.ended(), { signal: 9 });
    await faults.onlyLeft();
    const next = await load(faults, file);
    if (before(fault.step, "sent")) return await assertEndsWithError(next);
    using ram = await memoryOf(faults, next.child.pid);
    await assertRunsIn(await faults.lab.monitor(next), ram);
    next.kill();
  });
});

kvmTest(
  "cpr-reboot: a file can be loaded again when the VMM that loaded it is killed",
  async () => {
    const possible = await Faults.of("reboot");
    await using faults = await FaultLab.open();
    const { qmp, memory } = await start(faults);
    using _memory = memory;
    const file = faults.lab.path("state");
    await save(faults, qmp, file);
    await qmp.logged("MIGRATION completed");
    await forEach(possible.at("new", "kill"), async (fault) => {
      const next = await load(faults, file, fault);
      assert.deepEqual(await next.ended(), { signal: 9 });
      await memory.assertStands();
    });
    await qmp.execute("quit");
    const next = await load(faults, file);
    const monitor = await faults.lab.monitor(next);
    using ram = await memoryOf(faults, next.child.pid);
    await assertRunsIn(monitor, ram);
    await faults.onlyLeft(next.child.pid);
  },
);

/** The memory of a VMM that has been started just now. */
async function memoryOf(faults: FaultLab, pid: number): Promise<GuestMemory> {
  await faults.happened({ role: "new", step: "machine-built" });
  return GuestMemory.of(pid);
}
