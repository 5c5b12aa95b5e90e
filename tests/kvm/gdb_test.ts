/** gdb itself, Debian's, on a guest. */
import assert from "node:assert/strict";
import { Exit } from "../../ffi/kvm/run.ts";
import { whyNoKvm } from "../../ffi/kvm/system.ts";
import { encodePacket } from "../../vmm/gdb/packet.ts";
import { openGdb } from "../../vmm/gdb/server.ts";
import { KvmMachine } from "../accel/software/chips/kvm_machine.ts";
import { layout } from "../guests/programs.ts";
import { TextConnection } from "../conformance/session.ts";
import { testAccelerator } from "../needs_kvm.ts";
import { kvmTest, TestVm, type VmOptions } from "./harness.ts";

/** Milliseconds after which a gdb that does not end by itself has failed. */
const PATIENCE_MS = 60_000;

const hasGdb = (() => {
  try {
    return new Deno.Command("gdb", { args: ["--version"], stdout: "null" }).outputSync().success;
  } catch {
    return false;
  }
})();
if (!hasGdb) console.warn("SKIPPED: gdb on a guest: gdb is not installed");

/** A VM that waits for gdb on a socket, and the socket's folder. */
async function startVm(options: VmOptions): Promise<{ test: TestVm; socket: string }> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-gdb-" });
  const socket = `${folder}/gdb.sock`;
  const test = await TestVm.start({
    ...options,
    chardevs: [{
      backend: "socket",
      id: "gdb",
      family: "unix",
      path: socket,
      server: true,
      wait: false,
    }],
    monitors: [{ mode: "gdb", chardev: "gdb", pretty: false }],
  });
  openGdb(test.vm, "gdb");
  return { test, socket };
}

/** Runs gdb with these commands after it has connected; returns what it prints, line by line. */
async function gdb(socket: string, ...commands: string[]): Promise<string[]> {
  const all = ["set confirm off", "set pagination off", `target remote ${socket}`, ...commands];
  const process = new Deno.Command("gdb", {
    args: ["-nx", "-batch", ...all.flatMap((command) => ["-ex", command])],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(PATIENCE_MS),
  }).spawn();
  const { code, stdout, stderr } = await process.output();
  const text = new TextDecoder().decode(stdout);
  assert.equal(code, 0, `${text}\n${new TextDecoder().decode(stderr)}`);
  return text.split("\n");
}

/** The values of lines `$N = VALUE`. */
const values = (lines: string[]) => lines.flatMap((line) => /^\$\d+ = (.*)$/.exec(line)?.[1] ?? []);

/** A test on a VM that waits for gdb; `missing` is why it cannot run here, said before. */
function socketTest(
  name: string,
  options: VmOptions,
  run: (test: TestVm, socket: string) => Promise<void>,
  missing = false,
) {
  kvmTest(name, async () => {
    const { test, socket } = await startVm(options);
    try {
      await run(test, socket);
    } finally {
      await test[Symbol.asyncDispose]();
      await Deno.remove(socket.replace(/\/[^/]*$/, ""), { recursive: true });
    }
  }, missing);
}

/** A test with gdb itself. */
function gdbTest(
  name: string,
  options: VmOptions,
  run: (test: TestVm, socket: string) => Promise<void>,
) {
  socketTest(name, options, run, !hasGdb);
}

gdbTest("gdb stops the guest, reads and changes it, and lets it go on", {
  program: "counter_cpl0",
}, async (test, socket) => {
  await test.grown(layout.counter);
  const lines = await gdb(
    socket,
    "p/x $cs",
    "p/x $cr3",
    "p/x $efer & 0x500",
    `p *(long*)${layout.counter} != 0`,
    `set {long}${layout.maxGap} = 0x1122334455667788`,
    `p/x *(long*)${layout.maxGap}`,
    "set $xmm3.uint128 = 0x1234",
    "p/x $xmm3.uint128",
    "detach",
  );
  assert.deepEqual(values(lines), [
    "0x18",
    "0x180000",
    "0x500",
    "1",
    "0x1122334455667788",
    "0x1234",
  ]);
  assert.equal(test.vm.runState, "running");
  await test.grown(layout.counter);
  test.assertUnharmed();
});

