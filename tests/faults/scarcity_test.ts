/** Updates when something is scarce, cut short or interrupted: the guest goes on. */
import assert from "node:assert/strict";
import { libc } from "../../ffi/libc.ts";
import { layout } from "../guests/programs.ts";
import {
  beginTransfer,
  execUpdate,
  kvmTest,
  Laboratory,
  processesOf,
  program,
  type Qmp,
  QmpError,
  setExec,
  startSuccessor,
  transferUpdate,
  until,
} from "../conformance/program.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { childrenOf, openFiles } from "../processes.ts";
import { answering, assertFailed, assertRunsIn, GuestMemory } from "./faults.ts";

/** What the kernel's view of the limits calls them: prlimit(1). */
type Limit = "as" | "fsize" | "nofile";

/** Sets the soft limit of a resource of a process that runs. */
async function limit(pid: number, what: Limit, value: number): Promise<void> {
  const args = [`--pid=${pid}`, `--${what}=${value}:`];
  const { success, stderr } = await new Deno.Command("prlimit", { args, stdout: "null" }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}

/** A number from a process's `/proc/PID/status`. */
function status(pid: number, key: string): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/status`);
  const match = new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(text);
  assert.ok(match, `No ${key} in ${text}`);
  return Number(match[1]);
}

/** Ends a VMM's migration to a file that may not grow beyond a size. */
async function saveWithLimit(qmp: Qmp, pid: number, uri: string, size: number): Promise<void> {
  await limit(pid, "fsize", size);
  qmp.log.length = 0;
  await qmp.execute("migrate", { uri });
  await assertFailed(qmp, "File too large");
  // prlimit(1) cannot give it back without the right to: 64 MiB is as good as no limit.
  await limit(pid, "fsize", 64 << 20);
}

kvmTest("cpr-reboot: a file that takes only a part of the state lets the guest go on", async () => {
  await using lab = await Laboratory.open();
  // With the signal ignored the write is short, and the next one fails.
  const shell = ["/bin/sh", "-c", 'trap "" XFSZ; exec "$@"', "sh"];
  const { vmm, qmp } = await lab.run("vmm", { program: [...shell, ...program] });
  const { pid } = vmm.child;
  using memory = GuestMemory.of(pid);
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  const path = lab.path("state");
  for (const size of [5000, 20_000]) {
    await saveWithLimit(qmp, pid, `file:${path}`, size);
    assert.equal(Deno.statSync(path).size, size);
    await assertRunsIn(qmp, memory);
  }
  await qmp.execute("migrate", { uri: `file:${path}` });
  await qmp.logged("MIGRATION completed");
  const next = await lab.run("next", { options: ["-incoming", `file:${path}`] });
  await next.qmp.assertGuestRuns();
});

kvmTest("a command that does not take the whole state lets the guest go on", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  using memory = GuestMemory.of(vmm.child.pid);
  await setExec(qmp, [...program, ...vmm.options, "-incoming", `file:${lab.path("state")}`]);
  await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": "off" });
  const cases = [
    { mode: "cpr-exec", uri: "exec:exec <&-; exit 3", reason: /status 3$|closed the migration/ },
    { mode: "cpr-exec", uri: "exec:cat >/dev/null; kill -9 $$", reason: /killed by signal 9$/ },
    { mode: "cpr-reboot", uri: "exec:head -c 1000 >/dev/null", reason: /closed the migration/ },
  ];
  for (const { mode, uri, reason } of cases) {
    await qmp.execute("migrate-set-parameters", { mode });
    qmp.log.length = 0;
    await qmp.execute("migrate", { uri });
    await assertFailed(qmp);
    assert.match((await qmp.migration())["error-desc"]!, reason);
    await assertRunsIn(qmp, memory);
  }
  await qmp.execute("migrate-set-parameters", { mode: "cpr-exec" });
  await assertRunsIn(await execUpdate(lab, vmm, qmp), memory);
});

kvmTest("a successor without memory for the guest is refused, and the guest goes on", async () => {
  await using lab = await Laboratory.open();
  const special = { memory: 2048 };
  const { vmm, qmp } = await lab.run("vmm", special);
  const { pid } = vmm.child;
  using memory = GuestMemory.of(pid);
  const { vmm: next, channels } = await startSuccessor(lab, "next", special);
  const room = 1 << 30;
  await limit(next.child.pid, "as", status(next.child.pid, "VmSize") * 1024 + room);
  await beginTransfer(qmp, channels);
  await assertFailed(qmp);
  assert.deepEqual(await next.ended(), { code: 1 });
  assert.match(next.output, /^denovo: .*Cannot allocate memory/m);
  assert.ok(!qmp.log.includes("STOP"));
  await assertRunsIn(qmp, memory);
  assert.deepEqual(processesOf(lab), [pid]);
  await assertRunsIn((await transferUpdate(lab, "last", qmp, special)).qmp, memory);
});

/** The limit under which a process may open `room` files more: a limit is on a file's number. */
function limitForRoom(pid: number, room: number): number {
  const open = new Set([...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) => Number(name)));
  let limit = 0;
  for (let free = 0; free < room || open.has(limit); limit++) if (!open.has(limit)) free++;
  return limit;
}

kvmTest("a VMM that may open no more files says so, and the guest goes on", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const { pid } = vmm.child;
  using memory = GuestMemory.of(pid);
  const { channels } = await startSuccessor(lab, "next");
  await assertRunsIn(qmp, memory);
  const open = () => openFiles(pid).length;
  const before = open();
  const modes = [
    ["cpr-transfer", { channels }],
    ["cpr-exec", { uri: `file:${lab.path("state")}` }],
    ["cpr-reboot", { uri: `file:${lab.path("state")}` }],
  ] as const;
  await setExec(qmp, [...program, ...vmm.options, "-incoming", `file:${lab.path("state")}`]);
  // Not even the page that says who owns the guest; then that page, and nothing else.
  for (const room of [0, 1]) {
    for (const [mode, request] of modes) {
      await qmp.execute("migrate-set-parameters", { mode });
      await limit(pid, "nofile", limitForRoom(pid, room));
      assert.match(await qmp.refusal("migrate", request), /Too many open files|EMFILE/);
      assert.equal((await qmp.migration()).status, "failed", `${mode} with room for ${room}`);
      await assertRunsIn(qmp, memory);
      // The page is kept until the next update.
      await until(() => open() === before + room, () => `${open()} files to be ${before + room}`);
    }
  }
  await limit(pid, "nofile", 4096);
  await qmp.execute("migrate-set-parameters", { mode: "cpr-exec" });
  await assertRunsIn(await execUpdate(lab, vmm, qmp), memory);
});

onlyKvmTest(
  "anchored cpr-exec: a process that may open few files more keeps its guest",
  async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("vmm");
    const { pid } = vmm.child;
    using memory = GuestMemory.of(pid);
    let monitor = qmp;
    const outcomes = new Set<string>();
    // Its runtime and its own VM need none of them: those are as many as before.
    for (const room of [2, 40, 60, 80, 100, 140]) {
      const uri = `file:${lab.path("state")}`;
      await setExec(monitor, [...program, ...vmm.options, "-incoming", uri]);
      await monitor.execute("migrate-set-parameters", { "x-cpr-exec-relay": "anchor" });
      await limit(pid, "nofile", limitForRoom(pid, room));
      try {
        await monitor.execute("migrate", { uri });
        await monitor.closed();
        monitor = await answering(lab, vmm, "running");
        assert.equal((await monitor.migration()).status, "completed", `room for ${room}`);
        outcomes.add("completed");
      } catch (error) {
        if (!(error instanceof QmpError)) throw error;
        assert.match(error.message, /Too many open files|EMFILE/);
        outcomes.add("refused");
      }
      await limit(pid, "nofile", 4096);
      await assertRunsIn(monitor, memory);
    }
    assert.deepEqual([...outcomes], ["refused", "completed"]);
  },
);

/** The number of the kick signal, and its bit in the masks of proc(5). */
const KICK = 40;
const KICK_BIT = 1n << BigInt(KICK - 1);

/**
 * Interrupts all threads of this process's children over and over, once they have a handler for the
 * signal: those are the VMMs, and not what is about to execute a command.
 */
class Storm implements AsyncDisposable {
  sent = 0;
  #goesOn = true;
  readonly #end = this.#blow();

  async [Symbol.asyncDispose](): Promise<void> {
    this.#goesOn = false;
    await this.#end;
  }

  async #blow(): Promise<void> {
    while (this.#goesOn) {
      for (const pid of childrenOf(Deno.pid)) this.#interrupt(pid);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  #interrupt(pid: number): void {
    try {
      const text = Deno.readTextFileSync(`/proc/${pid}/status`);
      const caught = BigInt(`0x${/^SigCgt:\s+(\S+)/m.exec(text)![1]}`);
      if ((caught & KICK_BIT) === 0n) return;
      for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
        libc.tgkill(pid, Number(name), KICK);
        this.sent++;
      }
    } catch {
      // The process has ended meanwhile.
    }
  }
}

kvmTest("signals that interrupt every system call do no harm to an update", async () => {
  await using lab = await Laboratory.open();
  let { vmm, qmp } = await lab.run("vmm0");
  using memory = GuestMemory.of(vmm.child.pid);
  await using storm = new Storm();
  for (let update = 1; update <= 3; update++) {
    const before = storm.sent;
    const next = await transferUpdate(lab, `vmm${update}`, qmp);
    assert.ok(storm.sent > before, "no signal was sent");
    await assertRunsIn(next.qmp, memory);
    await qmp.execute("quit");
    assert.deepEqual(await vmm.ended(), { code: 0 });
    ({ vmm, qmp } = next);
  }
  await qmp.withEvents();
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate", { uri: `exec:cat > ${lab.path("state")}` });
  await qmp.logged("MIGRATION completed");
  const last = await lab.run("last", { options: ["-incoming", `exec:cat ${lab.path("state")}`] });
  using ram = GuestMemory.of(last.vmm.child.pid);
  assert.ok(ram.word(layout.counter) > 0n);
  await assertRunsIn(last.qmp, ram);
});
