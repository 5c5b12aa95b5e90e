/** What happens when: before a successor has its state, on the command line, and at a failed end. */
import assert from "node:assert/strict";
import {
  beginTransfer,
  execLog,
  kvmTest,
  Laboratory,
  listens,
  program,
  setExec,
  sleep,
  startSuccessor,
  transferUpdate,
  until,
} from "./program.ts";
import { run, TestFolder } from "./session.ts";
import { pausesOf } from "./updates.ts";

kvmTest("a successor has no monitor before descriptors have come, and then at once", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const { vmm, channels } = await startSuccessor(lab, "new", { incoming: "defer" });
  // Its options are read and its cpr channel listens; time would not change anything.
  await sleep(200);
  assert.throws(() => Deno.lstatSync(vmm.qmpPath), Deno.errors.NotFound);
  await beginTransfer(qmp, channels);
  await listens(vmm.qmpPath);
  assert.equal(await (await lab.monitor(vmm)).runState(), "inmigrate");
  assert.deepEqual(qmp.log, ["MIGRATION setup", "reply"]);
  assert.equal(await qmp.runState(), "running");
  await qmp.assertGuestRuns();
});

kvmTest("with -incoming defer, parts are added before migrate-incoming", async () => {
  await using lab = await Laboratory.open();
  const pcie = ["-machine", "pcie=on"];
  const port = { driver: "pcie-root-port", id: "rp" };
  const entropy = { driver: "virtio-rng-pci", id: "r", bus: "rp" };
  const options = [port, entropy].flatMap((one) => ["-device", JSON.stringify(one)]);
  const { qmp } = await lab.run("old", { options: [...pcie, ...options] });
  const { vmm, channels } = await startSuccessor(lab, "new", {
    ...{ incoming: "defer", options: pcie },
  });
  await beginTransfer(qmp, channels);
  await listens(vmm.qmpPath);
  const next = await lab.monitor(vmm);
  for (const one of [port, entropy]) await next.execute("device_add", one);
  assert.equal(await next.refusal("device_add", port), "Duplicate device ID 'rp'");
  const memory = { "qom-type": "memory-backend-memfd", id: "extra", size: 1 << 20, share: true };
  await next.execute("object-add", memory);
  await next.execute("chardev-add", { id: "log", backend: { type: "null", data: {} } });
  // Of ISA's devices QEMU has the same to say.
  const device = { driver: "isa-debugcon", iobase: 0x402, chardev: "log", id: "debug" };
  assert.equal(
    await next.refusal("device_add", device),
    "Bus 'isa.0' does not support hotplugging",
  );
  await next.execute("migrate-incoming", { channels: [channels[0]] });
  await next.reaches("running");
  await next.assertGuestRuns();
  assert.equal(
    await next.refusal("device_add", { driver: "pcie-root-port", slot: 1 }),
    "Bus 'pcie.0' does not support hotplugging",
  );
  assert.deepEqual(
    (await next.execute<{ id: string }[]>("query-memdev")).map(({ id }) => id).toSorted(),
    ["extra", "microvm.ram"],
  );
});

/** The processors on which a process's main thread may run. */
const processorsOf = (pid: number) =>
  /^Cpus_allowed_list:\s+(.*)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1];

kvmTest("the guest has its processors for itself until it has moved", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old");
  const all = processorsOf(Deno.pid);
  assert.equal(processorsOf(vmm.child.pid), all);
  const { vmm: next, channels } = await startSuccessor(lab, "new", { incoming: "defer" });
  await beginTransfer(qmp, channels);
  await listens(next.qmpPath);
  // On a host with one processor there is nothing to leave to anyone.
  const left = processorsOf(vmm.child.pid);
  assert.equal(left === all, navigator.hardwareConcurrency === 1, `${left} of ${all}`);
  assert.equal(processorsOf(next.child.pid), left);
  const monitor = await lab.monitor(next);
  await monitor.execute("migrate-incoming", { channels: [channels[0]] });
  await monitor.reaches("running");
  await qmp.logged("MIGRATION completed");
  for (const { child: { pid } } of [next, vmm]) {
    await until(() => processorsOf(pid) === all, () => `the freedom of process ${pid}`);
  }
  await monitor.assertGuestRuns();
});

kvmTest("the event STOP has the time of the stop, not that at which it is sent", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const { vmm, channels } = await startSuccessor(lab, "new", { incoming: "defer" });
  await beginTransfer(qmp, channels);
  const next = await lab.monitor(vmm);
  await next.execute("migrate-incoming", { channels: [channels[0]] });
  await next.logged("RESUME");
  await qmp.logged("STOP");
  assert.ok(qmp.times.get("STOP")! < next.times.get("RESUME")!);
});

