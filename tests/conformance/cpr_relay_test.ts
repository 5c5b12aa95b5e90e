/** The relayed cpr-exec: to its user it is what the direct one is, and the guest waits in a helper. */
import assert from "node:assert/strict";
import { O, openFile } from "../../ffi/fd.ts";
import { answering, assertRunsIn, GuestMemory } from "../faults/faults.ts";
import { layout } from "../guests/programs.ts";
import { noKvm } from "../needs_kvm.ts";
import { childrenOf } from "../processes.ts";
import {
  execLog,
  execUpdate,
  kvmTest,
  Laboratory,
  processesOf,
  program,
  Qmp,
  setExec,
  until,
  type Vmm,
  type VmmOptions,
} from "./program.ts";

/** The anchor needs KVM. */
const ways = noKvm === undefined ? ["on", "off", "anchor"] as const : ["on", "off"] as const;

/** A guest that runs on at once stops when `migrate` has been answered. */
const anchoredLog = execLog.toSpliced(execLog.indexOf("STOP"), 2, "reply", "STOP");

/** A guest whose VMM goes by way of a helper or, with `off`, does not. */
async function runWith(
  lab: Laboratory,
  relay: "on" | "off" | "anchor",
  special: VmmOptions = {},
): Promise<{ vmm: Vmm; qmp: Qmp; memory: GuestMemory }> {
  const { vmm, qmp } = await lab.run("vmm", special);
  await choose(qmp, relay);
  return { vmm, qmp, memory: GuestMemory.of(vmm.child.pid) };
}

async function choose(qmp: Qmp, relay: "on" | "off" | "anchor"): Promise<void> {
  await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": relay });
}

/** Waits until a VMM is the only process of a laboratory, and has no child. */
async function alone(lab: Laboratory, { child: { pid } }: Vmm): Promise<void> {
  await until(
    () => processesOf(lab).join() === `${pid}` && childrenOf(pid).length === 0,
    () => `process ${pid} to be alone: ${processesOf(lab)}, children ${childrenOf(pid)}`,
  );
}

/** Waits for the helper of a VMM; returns its process id. */
async function helperOf(lab: Laboratory, { child: { pid } }: Vmm): Promise<number> {
  let helper: number | undefined;
  await until(() => {
    helper = processesOf(lab).find((other) => other !== pid && isHelper(other));
    return helper !== undefined;
  }, () => "a helper");
  return helper!;
}

