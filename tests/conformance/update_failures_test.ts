/** `update` that goes wrong, or is cancelled: the guest is left where it is, and the user told. */
import assert from "node:assert/strict";
import { isAlive, kvmTest, Qmp, until } from "./program.ts";
import { commandLine } from "../processes.ts";
import { counterOf, outcomeOf, runAlone, Subject } from "./update_testing.ts";

/** An update whose successor gets stuck before it has the guest: nobody reads its log. */
async function stuckUpdate(subject: Subject): Promise<{ child: Deno.ChildProcess; pid: number }> {
  const fifo = subject.lab.path("fifo");
  assert.ok(new Deno.Command("mkfifo", { args: [fifo] }).outputSync().success);
  using second = await Qmp.connect(subject.lab.path("second"));
  const child = subject.spawn("--", ...subject.options("-D", fifo));
  let status: string | undefined;
  const look = async () => ({ status } = await second.migration()).status === "setup";
  await until(look, () => `a migration, it is ${status}`);
  assert.match(
    await second.refusal("migrate", { uri: "file:/nonexistent" }),
    /^There's a migration process in progress$/,
  );
  const pids = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name));
  const pid = pids.find((pid) => pid > 0 && commandLine(pid).includes(`${fifo}\0-incoming`));
  assert.ok(pid, "There is no successor");
  return { child, pid };
}

kvmTest("update names the helper that has the guest when the new program has died", async () => {
  await using subject = await Subject.start();
  const fifo = subject.lab.path("fifo");
  assert.ok(new Deno.Command("mkfifo", { args: [fifo] }).outputSync().success);
  // The new program waits for somebody who reads its log; the guest is in the helper meanwhile.
  const child = subject.spawn("--mode", "exec", "--json", "--", ...subject.options("-D", fifo));
  const { pid } = subject.vmm.child;
  await until(() => commandLine(pid).includes(`\0${fifo}\0`), () => "the new program");
  subject.vmm.kill();
  const { code, stdout, stderr } = await outcomeOf(child);
  assert.deepEqual([code, stderr], [1, ""]);
  const helper = subject.pid;
  assert.notEqual(helper, pid);
  const { error, status, old_pid, new_pid } = JSON.parse(stdout);
  assert.deepEqual({ error, status, old_pid, new_pid }, {
    error: "cpr-exec failed: the new program has ended; the guest runs on in process" +
      ` ${helper}, the update's helper`,
    status: "running",
    old_pid: pid,
    new_pid: helper,
  });
  await counterOf(subject);
  const next = await subject.run();
  assert.deepEqual([next.code, next.stderr], [0, ""]);
  await counterOf(subject);
});

kvmTest("update says that another one is under way", async () => {
  await using subject = await Subject.start();
  const { child } = await stuckUpdate(subject);
  const old = subject.vmm.child.pid;
  const { code, stderr } = await subject.run("-qmp", subject.lab.path("second"));
  assert.equal(code, 1);
  assert.equal(
    stderr,
    `denovo update: Another update or migration of VMM ${old} is under way: wait for its end;` +
      ` the guest still runs in process ${old}\n`,
  );
  child.kill("SIGINT");
  assert.equal((await outcomeOf(child)).code, 1);
  await subject.assertUntouched();
});

kvmTest("update ends at C-c: the migration is cancelled and the guest runs on", async () => {
  await using subject = await Subject.start();
  const { child, pid } = await stuckUpdate(subject);
  child.kill("SIGINT");
  const { code, stderr } = await outcomeOf(child);
  const old = subject.vmm.child.pid;
  assert.equal(
    stderr,
    `denovo update: The update was cancelled; the guest still runs in process ${old}\n`,
  );
  assert.equal(code, 1);
  assert.ok(!isAlive(pid), "the successor is still there");
  await subject.assertUntouched();
});

kvmTest("update says so when the successor dies, and the guest runs on", async () => {
  await using subject = await Subject.start();
  const { child, pid } = await stuckUpdate(subject);
  Deno.kill(pid, "SIGKILL");
  const { code, stderr } = await outcomeOf(child);
  const old = subject.vmm.child.pid;
  assert.equal(
    stderr,
    `denovo update: The new VMM ended: signal 9; the guest still runs in process ${old}\n`,
  );
  assert.equal(code, 1);
  await subject.assertUntouched();
});

kvmTest("update says what it knows when the old VMM dies in the middle", async () => {
  await using subject = await Subject.start();
  const { child, pid } = await stuckUpdate(subject);
  subject.vmm.kill();
  const { code, stderr } = await outcomeOf(child);
  assert.equal(code, 1);
  assert.equal(
    stderr,
    `denovo update: Nothing is known of the guest in process ${pid}: ` +
      `VMM ${subject.vmm.child.pid} ended during the update\n`,
  );
  Deno.kill(pid, "SIGKILL");
});