gdbTest("a breakpoint stops before its instruction, again and again", {
  program: "counter_cpl0",
}, async (test, socket) => {
  await test.grown(layout.counter);
  const lines = await gdb(
    socket,
    "set $here = $rip",
    "hbreak *$here",
    "continue",
    "p $rip == $here",
    "continue",
    "p $rip == $here",
    "delete",
    "stepi",
    "p $rip != $here",
    "detach",
  );
  assert.deepEqual(values(lines), ["1", "1", "1"]);
  await test.grown(layout.counter);
  test.assertUnharmed();
});

gdbTest("vCPUs are threads, of which one can step while the others stand still", {
  program: "smp",
  cpus: 2,
}, async (test, socket) => {
  const other = layout.cpuRecords + layout.cpuRecordSize;
  await test.grown(other);
  const lines = await gdb(
    socket,
    "info threads",
    "set scheduler-locking on",
    "thread 1",
    `set $count = *(long*)${other}`,
    "stepi 20",
    `p *(long*)${other} - $count`,
    "thread 2",
    "p/x $cs",
    "set $rip0 = $rip",
    "stepi",
    "p $rip != $rip0",
    "detach",
  );
  assert.equal(lines.filter((line) => /Thread [12] \(CPU#[01] \[stopped\]\)/.test(line)).length, 2);
  assert.deepEqual(values(lines), ["0", "0x18", "1"]);
  await test.grown(other);
  test.assertUnharmed();
});

gdbTest("without gdb's goodbye nothing of it stays", {
  program: "counter_cpl0",
}, async (test, socket) => {
  await test.grown(layout.counter);
  // `-batch` kills what it debugs at its end, unless it has been disconnected.
  await gdb(socket, "hbreak *$rip", "continue", "disconnect");
  await test.reaches("running");
  await test.grown(layout.counter);
  test.assertUnharmed();
});

gdbTest("`kill` ends the VM; gdb that finds a paused VM leaves it so", {
  program: "counter_cpl0",
}, async (test, socket) => {
  await test.grown(layout.counter);
  test.vm.stop();
  await gdb(socket, "p/x $cs", "detach");
  assert.equal(test.vm.runState, "paused");
  await test.assertStandsStill([layout.counter]);
  await gdb(socket, "kill");
  assert.equal(await test.ended(), 0);
});

const packet = (data: string) => new TextDecoder().decode(encodePacket(data));

socketTest("C-c stops a guest that runs; what is no packet ends the connection", {
  program: "counter_cpl0",
}, async (test, socket) => {
  {
    using client = await TextConnection.to(socket);
    await client.send(packet("vCont;c"));
    await test.reaches("running");
    await test.grown(layout.counter);
    await client.send("\x03");
    await client.take("+$T02thread:1;#");
    assert.equal(test.vm.runState, "paused");
  }
  await test.reaches("running");
  {
    using client = await TextConnection.to(socket);
    await test.reaches("paused");
    await client.send(`$${"x".repeat(20_000)}`).catch(() => {});
    assert.equal(await client.end(), "");
  }
  await test.reaches("running");
  await test.grown(layout.counter);
  assert.match(test.notices.join("\n"), /^gdb: A packet of gdb's is longer than 16384 bytes; /);
});

/** Whether this KVM stops a guest after it has written where a point is; a software KVM may not. */
function watchesMemory(): boolean {
  if (testAccelerator === "tcg") return true;
  if (whyNoKvm() !== undefined) return false;
  using machine = new KvmMachine();
  const address = BigInt(machine.results);
  machine.vcpu.debug({ singleStep: false, points: [{ on: "write", address, length: 1 }] });
  machine.load([{ kind: "in", port: 0x21 }]);
  return machine.enter() === Exit.DEBUG;
}

const watches = watchesMemory();
if (!watches) console.warn("SKIPPED: watchpoints: this host's KVM does not stop at them");

socketTest("a watchpoint stops after a write to its memory, and tells its address", {
  program: "counter_cpl0",
}, async (test, socket) => {
  await test.grown(layout.counter);
  using client = await TextConnection.to(socket);
  const address = layout.counter.toString(16);
  await client.send(packet(`Z2,${address},8`));
  await client.take("$OK#");
  const before = test.word(layout.counter);
  await client.send(packet("vCont;c"));
  await client.take(`$T05thread:1;watch:${address};#`);
  assert.equal(test.word(layout.counter), before + 1);
  await client.send(packet(`z2,${address},8`));
  await client.take("$OK#");
  await client.send(packet("vCont;c"));
  await test.grown(layout.counter, before + 100);
}, !watches);
