/** `update`: one command moves a running guest to a new VMM. */
import assert from "node:assert/strict";
import { UpdateError } from "../../cpr/update/types.ts";
import { O, openFile, readFd, writeAll } from "../../ffi/fd.ts";
import { spawn } from "../../ffi/process.ts";
import { openPty } from "../../ffi/terminal.ts";
import { updateVmm } from "../../mod.ts";
import { isAlive, kvmTest, program, Qmp, until } from "./program.ts";
import { testAccelerator } from "../needs_kvm.ts";
import { freePort } from "../ports.ts";
import { commandLine } from "../processes.ts";
import { counterOf, modes, runAlone, Subject } from "./update_testing.ts";

for (const mode of modes) {
  kvmTest(`update --mode ${mode} passes on which devices have come and gone`, async () => {
    const port = (id: string, slot: number) => ["-device", `pcie-root-port,id=${id},slot=${slot}`];
    await using subject = await Subject.start(() => ({
      options: [
        ...["-machine", "pcie=on", ...port("rp", 1), ...port("rq", 2)],
        ...["-device", "virtio-rng-pci,id=first,bus=rp"],
      ],
    }));
    const behind = async (qmp: Qmp) =>
      [...(await qmp.hmp("info qtree")).matchAll(/dev: virtio-rng-pci, id "(\w+)"/g)]
        .map(([, id]) => id);
    {
      using qmp = await subject.monitor();
      await qmp.execute("device_add", { driver: "virtio-rng-pci", id: "second", bus: "rq" });
      assert.deepEqual(await behind(qmp), ["first", "second"]);
    }
    const { code, stderr } = await subject.run("--mode", mode);
    assert.equal(code, 0, stderr);
    {
      using qmp = await Qmp.connectAtOnce(subject.socket);
      assert.deepEqual(await behind(qmp), ["first", "second"]);
      // No driver has switched the slot of the second one on.
      await qmp.execute("device_del", { id: "second" });
      await qmp.logged("DEVICE_DELETED");
    }
    const again = await subject.run("--mode", mode);
    assert.equal(again.code, 0, again.stderr);
    using qmp = await Qmp.connectAtOnce(subject.socket);
    assert.deepEqual(await behind(qmp), ["first"]);
    await qmp.assertGuestRuns();
  });

  kvmTest(`update --mode ${mode} moves a running guest, and moves it again`, async () => {
    await using subject = await Subject.start();
    const pids = [subject.pid];
    let counter = await counterOf(subject);
    for (let round = 0; round < 2; round++) {
      const { code, stdout, stderr } = await subject.run("--mode", mode);
      assert.equal(stderr, "");
      assert.equal(code, 0);
      const pause = mode === "exec"
        ? /^pauses (\d+\.\d\d ms( and |,)){2}/m
        : /^pause \d+\.\d\d ms$/m;
      assert.match(stdout, pause);
      assert.match(stdout, /^ {2}stop +0\.00 ms +0\.00 ms {2}(old|helper)$/m);
      assert.match(stdout, /^ {2}resumed +\d+\.\d\d ms +\d+\.\d\d ms {2}new$/m);
      assert.ok(!stdout.includes("\x1b"), "no control sequences where there is no terminal");
      // The same socket leads to the new VMM at once, and to the same guest.
      const now = await counterOf(subject);
      assert.ok(now > counter, `The counter went from ${counter} to ${now}`);
      counter = now;
      pids.push(subject.pid);
      assert.ok(stdout.includes(`the guest is in process ${subject.pid}`), stdout);
    }
    assert.equal(new Set(pids).size, mode === "exec" ? 1 : 3);
    if (mode === "exec") return;
    assert.deepEqual(await subject.vmm.ended(), { code: 0 });
    await until(() => !isAlive(pids[1]), () => `the end of process ${pids[1]}`);
  });

  kvmTest(`update --mode ${mode} to a machine that differs leaves the guest running`, async () => {
    await using subject = await Subject.start();
    const { code, stdout, stderr } = await subject.run(
      ...["--mode", mode, "--", ...subject.options("-machine", "pit=off")],
    );
    assert.equal(code, 1, stdout);
    assert.match(stderr, /^denovo update: .*\bpit\b/);
    const { pid } = subject.vmm.child;
    assert.ok(stderr.endsWith(`; the guest still runs in process ${pid}\n`), stderr);
    await subject.assertUntouched();
    assert.equal((await subject.run("--mode", mode)).code, 0, "the next update works");
    await counterOf(subject);
  });

  kvmTest(
    `update --mode ${mode} to a VMM that cannot open its sockets changes nothing`,
    async () => {
      await using subject = await Subject.start();
      const broken = ["-qmp", "unix:/nonexistent/qmp,server=on,wait=off"];
      const { code, stdout, stderr } = await subject.run(
        ...["--mode", mode, "--", ...subject.options(...broken)],
      );
      assert.equal(code, 1, stdout);
      assert.match(
        stderr,
        /Failed to bind socket to \/nonexistent\/qmp: No such file or directory; /,
      );
      await subject.assertUntouched();
    },
  );

  kvmTest(`update --mode ${mode} leaves a stopped guest stopped`, async () => {
    await using subject = await Subject.start();
    {
      using qmp = await subject.monitor();
      await qmp.execute("stop");
    }
    const { code, stdout, stderr } = await subject.run("--mode", mode, "--json");
    assert.equal(code, 0, stderr + stdout);
    const { status, pause_us } = JSON.parse(stdout);
    assert.deepEqual([status, pause_us], ["paused", null]);
    using qmp = await Qmp.connectAtOnce(subject.socket);
    await qmp.assertGuestStands();
    await qmp.execute("cont");
    await qmp.assertGuestRuns();
  });
}

