/** Of some things there may be one: what a live VMM has is not taken from it by another. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { O, openFile } from "../../ffi/fd.ts";
import { lockFile } from "../../ffi/file_lock.ts";
import {
  beginTransfer,
  execUpdate,
  kvmTest,
  Laboratory,
  startSuccessor,
  transferUpdate,
  until,
  type Vmm,
} from "./program.ts";

const BUSY = "cannot create PID file: Cannot lock pid file: Resource temporarily unavailable";

function pidIn(path: string): number {
  return Number(Deno.readTextFileSync(path));
}

/** A VMM with the pidfile that another has is refused, and leaves it alone. */
async function assertRefused(lab: Laboratory, pidfile: string, owner: number): Promise<void> {
  const second = lab.start("second", { options: ["-pidfile", pidfile] });
  assert.deepEqual(await second.ended(), { code: 1 });
  assert.equal(second.output, `denovo: ${BUSY}\n`);
  assert.equal(pidIn(pidfile), owner);
}

async function quits(vmm: Vmm, qmp: { execute(command: string): Promise<unknown> }) {
  await qmp.execute("quit");
  assert.deepEqual(await vmm.ended(), { code: 0 });
}

kvmTest("a pidfile is one VMM's for as long as it lives", async () => {
  await using lab = await Laboratory.open();
  const pidfile = lab.path("pid");
  // What a VMM left that was killed is no obstacle.
  Deno.writeTextFileSync(pidfile, "1\n");
  const options = ["-pidfile", pidfile];
  const first = await lab.run("first", { options });
  await until(() => pidIn(pidfile) === first.vmm.child.pid, () => "the pidfile");
  await assertRefused(lab, pidfile, first.vmm.child.pid);
  await quits(first.vmm, first.qmp);
  assert.equal(existsSync(pidfile), false);
  const next = await lab.run("next", { options });
  next.vmm.kill();
  const last = await lab.run("last", { options });
  await until(() => pidIn(pidfile) === last.vmm.child.pid, () => "the pidfile");
  await quits(last.vmm, last.qmp);
  assert.equal(existsSync(pidfile), false);
});

kvmTest("a VMM that does not come up leaves no pidfile behind", async () => {
  await using lab = await Laboratory.open();
  const pidfile = lab.path("pid");
  const vmm = lab.startWith("vmm", ["-kernel", "/nonexistent", "-pidfile", pidfile]);
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.equal(existsSync(pidfile), false);
});

kvmTest("a successor takes the pidfile's lock over with the guest, and keeps it", async () => {
  await using lab = await Laboratory.open();
  const pidfile = lab.path("pid");
  const options = ["-pidfile", pidfile];
  const old = await lab.run("old", { options });
  const next = await transferUpdate(lab, "next", old.qmp, { options });
  await until(() => pidIn(pidfile) === next.vmm.child.pid, () => "the successor's pidfile");
  await quits(old.vmm, old.qmp);
  await assertRefused(lab, pidfile, next.vmm.child.pid);
  await quits(next.vmm, next.qmp);
  assert.equal(existsSync(pidfile), false);
});

kvmTest("a successor that fails leaves the pidfile as it was", async () => {
  await using lab = await Laboratory.open();
  const pidfile = lab.path("pid");
  const options = ["-pidfile", pidfile];
  const old = await lab.run("old", { options });
  const { vmm, channels } = await startSuccessor(lab, "next", { options, memory: 128 });
  await beginTransfer(old.qmp, channels);
  await old.qmp.logged("MIGRATION failed");
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.equal(pidIn(pidfile), old.vmm.child.pid);
  await assertRefused(lab, pidfile, old.vmm.child.pid);
});

