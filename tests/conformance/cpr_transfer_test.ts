/** cpr-transfer as a QEMU user knows it: a second VMM takes the guest over from the first. */
import assert from "node:assert/strict";
import { listenUnix } from "../../ffi/socket.ts";
import type { ProgramName } from "../guests/programs.ts";
import { freePort } from "../ports.ts";
import {
  beginTransfer,
  kvmTest,
  Laboratory,
  listens,
  startSuccessor,
  transferLog,
  transferUpdate,
  unixChannel,
} from "./program.ts";

for (const guest of ["demo", "counter_cpl0", "counter_cpl3"] satisfies ProgramName[]) {
  kvmTest(`cpr-transfer moves ${guest} three times`, async () => {
    await using lab = await Laboratory.open();
    let { vmm, qmp } = await lab.run("vmm0", { guest });
    for (let update = 1; update <= 3; update++) {
      await qmp.withEvents();
      await qmp.assertGuestRuns();
      const next = await transferUpdate(lab, `vmm${update}`, qmp, { guest });
      assert.deepEqual(qmp.log, transferLog);
      assert.equal(await qmp.runState(), "postmigrate");
      assert.equal(await qmp.hmp("info status"), "VM status: paused (postmigrate)\r\n");
      const refusal = "The guest has moved to another VMM and runs there; it cannot run here again";
      assert.equal(await qmp.refusal("cont"), refusal);
      assert.equal(await qmp.refusal("system_reset"), refusal);
      assert.equal(
        await qmp.refusal("migrate", { uri: "unix:/nonexistent" }),
        "Can't migrate the vm that was paused due to previous migration",
      );
      await next.qmp.reaches("running");
      await qmp.execute("quit");
      assert.deepEqual(await vmm.ended(), { code: 0 });
      assert.equal(vmm.output, "");
      ({ vmm, qmp } = next);
    }
    assert.equal((await qmp.migration()).status, "completed");
    await qmp.assertGuestRuns();
    await lab.printed("tick 1");
    await qmp.execute("stop");
    await qmp.assertGuestStands();
  });
}

kvmTest("cpr-transfer keeps all vCPUs counting when there are two", async () => {
  await using lab = await Laboratory.open();
  const special = { guest: "smp", options: ["-smp", "2"] } as const;
  const { qmp } = await lab.run("old", special);
  await lab.printed("cpus 2");
  const next = await transferUpdate(lab, "new", qmp, special);
  for (const record of [0x200100, 0x200140]) await next.qmp.grown(record);
  assert.equal(await next.qmp.word(0x200018), 0);
});

kvmTest("cpr-transfer leaves the guest paused when the successor has -S", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const next = await transferUpdate(lab, "new", qmp, { options: ["-S"] });
  await next.qmp.reaches("paused");
  await next.qmp.assertGuestStands();
  await next.qmp.execute("cont");
  await next.qmp.assertGuestRuns();
});

kvmTest("cpr-transfer of a stopped guest leaves it stopped", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  await qmp.execute("stop");
  const next = await transferUpdate(lab, "new", qmp);
  await next.qmp.reaches("paused");
  await next.qmp.assertGuestStands();
  await next.qmp.execute("cont");
  await next.qmp.assertGuestRuns();
});

kvmTest("cpr-transfer waits for `migrate-incoming` when the successor says defer", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const { vmm, channels } = await startSuccessor(lab, "new", { incoming: "defer" });
  await beginTransfer(qmp, channels);
  const next = await (await lab.monitor(vmm)).withEvents();
  assert.equal(await next.runState(), "inmigrate");
  assert.deepEqual(await qmp.migration(), { status: "setup" });
  await qmp.assertGuestRuns();
  assert.equal(
    await qmp.refusal("migrate", { channels }),
    "There's a migration process in progress",
  );
  assert.equal(
    await next.refusal("migrate", { channels }),
    "Guest is waiting for an incoming migration",
  );
  assert.equal(
    await next.refusal("migrate-incoming", { channels }),
    "Channel list must have only one entry, for type 'main'",
  );
  const uri = `unix:${lab.path("new.main")}`;
  next.log.length = 0;
  await next.execute("migrate-incoming", { channels: channels.slice(0, 1) });
  await next.logged("MIGRATION completed");
  assert.deepEqual(
    next.log.filter((entry) => entry !== "reply"),
    ["MIGRATION setup", "MIGRATION active", "RESUME", "MIGRATION completed"],
  );
  assert.equal(
    await next.refusal("migrate-incoming", { uri }),
    "The incoming migration has already been started",
  );
  await qmp.logged("MIGRATION completed");
  await next.assertGuestRuns();
});