kvmTest("the successor tells the whole pause, the old VMM its own part", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const next = await transferUpdate(lab, "new", qmp);
  const whole = await pausesOf(next.qmp);
  const part = await qmp.execute<{ downtime: number }>("query-migrate");
  assert.ok(whole["x-pause"] > 0 && whole["x-pause"] < 60_000_000, JSON.stringify(whole));
  assert.ok(Number.isInteger(part.downtime) && part.downtime >= 0, JSON.stringify(part));
});

/** QEMU's answers to wrong `-incoming` options, each on one line and with exit status 1. */
const wrong: [incoming: string[], message: string][] = [
  [["file:/nonexistent"], "Could not open '/nonexistent': No such file or directory"],
  [["unix:/nodir/x"], "Failed to bind socket to /nodir/x: No such file or directory"],
  [["nope"], "Parameter 'channel-type' does not accept value 'nope'"],
  [['{"channel-type":"cpr"}'], "Parameter 'addr' is missing"],
  [["fd:nope"], "File descriptor named 'nope' has not been found"],
];

for (const [incoming, message] of wrong) {
  kvmTest(`-incoming ${incoming} is refused in QEMU's words`, async () => {
    using folder = new TestFolder();
    const options = incoming.flatMap((one) => ["-incoming", one]);
    assert.deepEqual(
      await run("-kernel", folder.guest("demo"), "-serial", "null", "-m", "64", ...options),
      { code: 1, stdout: "", stderr: `denovo: -incoming ${incoming}: ${message}\n` },
    );
  });
}

for (
  const addr of [
    { transport: "file", filename: "/nonexistent", offset: 0 },
    { transport: "socket", type: "inet", host: "127.0.0.1", port: "0" },
  ]
) {
  kvmTest(`-incoming refuses a cpr channel of type ${addr.transport} as QEMU does`, async () => {
    using folder = new TestFolder();
    const channel = JSON.stringify({ "channel-type": "cpr", addr });
    assert.deepEqual(
      await run(
        ...["-kernel", folder.guest("demo"), "-serial", "null", "-m", "64"],
        ...["-incoming", "defer", "-incoming", channel],
      ),
      { code: 1, stdout: "", stderr: "denovo: bad cpr channel socket type; must be unix\n" },
    );
  });
}

kvmTest("cpr-exec takes a command as main channel that captures everything", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const path = lab.path("state.gz");
  await setExec(qmp, [...program, ...vmm.options, "-incoming", `exec:gunzip < ${path}`]);
  qmp.log.length = 0;
  await qmp.execute("migrate", { uri: `exec:gzip > ${path}` });
  await qmp.closed();
  assert.deepEqual(qmp.log, execLog);
  const next = await lab.monitorAtOnce(vmm);
  await next.reaches("running");
  await next.assertGuestRuns();
  assert.ok(Deno.statSync(path).size > 0);
});

kvmTest(
  "an empty word as cpr-exec-command fails as under QEMU, and the guest goes on",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await lab.run("vmm");
    await setExec(qmp, [""]);
    qmp.log.length = 0;
    await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
    await qmp.logged("RESUME");
    assert.deepEqual(qmp.log, [...execLog, "MIGRATION failed", "RESUME"]);
    assert.deepEqual(await qmp.migration(), {
      status: "failed",
      "error-desc": "execvp  failed: No such file or directory",
    });
    await qmp.assertGuestRuns();
  },
);

kvmTest("cpr-exec says why a program may not be executed", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  const path = lab.path("program");
  Deno.writeTextFileSync(path, "no program", { mode: 0o644 });
  await setExec(qmp, [path]);
  await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
  await qmp.logged("RESUME");
  assert.equal(
    (await qmp.migration())["error-desc"],
    `execvp ${path} failed: Permission denied`,
  );
  await qmp.assertGuestRuns();
});

kvmTest(
  "a state file that cannot be written, or a socket that nobody listens on, is an error reply",
  async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("vmm");
    await setExec(qmp, [...program, ...vmm.options, "-incoming", "defer"]);
    const nobody = lab.path("nobody");
    for (
      const [uri, reason] of [
        ["file:/nodir/x", "Could not create '/nodir/x': No such file or directory"],
        ["file:/dev/full", "failed to truncate migration file to offset 0: Invalid argument"],
        [`unix:${nobody}`, `Failed to connect to '${nobody}': No such file or directory`],
      ]
    ) {
      qmp.log.length = 0;
      assert.equal(await qmp.refusal("migrate", { uri }), reason);
      assert.deepEqual(
        qmp.log,
        ["MIGRATION setup", "MIGRATION failing", "MIGRATION failed", "error"],
      );
      assert.deepEqual(await qmp.migration(), { status: "failed", "error-desc": reason });
    }
    await qmp.assertGuestRuns();
  },
);
