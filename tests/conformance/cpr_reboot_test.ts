/** cpr-reboot as a QEMU user knows it: the guest is saved into a file, and goes on from there. */
import assert from "node:assert/strict";
import type { ProgramName } from "../guests/programs.ts";
import { execLog, kvmTest, Laboratory, type Qmp, type Vmm, type VmmOptions } from "./program.ts";

/** A serial file that a second VMM goes on with instead of emptying it. */
const appending = (lab: Laboratory) => ({
  options: ["-chardev", `file,id=console,path=${lab.path("serial")},append=on`],
  serial: "chardev:console",
});

/** Starts a guest, saves it into the file `state`, and ends its VMM. */
async function save(
  lab: Laboratory,
  special: VmmOptions,
  prepare: (qmp: Qmp) => Promise<void> = async () => {},
): Promise<void> {
  const { vmm, qmp } = await lab.run("old", special);
  await qmp.assertGuestRuns();
  await lab.printed("tick 1");
  await prepare(qmp);
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  qmp.log.length = 0;
  await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
  await qmp.logged("MIGRATION completed");
  assert.deepEqual(qmp.log, execLog);
  assert.equal(await qmp.runState(), "postmigrate");
  await qmp.execute("quit");
  assert.deepEqual(await vmm.ended(), { code: 0 });
}

/** Fails unless the guest goes on as if nothing had happened. */
async function assertGoesOn(lab: Laboratory, qmp: Qmp): Promise<void> {
  await qmp.assertGuestRuns();
  await lab.printed("tick 2");
  assert.equal(lab.serialText.split("tick 1").length, 2);
  await qmp.execute("stop");
  await qmp.assertGuestStands();
}

for (const guest of ["demo", "counter_cpl3"] satisfies ProgramName[]) {
  kvmTest(`cpr-reboot brings ${guest} back from a file`, async () => {
    await using lab = await Laboratory.open();
    const special = { guest, ...appending(lab) };
    await save(lab, special);
    const incoming = ["-incoming", `file:${lab.path("state")}`];
    const vmm = lab.start("new", { ...special, options: [...special.options, ...incoming] });
    const qmp = await lab.monitor(vmm);
    await qmp.reaches("running");
    await assertGoesOn(lab, qmp);
  });
}

kvmTest("cpr-reboot waits for `migrate-incoming` when the new VMM says defer", async () => {
  await using lab = await Laboratory.open();
  const special = appending(lab);
  await save(lab, special);
  const vmm = lab.start("new", { ...special, options: [...special.options, "-incoming", "defer"] });
  const qmp = await (await lab.monitor(vmm)).withEvents();
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  qmp.log.length = 0;
  await qmp.execute("migrate-incoming", { uri: `file:${lab.path("state")}` });
  await qmp.logged("MIGRATION completed");
  assert.deepEqual(
    qmp.log.filter((entry) => entry !== "reply"),
    ["MIGRATION setup", "MIGRATION active", "RESUME", "MIGRATION completed"],
  );
  await assertGoesOn(lab, qmp);
});

kvmTest("cpr-reboot goes through a command when the URI is exec", async () => {
  await using lab = await Laboratory.open();
  const special = appending(lab);
  const { vmm, qmp } = await lab.run("old", special);
  await lab.printed("tick 1");
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate", { uri: `exec:gzip > ${lab.path("state")}` });
  await qmp.logged("MIGRATION completed");
  await qmp.execute("quit");
  await vmm.ended();
  const incoming = ["-incoming", `exec:gunzip < ${lab.path("state")}`];
  const next = lab.start("new", { ...special, options: [...special.options, ...incoming] });
  const monitor = await lab.monitor(next);
  await monitor.reaches("running");
  await assertGoesOn(lab, monitor);
});

/** RAM in a file, which outlives a VMM. */
const fileRam = (lab: Laboratory) => {
  const { options, serial } = appending(lab);
  const object = `memory-backend-file,id=ram0,size=64M,share=on,mem-path=${lab.path("ram")}`;
  return { options: [...options, "-object", object, "-machine", "memory-backend=ram0"], serial };
};

const IGNORE_SHARED = ["-global", "migration.x-ignore-shared=on"];

/** Starts a VMM that loads the file `state`. */
function load(lab: Laboratory, special: VmmOptions, more: readonly string[] = []): Vmm {
  const incoming = [...more, "-incoming", `file:${lab.path("state")}`];
  return lab.start("new", { ...special, options: [...special.options!, ...incoming] });
}

kvmTest("cpr-reboot leaves RAM in its file when x-ignore-shared is on", async () => {
  await using lab = await Laboratory.open();
  const special = fileRam(lab);
  await save(lab, special, (qmp) => qmp.setCapability("x-ignore-shared"));
  assert.ok(Deno.statSync(lab.path("state")).size < 100_000);
  const qmp = await lab.monitor(load(lab, special, IGNORE_SHARED));
  await qmp.reaches("running");
  await assertGoesOn(lab, qmp);
});

kvmTest("cpr-reboot copies RAM that is in a file too when x-ignore-shared is off", async () => {
  await using lab = await Laboratory.open();
  const special = fileRam(lab);
  await save(lab, special);
  Deno.writeFileSync(lab.path("ram"), new Uint8Array(64 << 20).fill(0xa5));
  const qmp = await lab.monitor(load(lab, special));
  await qmp.reaches("running");
  await assertGoesOn(lab, qmp);
});

kvmTest("a state without RAM is refused when x-ignore-shared is off", async () => {
  await using lab = await Laboratory.open();
  const special = fileRam(lab);
  await save(lab, special, (qmp) => qmp.setCapability("x-ignore-shared"));
  const vmm = load(lab, special);
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.match(vmm.output, /Capability x-ignore-shared is off, but received capability is on/);
});

kvmTest("a state with RAM is refused when x-ignore-shared is on", async () => {
  await using lab = await Laboratory.open();
  const special = fileRam(lab);
  await save(lab, special);
  const vmm = load(lab, special, IGNORE_SHARED);
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.match(vmm.output, /Capability x-ignore-shared is on, but received capability is off/);
});