kvmTest("cpr-transfer comes over a listener that was opened by someone else", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const path = lab.path("new.cpr");
  const listener = listenUnix(path);
  const main = lab.path("new.main");
  const vmm = lab.start("new", {
    fds: [[listener.fd, 9]],
    options: [
      ...["-incoming", `unix:${main}`],
      ...["-incoming", "channel-type=cpr,addr.transport=socket,addr.type=fd,addr.str=9"],
    ],
  });
  listener.close();
  await beginTransfer(qmp, [unixChannel("main", main), unixChannel("cpr", path)]);
  const next = await lab.monitor(vmm);
  await next.reaches("running");
  await next.assertGuestRuns();
  await assert.rejects(Deno.connect({ transport: "unix", path }), Deno.errors.ConnectionRefused);
});

kvmTest("cpr-transfer sends its state over TCP when the main channel is inet", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const port = `${freePort()}`;
  const incoming = `tcp:127.0.0.1:${port}`;
  const { vmm, channels } = await startSuccessor(lab, "new", { incoming });
  const main = {
    "channel-type": "main",
    addr: { transport: "socket", type: "inet", host: "127.0.0.1", port },
  };
  await beginTransfer(qmp, [main, channels[1]]);
  await qmp.logged("MIGRATION completed");
  await (await lab.monitor(vmm)).assertGuestRuns();
});

kvmTest("cpr-transfer refuses bad channels in QEMU's words, and the guest runs on", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  const main = unixChannel("main", lab.path("main"));
  const cpr = unixChannel("cpr", lab.path("cpr"));
  const file = { transport: "file", filename: lab.path("state"), offset: 0 };
  const exec = { transport: "exec", args: ["/bin/cat"] };
  const inet = { transport: "socket", type: "inet", host: "127.0.0.1", port: "0" };
  const streamable = "Migration requires streamable transport (eg unix)";
  const unix = "bad cpr channel address; must be unix";
  const wrong: [object, string][] = [
    [{ uri: `unix:${lab.path("main")}` }, "missing 'cpr' migration channel"],
    [{ channels: [main] }, "missing 'cpr' migration channel"],
    [{ channels: [cpr] }, "Channel list has no main entry"],
    [{ channels: [main, main, cpr] }, "Channel list has more than one main entry"],
    [{ channels: [] }, "need either 'uri' or 'channels' argument"],
    [{}, "need either 'uri' or 'channels' argument"],
    ...[file, exec, inet].map((addr): [object, string] => [
      { channels: [{ "channel-type": "main", addr }, cpr] },
      streamable,
    ]),
    ...[file, inet].map((addr): [object, string] => [
      { channels: [main, { "channel-type": "cpr", addr }] },
      unix,
    ]),
    [
      { channels: [main, cpr] },
      `Failed to connect to '${lab.path("cpr")}': No such file or directory`,
    ],
    [{ uri: "carrier:pigeon" }, "unknown migration protocol: carrier:pigeon"],
  ];
  for (const [args, text] of wrong) assert.equal(await qmp.refusal("migrate", args), text);
  assert.ok(!qmp.log.includes("STOP"));
  await qmp.assertGuestRuns();
  await (await transferUpdate(lab, "new", qmp)).qmp.assertGuestRuns();
});

