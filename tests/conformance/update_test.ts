/** `update`: one command moves a running guest to a new VMM, or leaves it where it is. */
import assert from "node:assert/strict";
import { UpdateError } from "../../cpr/update/types.ts";
import { O, openFile, readFd, writeAll } from "../../ffi/fd.ts";
import { spawn } from "../../ffi/process.ts";
import { openPty } from "../../ffi/terminal.ts";
import { updateVmm } from "../../mod.ts";
import { layout } from "../guests/programs.ts";
import {
  isAlive,
  kvmTest,
  Laboratory,
  program,
  Qmp,
  sleep,
  until,
  type Vmm,
  type VmmOptions,
} from "./program.ts";

const modes = ["transfer", "exec", "reboot"] as const;

/** What a run of the command has come to. */
interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A VMM that is updated; successors, which nobody waits for, end with it. */
class Subject implements AsyncDisposable {
  readonly #pids = new Set<number>();
  readonly pidfile: string;
  readonly socket: string;

  private constructor(readonly lab: Laboratory, readonly special: VmmOptions, readonly vmm: Vmm) {
    this.pidfile = lab.path("pid");
    this.socket = vmm.qmpPath;
  }

  /** Starts a VMM with two monitors: the update keeps one of them busy. */
  static async start(describe: (lab: Laboratory) => VmmOptions = () => ({})): Promise<Subject> {
    const lab = await Laboratory.open();
    const special = describe(lab);
    const options = [
      ...["-pidfile", lab.path("pid"), "-qmp", `unix:${lab.path("second")},server=on,wait=off`],
      ...(special.options ?? []),
    ];
    const full = { ...special, options };
    const subject = new Subject(lab, full, lab.start("vmm", full));
    using qmp = await subject.monitor();
    await qmp.reaches("running");
    await qmp.assertGuestRuns();
    return subject;
  }

  /** The options of the VMM, and further ones. */
  options(...more: string[]): string[] {
    return [...this.lab.optionsOf("vmm", this.special), ...more];
  }

  /** The VMM's process, as its pidfile has it. */
  get pid(): number {
    const pid = Number(Deno.readTextFileSync(this.pidfile));
    this.#pids.add(pid);
    return pid;
  }

  monitor(): Promise<Qmp> {
    return Qmp.connect(this.socket);
  }

  /** Starts the command. */
  spawn(...args: string[]): Deno.ChildProcess {
    const [file, ...rest] = program;
    return new Deno.Command(file, {
      args: [...rest, "update", "-qmp", this.socket, ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  }

  /** Runs the command to its end. */
  run(...args: string[]): Promise<Outcome> {
    return outcomeOf(this.spawn(...args));
  }

  /** Fails unless the guest runs where it ran, and can be updated as before. */
  async assertUntouched(): Promise<void> {
    assert.equal(this.pid, this.vmm.child.pid);
    using second = await Qmp.connectAtOnce(this.lab.path("second"));
    assert.equal(await second.runState(), "running");
    using qmp = await Qmp.connectAtOnce(this.socket);
    assert.equal(await qmp.runState(), "running");
    await qmp.assertGuestRuns();
    const parameters = await qmp.execute<Record<string, unknown>>("query-migrate-parameters");
    assert.equal(parameters.mode, "normal");
    assert.deepEqual(parameters["cpr-exec-command"], []);
    const left = Array.from(Deno.readDirSync(this.lab.folder), ({ name }) => name)
      .filter((name) => name.includes(".update-"));
    assert.deepEqual(left, []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of [...this.#pids, this.pidIfThere() ?? 0]) {
      if (pid > 0 && pid !== this.vmm.child.pid) killIfThere(pid);
    }
    await this.lab[Symbol.asyncDispose]();
  }

  private pidIfThere(): number | undefined {
    try {
      return this.pid;
    } catch {
      return undefined;
    }
  }
}

function killIfThere(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It has ended as it should.
  }
}

async function outcomeOf(child: Deno.ChildProcess): Promise<Outcome> {
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** The guest's counter. */
async function counterOf(subject: Subject): Promise<number> {
  using qmp = await Qmp.connectAtOnce(subject.socket);
  assert.equal(await qmp.runState(), "running");
  await qmp.assertGuestRuns();
  return await qmp.word(layout.counter);
}

for (const mode of modes) {
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

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

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
  await until(() => child.poll() !== undefined, () => "the end of the update");
  const buffer = new Uint8Array(8192);
  const text = new TextDecoder().decode(buffer.subarray(0, readFd(master.fd, buffer)));
  assert.deepEqual(child.poll(), { code: 0 }, text);
  for (const step of ["starting the new VMM", `moving the guest to process ${subject.pid}`]) {
    const line = new RegExp(`… ${step}\r\x1b\\[2K✓ ${step} \\(\\d+ ms\\)\r*\n`);
    assert.match(text, line);
  }
  assert.match(text, /pause \d+\.\d\d ms/);
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

function commandLine(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  } catch {
    return "";
  }
}

/** An update whose successor gets stuck before it has the guest: nobody reads its log. */
async function stuckUpdate(subject: Subject): Promise<{ child: Deno.ChildProcess; pid: number }> {
  const fifo = subject.lab.path("fifo");
  assert.ok(new Deno.Command("mkfifo", { args: [fifo] }).outputSync().success);
  using second = await Qmp.connect(subject.lab.path("second"));
  const child = subject.spawn("--", ...subject.options("-D", fifo));
  let status: string | undefined;
  for (let tries = 0; status !== "setup"; tries++) {
    assert.ok(tries < 3000, `Waited in vain for a migration, it is ${status}`);
    await sleep(10);
    ({ status } = await second.migration());
  }
  assert.match(
    await second.refusal("migrate", { uri: "file:/nonexistent" }),
    /^There's a migration process in progress$/,
  );
  const pids = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name));
  const pid = pids.find((pid) => pid > 0 && commandLine(pid).includes(`${fifo}\0-incoming`));
  assert.ok(pid, "There is no successor");
  return { child, pid };
}

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
      assert.match(stderr, /It does not greet: another client may be connected to it/);
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
  await counterOf(subject);
});

/** Runs the command without a VMM. */
async function runAlone(...args: string[]): Promise<Outcome> {
  const [file, ...rest] = program;
  const command = new Deno.Command(file, {
    args: [...rest, "update", ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  return await outcomeOf(command.spawn());
}

Deno.test("update --help prints how it is used", async () => {
  const { code, stdout, stderr } = await runAlone("--help");
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^usage: denovo update -qmp SOCKET \[--mode MODE\]/);
});

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
  for await (const text of lines) {
    await send({
      return: text.includes("query-version")
        ? version
        : text.includes("query-status")
        ? { status: "running" }
        : {},
    });
  }
}