kvmTest("update --json tells everything in one object", async () => {
  await using subject = await Subject.start();
  const old = subject.pid;
  const { code, stdout, stderr } = await subject.run("--json");
  assert.deepEqual([code, stderr], [0, ""]);
  const { timeline, pause_us, command_line, ...rest } = JSON.parse(stdout);
  assert.deepEqual(rest, {
    ok: true,
    mode: "transfer",
    old_pid: old,
    new_pid: subject.pid,
    status: "running",
  });
  assert.ok(Number.isInteger(pause_us) && pause_us > 0, `pause_us is ${pause_us}`);
  const steps = timeline.map(({ step }: { step: string }) => step);
  assert.ok(steps.includes("stop") && steps.includes("resumed"), steps.join());
  assert.deepEqual(command_line.slice(-subject.options().length), subject.options());

  const failed = await subject.run("--json", "--", "-bogus");
  assert.deepEqual([failed.code, failed.stderr], [1, ""]);
  const { ok, error, status } = JSON.parse(failed.stdout);
  const reason =
    `The new options: -bogus: invalid option; the guest still runs in process ${subject.pid}`;
  assert.deepEqual({ ok, error, status }, { ok: false, error: reason, status: "running" });
});

kvmTest("update takes the VMM's folder and its output along", async () => {
  await using subject = await Subject.start((lab) => ({ cwd: lab.folder, options: ["-D", "log"] }));
  const before = subject.pid;
  const { code, stderr } = await subject.run(
    ...["--", ...subject.options("-qmp", "unix:third,server=on,wait=off")],
  );
  assert.deepEqual([code, stderr], [0, ""]);
  assert.ok(Deno.statSync(subject.lab.path("third")).isSocket);
  const { pid } = subject;
  assert.notEqual(pid, before);
  Deno.kill(pid, "SIGTERM");
  await subject.vmm.said("denovo: terminating on signal SIGTERM");
  await until(() => !isAlive(pid), () => `the end of process ${pid}`);
  for (const gone of [subject.socket, subject.pidfile, subject.lab.path("third")]) {
    assert.throws(() => Deno.statSync(gone), Deno.errors.NotFound);
  }
});

kvmTest("update chooses cpr-exec for a monitor on TCP", async () => {
  const port = freePort();
  await using subject = await Subject.start(() => ({
    options: ["-qmp", `tcp:127.0.0.1:${port},server=on,wait=off`],
  }));
  const { code, stdout, stderr } = await subject.run("-qmp", `tcp:127.0.0.1:${port}`);
  assert.deepEqual([code, stderr], [0, ""]);
  const reason = `Two VMMs cannot listen on TCP port ${port} at once`;
  assert.ok(stdout.includes(`mode exec: ${reason}`), stdout);
  assert.equal(subject.pid, subject.vmm.child.pid);
  await counterOf(subject);
  const refused = await subject.run("--mode", "transfer");
  assert.equal(refused.code, 1);
  assert.ok(refused.stderr.startsWith(`denovo update: ${reason}: use --mode exec; `));
  await subject.assertUntouched();
});

