/** cpr-exec as a QEMU user knows it: the program replaces itself under its guest. */
import assert from "node:assert/strict";
import type { ProgramName } from "../guests/programs.ts";
import { execLog, execUpdate, kvmTest, Laboratory, program, setExec } from "./program.ts";

for (const guest of ["demo", "counter_cpl0", "counter_cpl3"] satisfies ProgramName[]) {
  kvmTest(`cpr-exec replaces the VMM of ${guest} three times`, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("vmm", { guest });
    let monitor = qmp;
    for (let update = 0; update < 3; update++) {
      await monitor.withEvents();
      await monitor.assertGuestRuns();
      const next = await execUpdate(lab, vmm, monitor);
      assert.deepEqual(monitor.log, execLog);
      monitor = next;
      await monitor.reaches("running");
      assert.equal((await monitor.migration()).status, "completed");
    }
    await monitor.assertGuestRuns();
    await lab.printed("tick 1");
    await monitor.execute("stop");
    await monitor.assertGuestStands();
    await monitor.execute("quit");
    assert.deepEqual(await vmm.ended(), { code: 0 });
    assert.equal(vmm.output, "");
  });
}

kvmTest("cpr-exec keeps all vCPUs counting when there are two", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm", { guest: "smp", options: ["-smp", "2"] });
  await lab.printed("cpus 2");
  const next = await execUpdate(lab, vmm, qmp);
  await next.reaches("running");
  for (const record of [0x200100, 0x200140]) await next.grown(record);
  assert.equal(await next.word(0x200018), 0);
});

kvmTest("cpr-exec leaves parameters, capabilities and -S as the successor has them", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const next = await execUpdate(lab, vmm, qmp, { more: ["-S"] });
  await next.reaches("paused");
  await next.assertGuestStands();
  const parameters = await next.execute<Record<string, unknown>>("query-migrate-parameters");
  assert.equal(parameters.mode, "normal");
  assert.deepEqual(parameters["cpr-exec-command"], []);
  type Capability = { capability: string; state: boolean };
  const capabilities = await next.execute<Capability[]>("query-migrate-capabilities");
  assert.deepEqual(capabilities.filter(({ state }) => state), []);
  await next.execute("cont");
  await next.assertGuestRuns();
});

kvmTest("cpr-exec of a stopped guest leaves it stopped", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  await qmp.assertGuestRuns();
  await qmp.execute("stop");
  const next = await execUpdate(lab, vmm, qmp);
  await next.reaches("paused");
  await next.assertGuestStands();
  await next.execute("cont");
  await next.assertGuestRuns();
});

kvmTest("cpr-exec waits for `migrate-incoming` when the successor says defer", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const next = await execUpdate(lab, vmm, qmp, { incoming: "defer" });
  await next.withEvents();
  assert.equal(await next.runState(), "inmigrate");
  assert.deepEqual(await next.migration(), {});
  next.log.length = 0;
  assert.equal(
    await next.refusal("migrate-incoming", { uri: "file:/nonexistent" }),
    "Could not open '/nonexistent': No such file or directory",
  );
  await next.execute("migrate-incoming", { uri: `file:${lab.path("state")}` });
  await next.logged("MIGRATION completed");
  assert.deepEqual(
    next.log.filter((entry) => entry !== "reply" && entry !== "error"),
    ["MIGRATION setup", "MIGRATION active", "RESUME", "MIGRATION completed"],
  );
  assert.equal(await next.runState(), "running");
  await next.assertGuestRuns();
});

kvmTest("cpr-exec lets the guest go on when the command cannot be executed", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  await setExec(qmp, ["/nonexistent/vmm", "-incoming", "defer"]);
  qmp.log.length = 0;
  await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
  await qmp.logged("MIGRATION failed");
  await qmp.logged("RESUME");
  assert.deepEqual(qmp.log, [...execLog, "MIGRATION failed", "RESUME"]);
  assert.deepEqual(await qmp.migration(), {
    status: "failed",
    "error-desc": "execvp /nonexistent/vmm failed: No such file or directory",
  });
  await qmp.assertGuestRuns();
  await (await execUpdate(lab, vmm, qmp)).assertGuestRuns();
});

kvmTest("cpr-exec refuses before it stops the guest when something is wrong", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, []);
  assert.equal(
    await qmp.refusal("migrate", { uri }),
    "cpr-exec mode requires setting cpr-exec-command",
  );
  assert.deepEqual(await qmp.migration(), {});
  await setExec(qmp, [...program, ...vmm.options, "-incoming", uri]);
  assert.equal(
    await qmp.refusal("migrate", { uri: "file:/nonexistent/state" }),
    "Could not create '/nonexistent/state': No such file or directory",
  );
  assert.equal((await qmp.migration()).status, "failed");
  assert.ok(!qmp.log.includes("STOP"));
  for (
    const [capability, text] of [
      ["postcopy-ram", "Cannot use postcopy with CPR"],
      ["background-snapshot", "Cannot use background snapshot with CPR"],
    ]
  ) {
    await qmp.setCapability(capability);
    assert.equal(await qmp.refusal("migrate", { uri }), text);
    await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability, state: false }] });
  }
  await qmp.assertGuestRuns();
  await (await execUpdate(lab, vmm, qmp)).assertGuestRuns();
});

kvmTest("cpr-exec and cpr-transfer refuse RAM that no successor can map", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm", {
    options: [
      ...["-object", "memory-backend-ram,id=ram0,size=64M"],
      ...["-machine", "microvm,memory-backend=ram0"],
    ],
  });
  const reason = "Memory region ram0 is not compatible with CPR. share=on is required for" +
    " memory-backend objects, and aux-ram-share=on is required.";
  assert.deepEqual((await qmp.migration())["blocked-reasons"], [reason]);
  await setExec(qmp, program);
  assert.equal(await qmp.refusal("migrate", { uri: `file:${lab.path("state")}` }), reason);
  await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  const channels = ["main", "cpr"].map((type) => ({
    "channel-type": type,
    addr: { transport: "socket", type: "unix", path: lab.path(type) },
  }));
  assert.equal(await qmp.refusal("migrate", { channels }), reason);
  await qmp.assertGuestRuns();
});

for (
  const object of [
    "memory-backend-shm,id=ram0,size=64M",
    "memory-backend-memfd,id=ram0,size=64M,seal=off",
    "memory-backend-ram,id=ram0,size=64M,share=on",
  ]
) {
  kvmTest(`cpr-exec keeps RAM in place when it is ${object}`, async () => {
    await using lab = await Laboratory.open();
    const options = ["-object", object, "-machine", "microvm,memory-backend=ram0"];
    const { vmm, qmp } = await lab.run("vmm", { options });
    await qmp.assertGuestRuns();
    const next = await execUpdate(lab, vmm, qmp);
    await next.reaches("running");
    await next.assertGuestRuns();
  });
}