kvmTest("`migrate_cancel` ends the wait for a deferred successor, and a retry works", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const first = await startSuccessor(lab, "first", { incoming: "defer" });
  await beginTransfer(qmp, first.channels);
  await lab.monitor(first.vmm);
  await qmp.execute("migrate_cancel");
  await qmp.logged("MIGRATION cancelled");
  assert.ok(!qmp.log.includes("STOP"));
  assert.equal((await qmp.migration()).status, "cancelled");
  await qmp.assertGuestRuns();
  first.vmm.kill();
  await (await transferUpdate(lab, "second", qmp)).qmp.assertGuestRuns();
});

kvmTest("cpr-transfer waits for `migrate-continue` with pause-before-switchover", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  await qmp.setCapability("pause-before-switchover");
  const { vmm, channels } = await startSuccessor(lab, "new");
  await beginTransfer(qmp, channels);
  await qmp.logged("MIGRATION pre-switchover");
  await qmp.assertGuestStands();
  await qmp.execute("migrate-continue", { state: "pre-switchover" });
  await qmp.logged("MIGRATION completed");
  assert.deepEqual(qmp.log.filter((entry) => entry !== "reply"), [
    "MIGRATION setup",
    "STOP",
    "MIGRATION active",
    "MIGRATION_PASS",
    "MIGRATION pre-switchover",
    "MIGRATION device",
    "MIGRATION completed",
  ]);
  await (await lab.monitor(vmm)).assertGuestRuns();
});

kvmTest("the guest goes on in the old VMM when the successor has died early", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  const before = await startSuccessor(lab, "before");
  before.vmm.kill();
  assert.equal(
    await qmp.refusal("migrate", { channels: before.channels }),
    `Failed to connect to '${lab.path("before.cpr")}': Connection refused`,
  );
  assert.equal((await qmp.migration()).status, "failed");

  const reading = await startSuccessor(lab, "reading");
  reading.vmm.child.kill(19 /* SIGSTOP */);
  await beginTransfer(qmp, reading.channels);
  reading.vmm.kill();
  await qmp.logged("MIGRATION failed");

  const waiting = await startSuccessor(lab, "waiting", { incoming: "defer" });
  await beginTransfer(qmp, waiting.channels);
  await listens(waiting.vmm.qmpPath);
  waiting.vmm.kill();
  await qmp.logged("MIGRATION failed");
  assert.equal(
    (await qmp.migration())["error-desc"],
    `Failed to connect to '${lab.path("waiting.main")}': No such file or directory`,
  );
  assert.ok(!qmp.log.includes("STOP"));
  await qmp.assertGuestRuns();
  await (await transferUpdate(lab, "new", qmp)).qmp.assertGuestRuns();
});

for (
  const [what, special, reason] of [
    ["less RAM", { memory: 32 }, "this VM has memory 33554432, the saved VM has memory 67108864"],
    ["more CPUs", { options: ["-smp", "2"] }, "this VM has cpus 2, the saved VM has cpus 1"],
    ["no PIT", { options: ["-machine", "microvm,pit=off"] }, "this VM has pit off"],
  ] as const
) {
  kvmTest(`the guest never stops when the successor has ${what}`, async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await lab.run("old");
    const { vmm, channels } = await startSuccessor(lab, "new", special);
    await beginTransfer(qmp, channels);
    await qmp.logged("MIGRATION failed");
    assert.ok(!qmp.log.includes("STOP"));
    assert.match((await qmp.migration())["error-desc"]!, new RegExp(`^Machine differs: ${reason}`));
    assert.deepEqual(await vmm.ended(), { code: 1 });
    assert.match(vmm.output, new RegExp(`load of migration failed: Machine differs: ${reason}`));
    await qmp.assertGuestRuns();
    await (await transferUpdate(lab, "next", qmp)).qmp.assertGuestRuns();
  });
}

kvmTest("the guest never stops when the successor has more RAM than there is", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const { vmm, channels } = await startSuccessor(lab, "new", { memory: 128 });
  await beginTransfer(qmp, channels);
  await qmp.logged("MIGRATION failed");
  assert.ok(!qmp.log.includes("STOP"));
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.match(vmm.output, /Size mismatch: microvm.ram: 0x4000000 != 0x8000000/);
  await qmp.assertGuestRuns();
});