kvmTest("update chooses cpr-exec for a console on a terminal, which goes on", async () => {
  const { master, path } = openPty();
  using _master = master;
  using slave = openFile(path, O.RDWR | O.NOCTTY);
  await using subject = await Subject.start(() => ({ serial: "stdio", fds: [[slave.fd, 0]] }));
  const { code, stdout, stderr } = await subject.run();
  assert.deepEqual([code, stderr], [0, ""]);
  assert.ok(stdout.includes(`mode exec: The console is on ${path}, which only`), stdout);
  await counterOf(subject);
  writeAll(master.fd, new TextEncoder().encode("hello\r"));
  await subject.vmm.said("you said: HELLO");
});

kvmTest("update on a terminal shows each step on a line, with the time that it took", async () => {
  await using subject = await Subject.start();
  const { master, path } = openPty();
  using _master = master;
  using slave = openFile(path, O.RDWR | O.NOCTTY);
  const { fd } = slave;
  using child = spawn([...program, "update", "-qmp", subject.socket], {
    fds: [[fd, 0], [fd, 1], [fd, 2]],
  });
  const buffer = new Uint8Array(8192);
  let text = "";
  const reads = () => {
    const n = readFd(master.fd, buffer);
    if (n > 0) text += new TextDecoder().decode(buffer.subarray(0, n));
  };
  await until(() => (reads(), child.poll() !== undefined), () => `the end of the update: ${text}`);
  assert.deepEqual(child.poll(), { code: 0 }, text);
  // A terminal's two ends are not the same: what was written may be under way.
  await until(() => (reads(), /pause \d+\.\d\d ms/.test(text)), () => `the last line of ${text}`);
  for (const step of ["starting the new VMM", `moving the guest to process ${subject.pid}`]) {
    const line = new RegExp(`… ${step}\r\x1b\\[2K✓ ${step} \\(\\d+ ms\\)\r*\n`);
    assert.match(text, line);
  }
  await counterOf(subject);
});

kvmTest("update --mode reboot leaves RAM in its file", async () => {
  await using subject = await Subject.start((lab) => ({
    options: [
      ...["-object", `memory-backend-file,id=ram0,size=64M,share=on,mem-path=${lab.path("ram")}`],
      ...["-machine", "memory-backend=ram0"],
    ],
  }));
  for (let round = 0; round < 2; round++) {
    const { code, stdout, stderr } = await subject.run("--mode", "reboot", "--json");
    assert.equal(code, 0, stdout + stderr);
    await counterOf(subject);
    const argv = commandLine(subject.pid).split("\0");
    assert.equal(argv.filter((word) => word === "migration.x-ignore-shared=on").length, 1);
  }
});

kvmTest("`updateVmm()` does the same from code, and a signal cancels it", async () => {
  await using subject = await Subject.start();
  const socket = `unix:${subject.socket}`;
  await assert.rejects(
    updateVmm({ socket, signal: AbortSignal.abort() }),
    (error) =>
      error instanceof UpdateError && error.message.startsWith("The update was cancelled; ") &&
      error.failure.runState === "running",
  );
  await subject.assertUntouched();
  const steps: string[] = [];
  const result = await updateVmm({ socket, onProgress: (step) => steps.push(step) });
  assert.equal(result.newPid, subject.pid);
  assert.equal(result.oldPid, subject.vmm.child.pid);
  assert.equal(result.runState, "running");
  assert.ok(result.pauseUs! > 0);
  assert.equal(steps[1], "starting the new VMM");
  // The software CPU is compiled before the guest comes.
  const isCompiled = result.commandLine.includes("--v8-flags=--no-wasm-lazy-compilation");
  assert.equal(isCompiled, testAccelerator === "tcg");
  await counterOf(subject);
});

Deno.test("update --help prints how it is used", async () => {
  const { code, stdout, stderr } = await runAlone("--help");
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^usage: denovo update -qmp SOCKET \[--mode MODE\]/);
});