kvmTest("a migration goes on when the update is killed: the successor is on its own", async () => {
  await using subject = await Subject.start();
  const { child, pid } = await stuckUpdate(subject);
  child.kill("SIGKILL");
  await outcomeOf(child);
  const folder = /unix:(\/[^\0]+)\/main/.exec(commandLine(pid))![1];
  // Somebody reads the log: the successor goes on, and nobody waits for it.
  using _log = await Deno.open(subject.lab.path("fifo"));
  await until(() => subject.pid === pid, () => "the successor's pidfile");
  using qmp = await subject.monitor();
  await qmp.reaches("running");
  await qmp.assertGuestRuns();
  Deno.removeSync(folder, { recursive: true });
});

kvmTest("update refuses before it does anything", async () => {
  await using subject = await Subject.start(() => ({
    options: [
      ...["-object", "memory-backend-ram,id=ram0,size=64M"],
      ...["-machine", "memory-backend=ram0"],
    ],
  }));
  const suffix = `; the guest still runs in process ${subject.pid}\n`;
  const refusals: [args: string[], message: string][] = [
    [
      [],
      "Memory region ram0 is not compatible with CPR. share=on is required for" +
      " memory-backend objects, and aux-ram-share=on is required.",
    ],
    [["--", "-kernel"], "The new options: -kernel: requires an argument"],
    [["--", "-S"], "The new options have no QMP socket that tells how the update went: add -qmp"],
    [
      ["--", "-incoming", "defer"],
      "The new options have -incoming, which the update adds itself: leave it out",
    ],
  ];
  for (const [args, message] of refusals) {
    const { code, stderr } = await subject.run("--mode", "transfer", ...args);
    assert.deepEqual([code, stderr], [1, `denovo update: ${message}${suffix}`]);
  }
  await subject.assertUntouched();
  // A copy of private RAM goes through a file as well as any.
  assert.equal((await subject.run("--mode", "reboot")).code, 0);
  await counterOf(subject);
});

kvmTest(
  "update refuses a VMM whose guest has gone, or whose monitor somebody else uses",
  async () => {
    await using subject = await Subject.start();
    {
      using _other = await subject.monitor();
      const { code, stderr } = await subject.run();
      assert.equal(code, 1);
      assert.match(
        stderr,
        /It does not greet: another client, perhaps another update, may be connected to it, or/,
      );
    }
    using qmp = await Qmp.connect(subject.lab.path("second"));
    await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
    await qmp.execute("migrate", { uri: `file:${subject.lab.path("state")}` });
    await qmp.reaches("postmigrate");
    const { code, stderr } = await subject.run();
    assert.equal(code, 1);
    assert.match(
      stderr,
      /has no guest to give, its run state is postmigrate; the guest is in process/,
    );
  },
);

const mistakes: [args: string[], message: string][] = [
  [[], "-qmp is missing: name the running VMM's QMP socket"],
  [["-qmp"], "-qmp: requires an argument"],
  [["-qmp", "x", "--mode", "fast"], "--mode fast: it is not one of transfer, exec, reboot"],
  [["-qmp", "x", "--force"], "--force: invalid option, the new VMM's options come after '--'"],
  [["x"], "x: unexpected argument, the socket is named by -qmp"],
  [["-qmp", "x", "--"], "--: the new VMM's options are missing"],
  [["-qmp", "tcp:here"], "-qmp tcp:here: it does not have the form tcp:HOST:PORT"],
  [
    ["-qmp", "/nonexistent/qmp"],
    "-qmp /nonexistent/qmp: Failed to connect to '/nonexistent/qmp': No such file or directory",
  ],
];

for (const [args, message] of mistakes) {
  Deno.test(`update ${args.join(" ")} says what is wrong in one sentence`, async () => {
    const outcome = await runAlone(...args);
    assert.deepEqual(outcome, { code: 1, stdout: "", stderr: `denovo update: ${message}\n` });
  });
}

Deno.test("update refuses a VMM that is not Denovo", async () => {
  const path = `${Deno.makeTempDirSync()}/qmp`;
  using listener = Deno.listen({ transport: "unix", path });
  const serving = serveForeign(listener);
  const { code, stderr } = await runAlone("-qmp", path);
  assert.equal(code, 1);
  assert.match(stderr, /^denovo update: The VMM behind '\S+' is not Denovo, its version says 'v9'/);
  await serving;
  Deno.removeSync(path.replace(/\/qmp$/, ""), { recursive: true });
});

/** One client of a VMM of somebody else's. */
async function serveForeign(listener: Deno.UnixListener): Promise<void> {
  const connection = await listener.accept();
  const send = (value: object) =>
    connection.write(new TextEncoder().encode(JSON.stringify(value) + "\r\n"));
  const version = { qemu: { micro: 0, minor: 1, major: 9 }, package: "v9" };
  await send({ QMP: { version, capabilities: [] } });
  const lines = connection.readable.pipeThrough(new TextDecoderStream());
  try {
    for await (const text of lines) {
      await send({
        return: text.includes("query-version")
          ? version
          : text.includes("query-status")
          ? { status: "running" }
          : {},
      });
    }
  } catch {
    // Whoever has heard enough may go without reading the rest.
  }
}
