/** A process that dies, stalls or fails at any step of a cpr-transfer. */
import assert from "node:assert/strict";
import { kvmTest } from "../conformance/program.ts";
import {
  assertEndsWithError,
  assertFailed,
  assertGivenUp,
  assertRunsIn,
  FaultLab,
  SIGCONT,
  Survivor,
} from "./faults.ts";
import { before, Faults, forEach, start, transfer } from "./modes.ts";

kvmTest("cpr-transfer: whatever happens before the guest is taken leaves it", async () => {
  const possible = await Faults.of("transfer");
  await using faults = await FaultLab.open();
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  const { pid } = vmm.child;
  const survivor = new Survivor();
  const afterwards = async () => {
    await assertFailed(qmp);
    await assertRunsIn(qmp, memory);
    await faults.onlyLeft(pid);
    await survivor.assertClean(pid);
  };
  await forEach(
    possible.at("new", "kill", (step) => before(step, "taken")),
    async (fault) => {
      const { vmm } = await transfer(faults, qmp, fault);
      assert.deepEqual(await vmm.ended(), { signal: 9 });
      await afterwards();
    },
  );
  await forEach(
    possible.at("old", "throw", (step) => before(step, "sent")),
    async (fault) => {
      const { vmm } = await transfer(faults, qmp, fault);
      // Whom the old VMM has not connected to waits on, as under QEMU.
      if (before(fault.step, "stop")) vmm.kill();
      else await assertEndsWithError(vmm);
      await afterwards();
    },
  );
  // Here nobody runs the guest: it is taken back, and the successor must not run it as well.
  await forEach(
    possible.at("new", "stop", (step) => !before(step, "received") && before(step, "taken")),
    async (fault) => {
      const { vmm } = await transfer(faults, qmp, fault);
      await assertFailed(qmp);
      await assertRunsIn(qmp, memory);
      vmm.child.kill(SIGCONT);
      await assertEndsWithError(vmm);
      await afterwards();
    },
  );
  const next = await transfer(faults, qmp);
  await qmp.logged("MIGRATION completed");
  await assertRunsIn(await faults.lab.monitor(next.vmm), memory);
  await assertGivenUp(qmp, memory);
});

kvmTest("cpr-transfer: the guest ends with the process that owned it, and only then", async () => {
  const possible = await Faults.of("transfer");
  await using faults = await FaultLab.open();
  await forEach(
    possible.at("new", "kill", (step) => !before(step, "taken")),
    async (fault) => {
      const { vmm, qmp, memory } = await start(faults);
      using _memory = memory;
      const next = await transfer(faults, qmp, fault);
      assert.deepEqual(await next.vmm.ended(), { signal: 9 });
      // It ran the guest, or may have.
      await assertGivenUp(qmp, memory);
      await memory.assertStands();
      vmm.kill();
      await faults.onlyLeft();
    },
  );
  await forEach(possible.at("old", "kill"), async (fault) => {
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const next = await transfer(faults, qmp, fault);
    assert.deepEqual(await vmm.ended(), { signal: 9 });
    if (!before(fault.step, "sent")) {
      // The state was out: the new VMM has the guest, whether or not it could say so.
      await assertRunsIn(await faults.lab.monitor(next.vmm), memory);
      await faults.onlyLeft(next.vmm.child.pid);
    } else if (!before(fault.step, "stop")) {
      await assertEndsWithError(next.vmm);
      await memory.assertStands();
      await faults.onlyLeft();
    } else {
      // Nobody has connected to its main channel: it waits, as under QEMU.
      assert.equal(next.vmm.child.poll(), undefined);
      await memory.assertStands();
    }
    next.vmm.kill();
  });
});

kvmTest("cpr-transfer: an old VMM that stalls delays the guest, and does not run it", async () => {
  const possible = await Faults.of("transfer");
  await using faults = await FaultLab.open();
  await forEach(
    possible.at("old", "stop", (step) => !before(step, "handed-over")),
    async (fault) => {
      const { vmm, qmp, memory } = await start(faults);
      using _memory = memory;
      const successor = await transfer(faults, qmp, fault);
      if (fault.step === "handed-over") {
        await memory.assertStands();
        vmm.child.kill(SIGCONT);
      }
      const next = await faults.lab.monitor(successor.vmm);
      await assertRunsIn(next, memory);
      vmm.child.kill(SIGCONT);
      await qmp.logged("MIGRATION completed");
      await assertGivenUp(qmp, memory);
      await assertRunsIn(next, memory);
      vmm.kill();
      successor.vmm.kill();
    },
  );
});
