/** Modes, capabilities and the process around a live update: what may be set when, and what stays. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import {
  beginTransfer,
  execUpdate,
  kvmTest,
  Laboratory,
  program,
  type Qmp,
  setExec,
  startSuccessor,
  transferUpdate,
  until,
} from "./program.ts";
import { type Json, Qmp as QmpClient, TestFolder } from "./session.ts";

const modes = (mode: string) => ({ mode });

kvmTest(
  "mode cpr-exec in the middle of a transfer harms neither its cancelling nor it",
  async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("old");
    const first = await startSuccessor(lab, "first", { incoming: "defer" });
    await beginTransfer(qmp, first.channels);
    await qmp.execute("migrate-set-parameters", modes("cpr-exec"));
    await qmp.execute("migrate_cancel");
    await qmp.logged("MIGRATION cancelled");
    const statuses = qmp.log.filter((entry) => entry.startsWith("MIGRATION "));
    assert.deepEqual(statuses, ["setup", "cancelling", "cancelled"].map((s) => `MIGRATION ${s}`));
    assert.deepEqual(await qmp.migration(), { status: "cancelled" });
    await qmp.assertGuestRuns();
    first.vmm.kill();

    const second = await startSuccessor(lab, "second", { incoming: "defer" });
    await beginTransfer(qmp, second.channels);
    await qmp.execute("migrate-set-parameters", modes("cpr-exec"));
    const next = await lab.monitor(second.vmm);
    await next.execute("migrate-incoming", { channels: second.channels.slice(0, 1) });
    await qmp.logged("MIGRATION completed");
    assert.equal(await qmp.runState(), "postmigrate");
    assert.equal(vmm.child.poll(), undefined);
    await next.assertGuestRuns();
  },
);

kvmTest("capabilities cannot be changed during a migration, parameters can", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const { channels } = await startSuccessor(lab, "new", { incoming: "defer" });
  await beginTransfer(qmp, channels);
  const inProgress = "There's a migration process in progress";
  const capabilities = [{ capability: "x-ignore-shared", state: true }];
  assert.equal(await qmp.refusal("migrate-set-capabilities", { capabilities }), inProgress);
  assert.equal(await qmp.refusal("migrate", { channels }), inProgress);
  await qmp.execute("migrate-set-parameters", { "downtime-limit": 7 });
  await qmp.execute("migrate_cancel");
  // Nothing is under way any more: cancelling again does nothing.
  await qmp.execute("migrate_cancel");
  assert.deepEqual(await qmp.migration(), { status: "cancelled" });
  await qmp.assertGuestRuns();
});

kvmTest(
  "cpr-transfer leaves parameters and capabilities at their defaults in the successor",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await lab.run("old");
    await qmp.setCapability("return-path");
    await qmp.setCapability("validate-uuid");
    await qmp.execute("migrate-set-parameters", { "downtime-limit": 7 });
    const next = await transferUpdate(lab, "new", qmp);
    await next.qmp.reaches("running");
    const parameters = await next.qmp.execute<Json>("query-migrate-parameters");
    assert.deepEqual([parameters.mode, parameters["downtime-limit"]], ["normal", 300]);
    const capabilities = await next.qmp.execute<{ state: boolean }[]>("query-migrate-capabilities");
    assert.deepEqual(capabilities.filter(({ state }) => state), []);
  },
);

for (const [command, after] of [["cont", "running"], ["stop", "paused"]] as const) {
  kvmTest(`\`${command}\` before the state has come decides how the guest arrives`, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("vmm");
    const options = command === "cont" ? ["-S"] : [];
    const next = await execUpdate(lab, vmm, qmp, { incoming: "defer", more: options });
    await next.execute(command);
    assert.equal(await next.runState(), "inmigrate");
    await next.execute("migrate-incoming", { uri: `file:${lab.path("state")}` });
    await next.reaches(after);
    if (after === "running") await next.assertGuestRuns();
    else await next.assertGuestStands();
  });
}

kvmTest("a VM in `postmigrate` after cpr-reboot can go on, and be saved again", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  const uri = `file:${lab.path("state")}`;
  await qmp.execute("migrate-set-parameters", modes("cpr-reboot"));
  for (let time = 0; time < 2; time++) {
    qmp.log.length = 0;
    await qmp.execute("migrate", { uri });
    await qmp.logged("MIGRATION completed");
    assert.equal(
      await qmp.refusal("migrate", { uri }),
      "Can't migrate the vm that was paused due to previous migration",
    );
    assert.equal(
      await qmp.refusal("system_wakeup"),
      "Unable to wake up: guest is not in suspended state",
    );
    await qmp.execute("cont");
    await qmp.logged("RESUME");
    await qmp.assertGuestRuns();
  }
});

kvmTest("-sandbox on,spawn=deny forbids what starts a program, and nothing else", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old", { options: ["-sandbox", "on,spawn=deny"] });
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, [...program, ...vmm.options, "-incoming", uri]);
  const denied = (what: string) =>
    `Cannot use ${what} under -sandbox on,spawn=deny: start without spawn=deny`;
  assert.equal(await qmp.refusal("migrate", { uri }), denied("cpr-exec"));
  await qmp.execute("migrate-set-parameters", modes("cpr-reboot"));
  assert.equal(await qmp.refusal("migrate", { uri: "exec:cat" }), denied("exec:"));
  assert.ok(!qmp.log.includes("STOP"));
  assert.deepEqual(await qmp.migration(), {});
  await qmp.execute("migrate", { uri });
  await qmp.logged("MIGRATION completed");
  await qmp.execute("cont");
  await (await transferUpdate(lab, "new", qmp)).qmp.assertGuestRuns();
});

kvmTest("cpr-exec works under -sandbox on when spawn is not denied", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm", { options: ["-sandbox", "on"] });
  await (await execUpdate(lab, vmm, qmp)).assertGuestRuns();
});

/** Sets the command by one line of the human monitor, and migrates by another. */
async function execByLine(qmp: Qmp, command: string, uri: string): Promise<void> {
  assert.equal(await qmp.hmp("migrate_set_parameter mode cpr-exec"), "");
  assert.equal(await qmp.hmp(`migrate_set_parameter cpr-exec-command ${command}`), "");
  assert.equal(await qmp.hmp(`migrate -d ${uri}`), "");
  await qmp.closed();
}