function isHelper(pid: number): boolean {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/environ`).includes("DENOVO_CPR_RELAY=");
  } catch {
    return false;
  }
}

for (const relay of ways) {
  kvmTest(`x-cpr-exec-relay=${relay}: same process, same events, a state file`, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp, memory } = await runWith(lab, relay, { guest: "counter_cpl3" });
    using _memory = memory;
    let monitor = qmp;
    for (let update = 0; update < 3; update++) {
      await monitor.withEvents();
      await choose(monitor, relay);
      const next = await execUpdate(lab, vmm, monitor);
      assert.deepEqual(monitor.log, relay === "anchor" ? anchoredLog : execLog);
      monitor = next;
      await monitor.reaches("running");
      const { status } = await monitor.migration();
      assert.equal(status, "completed");
      assert.ok(Deno.statSync(lab.path("state")).size > 1000);
      Deno.removeSync(lab.path("state"));
      await alone(lab, vmm);
      await assertRunsIn(monitor, memory);
    }
    await monitor.execute("quit");
    assert.deepEqual(await vmm.ended(), { code: 0 });
    assert.equal(vmm.output, "");
  });

  kvmTest(`x-cpr-exec-relay=${relay} keeps two vCPUs counting`, async () => {
    await using lab = await Laboratory.open();
    const special = { guest: "smp", options: ["-smp", "2"] } as const;
    const { vmm, qmp, memory } = await runWith(lab, relay, special);
    using _memory = memory;
    await lab.printed("cpus 2");
    const next = await execUpdate(lab, vmm, qmp);
    await next.reaches("running");
    for (const cpu of [0, 1]) {
      const record = layout.cpuRecords + cpu * layout.cpuRecordSize;
      const before = memory.word(record);
      await until(() => memory.word(record) > before, () => `CPU ${cpu} to count`);
    }
    memory.assertIntact();
    await alone(lab, vmm);
  });

  kvmTest(`x-cpr-exec-relay=${relay} leaves a stopped guest stopped, and obeys -S`, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp, memory } = await runWith(lab, relay);
    using _memory = memory;
    await memory.assertRuns();
    await qmp.execute("stop");
    const stopped = memory.word(layout.counter);
    const next = await execUpdate(lab, vmm, qmp);
    await next.reaches("paused");
    assert.equal(memory.word(layout.counter), stopped);
    await next.execute("cont");
    await choose(next, relay);
    const last = await execUpdate(lab, vmm, next, { more: ["-S"] });
    await last.reaches("paused");
    await memory.assertStands();
    await last.execute("cont");
    await memory.assertRuns();
    await alone(lab, vmm);
  });
}

kvmTest("with -incoming defer the guest runs in the helper until migrate-incoming", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp, memory } = await runWith(lab, "on");
  using _memory = memory;
  const next = await execUpdate(lab, vmm, qmp, { incoming: "defer" });
  assert.equal(await next.runState(), "inmigrate");
  const helper = await helperOf(lab, vmm);
  assert.deepEqual(childrenOf(vmm.child.pid), [helper]);
  await memory.assertRuns();
  await next.execute("migrate-incoming", { uri: `file:${lab.path("state")}` });
  await assertRunsIn(next, memory);
  await alone(lab, vmm);
});

for (const relay of ways) {
  kvmTest(
    `x-cpr-exec-relay=${relay} keeps -pidfile, and works in the background of -daemonize`,
    async () => {
      await using lab = await Laboratory.open();
      const pidfile = lab.path("pid");
      const starter = lab.start("vmm", { options: ["-daemonize", "-pidfile", pidfile] });
      const qmp = await lab.monitor(starter);
      await qmp.reaches("running");
      assert.deepEqual(await starter.ended(), { code: 0 }, starter.output);
      const pid = Number(Deno.readTextFileSync(pidfile));
      using memory = GuestMemory.of(pid);
      await choose(qmp, relay);
      const next = await execUpdate(lab, starter, qmp);
      await assertRunsIn(next, memory);
      assert.equal(Deno.readTextFileSync(pidfile), `${pid}\n`);
      await until(() => processesOf(lab).join() === `${pid}`, () => "the helper's end");
      await next.execute("quit");
      await until(() => processesOf(lab).length === 0, () => "the end of all processes");
      assert.throws(() => Deno.statSync(pidfile), Deno.errors.NotFound);
    },
  );
}

/** A command that passes the preflight, and then does something else in a shell. */
function falseCommand(vmm: Vmm, script: string, incoming: string): string[] {
  const shell = `if [ -n "$DENOVO_CPR_PREFLIGHT" ]; then exec "$@"; fi; ${script}`;
  return ["/bin/sh", "-c", shell, "sh", ...program, ...vmm.options, "-incoming", incoming];
}

for (
  const { what, script, reason } of [
    {
      what: "ends",
      script: "exit 3",
      reason: "cpr-exec failed: the new program has ended",
    },
    {
      what: "does nothing",
      script: "exec sleep 1000",
      reason: "cpr-exec failed: the new program does not come up within 45 s",
    },
  ]
) {
  kvmTest(`the helper goes on as a VMM when the new program ${what}`, async () => {
    await using lab = await Laboratory.open();
    const pidfile = lab.path("pid");
    const { vmm, qmp, memory } = await runWith(lab, "on", { options: ["-pidfile", pidfile] });
    using _memory = memory;
    const uri = `file:${lab.path("state")}`;
    await setExec(qmp, falseCommand(vmm, script, uri));
    await qmp.execute("migrate", { uri });
    await qmp.closed();
    await memory.assertRuns();
    const helper = await answering(lab, vmm, "running");
    assert.deepEqual(await helper.migration(), { status: "failed", "error-desc": reason });
    await assertRunsIn(helper, memory);
    const pid = Number(Deno.readTextFileSync(pidfile));
    assert.notEqual(pid, vmm.child.pid);
    assert.ok(processesOf(lab).includes(pid));
    await vmm.said(`${reason}; the guest runs on in process ${pid}`);
    // From there it can be updated like any other.
    await choose(helper, "on");
    const next = await execUpdate(lab, vmm, helper);
    await assertRunsIn(next, memory);
    assert.equal(Deno.readTextFileSync(pidfile), `${pid}\n`);
    await next.execute("quit");
    await until(() => !processesOf(lab).includes(pid), () => `the end of ${pid}`);
  });
}

kvmTest("a guest is not lost when the new program asks for it and dies at once", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp, memory } = await runWith(lab, "on");
  using _memory = memory;
  const uri = `file:${lab.path("state")}`;
  // The letter A on the link is the question; the answer meets a process that is gone.
  const ask = `link=$(echo "$DENOVO_CPR_RELAY" | sed 's/.*"link":\\([0-9]*\\).*/\\1/');` +
    ` eval "printf A >&$link"; exit 0`;
  await setExec(qmp, falseCommand(vmm, ask, uri));
  await qmp.execute("migrate", { uri });
  await qmp.closed();
  const helper = await answering(lab, vmm, "running");
  await assertRunsIn(helper, memory);
  assert.equal((await helper.migration()).status, "failed");
  const next = await execUpdate(lab, vmm, helper);
  await assertRunsIn(next, memory);
  await next.execute("quit");
  await until(() => processesOf(lab).length === 0, () => "the end of all processes");
});

kvmTest("`migrate_cancel` ends a relayed cpr-exec while its helper starts", async () => {
  await using lab = await Laboratory.open();
  const [second, fifo, wait] = ["second", "fifo", "wait"].map((name) => lab.path(name));
  assert.ok(new Deno.Command("mkfifo", { args: [fifo] }).outputSync().success);
  // A helper starts with the VMM's own options: as long as nobody reads its log it comes no further.
  const reads = () => openFile(fifo, O.RDONLY | O.NONBLOCK);
  using reader = reads();
  const { vmm, qmp, memory } = await runWith(lab, "on", {
    options: ["-qmp", `unix:${second},server=on,wait=off`, "-D", fifo],
  });
  using _memory = memory;
  reader.close();
  using other = await Qmp.connect(second);
  const uri = `file:${lab.path("state")}`;
  const command = [...program, ...vmm.options, "-incoming", uri];
  const waits = `while [ -e ${wait} ]; do sleep 0.01; done; exec "$@"`;
  Deno.writeTextFileSync(wait, "");
  const preflightRuns = () => until(() => processesOf(lab).length > 1, () => "the preflight");
  const moments = [
    { exec: ["/bin/sh", "-c", waits, "sh", ...command], begun: preflightRuns },
    { exec: command, begun: () => helperOf(lab, vmm) },
  ];
  for (const { exec, begun } of moments) {
    await setExec(qmp, exec);
    qmp.log.length = 0;
    const refused = qmp.refusal("migrate", { uri });
    await begun();
    await other.execute("migrate_cancel");
    assert.equal(await refused, "Migration was cancelled");
    assert.deepEqual(qmp.log.filter((entry) => entry.startsWith("MIGRATION")), [
      "MIGRATION setup",
      "MIGRATION cancelling",
      "MIGRATION cancelled",
    ]);
    assert.ok(!qmp.log.includes("STOP"));
    await assertRunsIn(qmp, memory);
    await alone(lab, vmm);
  }
  using _reader = reads();
  await assertRunsIn(await execUpdate(lab, vmm, qmp), memory);
});

for (const deferred of [true, false]) {
  const when = deferred ? "before migrate-incoming" : "while the new program starts";
  kvmTest(`a guest that ends in the helper ${when} ends the VM with its status`, async () => {
    await using lab = await Laboratory.open();
    const serial = `unix:${lab.path("console")},server=on,wait=off`;
    const { vmm, qmp, memory } = await runWith(lab, "on", { serial });
    using _memory = memory;
    await memory.assertRuns();
    using terminal = await Deno.connect({ transport: "unix", path: lab.path("console") });
    const uri = `file:${lab.path("state")}`;
    // The new program comes when the guest is gone, or waits for a command.
    const wait = `while [ -e ${lab.path("wait")} ]; do sleep 0.01; done; exec "$@"`;
    Deno.writeTextFileSync(lab.path("wait"), "");
    await setExec(qmp, falseCommand(vmm, deferred ? 'exec "$@"' : wait, deferred ? "defer" : uri));
    await qmp.execute("migrate", { uri });
    await qmp.closed();
    const next = deferred ? await answering(lab, vmm, "inmigrate") : undefined;
    await terminal.write(new TextEncoder().encode("quit\r"));
    const { pid } = vmm.child;
    await until(
      () => processesOf(lab).join() === `${pid}`,
      () => `the helper's end: ${vmm.output}`,
    );
    Deno.removeSync(lab.path("wait"));
    if (next) {
      await next.execute("migrate-incoming", { uri }).catch((error) => {
        if (!next.ended) throw error;
      });
    }
    // isa-debug-exit: twice the guest's value, and one.
    assert.deepEqual(await vmm.ended(), { code: 1 }, vmm.output);
    assert.match(vmm.output, /The guest has ended during the update, with exit status 1\n$/);
    await until(() => processesOf(lab).length === 0, () => "the end of all processes");
  });
}
