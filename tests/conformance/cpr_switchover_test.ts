/** `pause-before-switchover` and `migrate_cancel`, in every mode. */
import assert from "node:assert/strict";
import {
  execUpdate,
  kvmTest,
  Laboratory,
  program,
  type Qmp,
  setExec,
  startSuccessor,
  transferUpdate,
  type Vmm,
} from "./program.ts";

const modes = ["cpr-reboot", "cpr-exec", "cpr-transfer"] as const;
type Mode = typeof modes[number];

/** Chooses a mode; gives `migrate`'s arguments and, in cpr-transfer, the successor. */
async function choose(
  lab: Laboratory,
  vmm: Vmm,
  qmp: Qmp,
  mode: Mode,
): Promise<{ args: object; successor?: Vmm }> {
  const uri = `file:${lab.path("state")}`;
  await qmp.execute("migrate-set-parameters", { mode });
  if (mode === "cpr-reboot") return { args: { uri } };
  if (mode === "cpr-exec") {
    await setExec(qmp, [...program, ...vmm.options, "-incoming", uri]);
    return { args: { uri } };
  }
  const { vmm: successor, channels } = await startSuccessor(lab, "new");
  return { args: { channels }, successor };
}

/** Begins an update that waits before its switchover. */
async function wait(lab: Laboratory, vmm: Vmm, qmp: Qmp, mode: Mode) {
  await qmp.setCapability("pause-before-switchover");
  const { args, successor } = await choose(lab, vmm, qmp, mode);
  qmp.log.length = 0;
  await qmp.execute("migrate", args);
  await qmp.logged("MIGRATION pre-switchover");
  return successor;
}

/** The statuses among the events. */
const statuses = (qmp: Qmp) =>
  qmp.log.filter((entry) => entry.startsWith("MIGRATION ")).map((entry) => entry.slice(10));

for (const mode of modes) {
  kvmTest(`${mode} waits in pre-switchover until \`migrate-continue\``, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("old");
    const successor = await wait(lab, vmm, qmp, mode);
    assert.deepEqual(statuses(qmp), ["setup", "active", "pre-switchover"]);
    assert.equal(
      await qmp.refusal("migrate-continue", { state: "device" }),
      "Migration not in expected state: pre-switchover",
    );
    assert.equal(
      await qmp.refusal("migrate", { uri: "file:x" }),
      "There's a migration process in progress",
    );
    assert.equal((await qmp.migration()).status, "pre-switchover");
    await qmp.execute("migrate-continue", { state: "pre-switchover" });
    await qmp.logged("MIGRATION completed");
    assert.deepEqual(statuses(qmp), [
      ...["setup", "active", "pre-switchover", "device", "completed"],
    ]);
    if (mode === "cpr-reboot") return assert.equal(await qmp.runState(), "postmigrate");
    if (mode === "cpr-exec") await qmp.closed();
    const next = mode === "cpr-exec" ? await lab.monitorAtOnce(vmm) : await lab.monitor(successor!);
    await next.reaches("running");
    await next.assertGuestRuns();
  });

  kvmTest(`${mode} is cancelled in pre-switchover, and works when it is tried again`, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("old");
    const successor = await wait(lab, vmm, qmp, mode);
    await qmp.hmp("migrate_cancel");
    await qmp.logged("MIGRATION cancelled");
    await qmp.reaches("running");
    assert.deepEqual(statuses(qmp), [
      ...["setup", "active", "pre-switchover", "cancelling", "cancelled"],
    ]);
    assert.deepEqual(await qmp.migration(), { status: "cancelled" });
    const stops = qmp.log.filter((entry) => entry === "STOP").length;
    assert.equal(qmp.log.filter((entry) => entry === "RESUME").length, stops);
    await qmp.assertGuestRuns();
    successor?.kill();
    assert.equal(await qmp.hmp("migrate_set_capability pause-before-switchover off"), "");
    if (mode === "cpr-exec") await (await execUpdate(lab, vmm, qmp)).assertGuestRuns();
    else if (mode === "cpr-transfer") {
      await (await transferUpdate(lab, "next", qmp)).qmp.assertGuestRuns();
    } else {
      qmp.log.length = 0;
      await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
      await qmp.logged("MIGRATION completed");
    }
  });
}

kvmTest("`migrate_continue` of the human monitor lets a transfer go on", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old");
  const successor = await wait(lab, vmm, qmp, "cpr-transfer");
  // As under QEMU, the guest is stopped by then.
  assert.deepEqual(qmp.log.slice(0, 3), ["MIGRATION setup", "reply", "STOP"]);
  await qmp.assertGuestStands();
  assert.equal(await qmp.hmp("migrate_continue pre-switchover"), "");
  await qmp.logged("MIGRATION completed");
  await (await lab.monitor(successor!)).assertGuestRuns();
});