/** Quotes a word for a shell, and for the monitor. */
const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

kvmTest("cpr-exec-command may be a wrapper that execs the VMM, quoted as for a shell", async () => {
  await using lab = await Laboratory.open();
  const uri = `file:${lab.path("state")}`;
  const { vmm, qmp } = await lab.run("vmm", { options: ["-name", `it's a "name" with $HOME`] });
  const words = [...program, ...vmm.options, "-incoming", uri];
  // A program that PATH finds, which execs its arguments.
  await execByLine(qmp, `env DENOVO_TEST=1 ${words.map(quote).join(" ")}`, uri);
  const second = await lab.monitorAtOnce(vmm);
  await second.reaches("running");
  assert.deepEqual(await second.execute("query-name"), { name: `it's a "name" with $HOME` });
  // A shell with a script of its own: its quotes are within the monitor's.
  await execByLine(second, `sh -c ${quote(`exec ${words.map(quote).join(" ")}`)}`, uri);
  const third = await lab.monitorAtOnce(vmm);
  await third.reaches("running");
  await third.assertGuestRuns();
  assert.deepEqual(await third.execute("query-name"), { name: `it's a "name" with $HOME` });
  assert.equal(
    await third.hmp("migrate_set_parameter cpr-exec-command a 'b"),
    "Error: Text ended before matching quote was found for '. (The text was 'a 'b')\r\n",
  );
});

kvmTest("a daemon keeps its process id and its pidfile through cpr-exec", async () => {
  using folder = new TestFolder();
  const [pidfile, qmpPath, state] = ["pid", "qmp", "state"].map((name) => folder.file(name));
  const options = [
    ...["-kernel", folder.guest("demo"), "-m", "64", "-serial", "null", "-daemonize"],
    ...["-pidfile", pidfile, "-qmp", `unix:${qmpPath},server=on,wait=off`, "-name", "daemon"],
    ...["-uuid", "12345678-9abc-def0-1234-56789abcdef0"],
  ];
  const [deno, ...args] = program;
  const { code } = await new Deno.Command(deno, { args: [...args, ...options] }).output();
  assert.equal(code, 0);
  const pid = Number(Deno.readTextFileSync(pidfile));
  try {
    for (let update = 0; update < 2; update++) {
      using qmp = await QmpClient.to(qmpPath);
      await qmp.execute("migrate-set-parameters", {
        mode: "cpr-exec",
        "cpr-exec-command": [...program, ...options, "-incoming", `file:${state}`],
      });
      await qmp.execute("migrate", { uri: `file:${state}` });
      await qmp.connection.end();
      assert.equal(Deno.readTextFileSync(pidfile), `${pid}\n`);
    }
    using qmp = await QmpClient.to(qmpPath);
    assert.ok(existsSync(`/proc/${pid}`));
    assert.deepEqual(await qmp.execute("query-name"), { name: "daemon" });
    assert.deepEqual(await qmp.execute("query-uuid"), {
      UUID: "12345678-9abc-def0-1234-56789abcdef0",
    });
    assert.equal((await qmp.execute("query-migrate")).status, "completed");
    await qmp.execute("quit");
    await qmp.connection.end();
    await until(() => !existsSync(pidfile), () => `the end of ${pidfile}`);
  } finally {
    if (existsSync(`/proc/${pid}`)) Deno.kill(pid, "SIGKILL");
  }
});

kvmTest("`migrate-incoming` ends the VM when the state is bad, unless told otherwise", async () => {
  await using lab = await Laboratory.open();
  const uri = `file:${lab.path("bad")}`;
  Deno.writeTextFileSync(lab.path("bad"), "this is no saved state");
  const vmm = lab.start("new", { options: ["-incoming", "defer"] });
  const qmp = await (await lab.monitor(vmm)).withEvents();
  for (let time = 0; time < 2; time++) {
    qmp.log.length = 0;
    await qmp.execute("migrate-incoming", { uri, "exit-on-error": false });
    await qmp.logged("MIGRATION failed");
    assert.equal(await qmp.runState(), "inmigrate");
    assert.match((await qmp.migration())["error-desc"]!, /Not a migration stream/);
  }
  await qmp.execute("migrate-incoming", { uri });
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.match(vmm.output, /^denovo: load of migration failed: Not a migration stream/m);
});