for (const relay of ["on", "off"]) {
  kvmTest(`cpr-exec keeps the pidfile's lock, with x-cpr-exec-relay ${relay}`, async () => {
    await using lab = await Laboratory.open();
    const pidfile = lab.path("pid");
    const { vmm, qmp } = await lab.run("vmm", { options: ["-pidfile", pidfile] });
    await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": relay });
    const next = await execUpdate(lab, vmm, qmp);
    await next.assertGuestRuns();
    await assertRefused(lab, pidfile, vmm.child.pid);
    await quits(vmm, next);
    assert.equal(existsSync(pidfile), false);
  });
}

kvmTest("an old VMM whose guest is in a file leaves its pidfile to the next", async () => {
  await using lab = await Laboratory.open();
  const pidfile = lab.path("pid");
  const options = ["-pidfile", pidfile];
  const { vmm: old, qmp } = await lab.run("old", { options });
  const uri = `file:${lab.path("state")}`;
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate", { uri });
  await qmp.logged("MIGRATION completed");
  const next = await lab.run("next", { options: [...options, "-incoming", uri] });
  await until(() => pidIn(pidfile) === next.vmm.child.pid, () => "the successor's pidfile");
  assert.equal(
    await qmp.refusal("cont"),
    "Another VMM has the pidfile of this one, and perhaps its guest: end it first",
  );
  next.vmm.kill();
  await qmp.execute("cont");
  await qmp.assertGuestRuns();
  await quits(old, qmp);
});

kvmTest("a socket on which a VMM listens is not taken from it by another", async () => {
  await using lab = await Laboratory.open();
  const first = await lab.run("first");
  const path = first.vmm.qmpPath;
  const second = lab.start("second", { qmp: "first" });
  assert.deepEqual(await second.ended(), { code: 1 });
  assert.match(
    second.output,
    new RegExp(`^denovo: .*Failed to bind socket to ${path}: Address already in use$`, "m"),
  );
  const serial = lab.start("third", { serial: `unix:${path},server=on,wait=off` });
  assert.deepEqual(await serial.ended(), { code: 1 });
  const incoming = lab.start("fourth", { options: ["-incoming", `unix:${path}`] });
  assert.deepEqual(await incoming.ended(), { code: 1 });
  // Nobody has connected to it meanwhile: it has one client at a time.
  assert.equal(await first.qmp.runState(), "running");
  await quits(first.vmm, first.qmp);
});

kvmTest("one VMM does not take a socket from itself", async () => {
  await using lab = await Laboratory.open();
  const path = lab.path("vmm.qmp");
  const vmm = lab.start("vmm", { options: ["-monitor", `unix:${path},server=on,wait=off`] });
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.match(vmm.output, /Address already in use$/m);
  assert.equal(existsSync(path), false);
});

kvmTest("a socket's file that a killed VMM left is replaced", async () => {
  await using lab = await Laboratory.open();
  const first = await lab.run("first");
  first.vmm.kill();
  assert.equal(existsSync(first.vmm.qmpPath), true);
  const second = await lab.run("second", { qmp: "first" });
  assert.equal(await second.qmp.runState(), "running");
});

kvmTest("a state file that is being written is no other VMM's to write or to read", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  const path = lab.path("state");
  Deno.writeTextFileSync(path, "half of a state");
  {
    using file = openFile(path, O.RDWR);
    assert.equal(lockFile(file.fd, "exclusive"), true);
    const reason = "Resource temporarily unavailable";
    assert.equal(
      await qmp.refusal("migrate", { uri: `file:${path}` }),
      `Could not create '${path}': ${reason}`,
    );
    const next = lab.start("next", { options: ["-incoming", `file:${path}`] });
    assert.deepEqual(await next.ended(), { code: 1 });
    assert.match(next.output, new RegExp(`Could not open '${path}': ${reason}$`, "m"));
    assert.equal(Deno.readTextFileSync(path), "half of a state");
  }
  await qmp.assertGuestRuns();
  await qmp.execute("migrate", { uri: `file:${path}` });
  await qmp.logged("MIGRATION completed");
});
