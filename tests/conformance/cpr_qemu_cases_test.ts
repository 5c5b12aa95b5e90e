/**
 * The four CPR cases of QEMU's own test suite, and what lies next to each of them. All end the same
 * way: the guest's counter changes, after `stop` it stays for 200 ms, and a pattern over RAM is whole.
 */
import assert from "node:assert/strict";
import { listenUnix } from "../../ffi/socket.ts";
import {
  beginTransfer,
  execLog,
  kvmTest,
  Laboratory,
  program,
  type Qmp,
  setExec,
  startSuccessor,
  transferLog,
  unixChannel,
  until,
  type Vmm,
} from "./program.ts";

const MIB = 1 << 20;
const RAM_MIB = 64;
/** From here on the guest uses nothing of its RAM. */
const FREE = 8 * MIB;

/** A pattern that differs from page to page, for the RAM from {@linkcode FREE} on. */
function pattern(): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array((RAM_MIB * MIB - FREE) / 4);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 0x9e3779b9);
  return new Uint8Array(words.buffer);
}

/** Writes the pattern into RAM from outside, through the file that it is. */
async function fill(ramPath: string): Promise<void> {
  using file = await Deno.open(ramPath, { write: true });
  await file.seek(FREE, Deno.SeekMode.Start);
  const bytes = pattern();
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}

/** The memfd that is a VMM's RAM. */
function memfdOf(vmm: Vmm): string {
  const folder = `/proc/${vmm.child.pid}/fd`;
  for (const { name } of Deno.readDirSync(folder)) {
    const path = `${folder}/${name}`;
    try {
      if (!Deno.readLinkSync(path).startsWith("/memfd:")) continue;
      if (Deno.statSync(path).size === RAM_MIB * MIB) return path;
    } catch (error) {
      // A descriptor that was closed meanwhile.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  assert.fail("The VMM has no memfd of its RAM's size");
}

/** QEMU's ending. */
async function assertSuccess(lab: Laboratory, qmp: Qmp): Promise<void> {
  await qmp.assertGuestRuns();
  await qmp.execute("stop");
  await qmp.assertGuestStands();
  const saved = lab.path("saved-ram");
  await qmp.execute("pmemsave", { val: FREE, size: RAM_MIB * MIB - FREE, filename: saved });
  const found = Deno.readFileSync(saved);
  const expected = pattern();
  assert.equal(found.length, expected.length);
  const wrong = found.findIndex((byte, i) => byte !== expected[i]);
  assert.equal(wrong, -1, `RAM differs at 0x${(FREE + wrong).toString(16)}`);
}

/** Waits until the guest has printed something new on the serial port. */
async function assertPrints(lab: Laboratory): Promise<void> {
  const before = lab.serialText.length;
  await until(() => lab.serialText.length > before, () => "output of the guest");
}

const successorLog = ["MIGRATION setup", "MIGRATION active", "RESUME", "MIGRATION completed"];
const events = (qmp: Qmp) => qmp.log.filter((entry) => entry !== "reply" && entry !== "error");

/** RAM in a file, and a serial port that the next VMM goes on with. */
function rebootOptions(lab: Laboratory) {
  return {
    options: [
      ...["-object", `memory-backend-file,id=pc.ram,size=64M,mem-path=${lab.path("ram")},share=on`],
      ...["-machine", "memory-backend=pc.ram"],
      ...["-chardev", `file,id=console,path=${lab.path("serial")},append=on`],
    ],
    serial: "chardev:console",
  };
}

/** Case 1 up to the saved file: the guest is stopped by hand, then written. */
async function reboot(lab: Laboratory): Promise<void> {
  const { vmm, qmp } = await lab.run("old", rebootOptions(lab));
  await fill(lab.path("ram"));
  await qmp.setCapability("x-ignore-shared");
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await lab.printed("tick 1");
  await qmp.execute("stop");
  qmp.log.length = 0;
  await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
  await qmp.logged("MIGRATION completed");
  // It was stopped before: no STOP.
  assert.deepEqual(qmp.log, execLog.filter((entry) => entry !== "STOP"));
  assert.equal(await qmp.runState(), "postmigrate");
  await qmp.execute("quit");
  assert.deepEqual(await vmm.ended(), { code: 0 });
  assert.ok(Deno.statSync(lab.path("state")).size < MIB, "RAM is in the state file");
}

async function startRebooted(lab: Laboratory): Promise<Qmp> {
  const special = rebootOptions(lab);
  const vmm = lab.start("new", { ...special, options: [...special.options, "-incoming", "defer"] });
  return await (await lab.monitor(vmm)).withEvents();
}

kvmTest("QEMU's case 1: cpr-reboot with RAM in a file, stopped before, deferred", async () => {
  await using lab = await Laboratory.open();
  await reboot(lab);
  const qmp = await startRebooted(lab);
  await qmp.setCapability("x-ignore-shared");
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  qmp.log.length = 0;
  await qmp.execute("migrate-incoming", { uri: `file:${lab.path("state")}` });
  await qmp.logged("MIGRATION completed");
  assert.deepEqual(events(qmp), successorLog.filter((entry) => entry !== "RESUME"));
  assert.equal(await qmp.runState(), "paused");
  await qmp.assertGuestStands();
  await qmp.execute("cont");
  await qmp.logged("RESUME");
  await assertPrints(lab);
  await assertSuccess(lab, qmp);
});

kvmTest(
  "case 1 without the capability on the new side fails, and can be tried again",
  async () => {
    await using lab = await Laboratory.open();
    await reboot(lab);
    const uri = `file:${lab.path("state")}`;
    const qmp = await startRebooted(lab);
    await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
    await qmp.execute("migrate-incoming", { uri, "exit-on-error": false });
    await qmp.logged("MIGRATION failed");
    const refusal = "Capability x-ignore-shared is off, but received capability is on";
    assert.equal((await qmp.migration())["error-desc"], refusal);
    assert.equal(await qmp.runState(), "inmigrate");
    // A failure that was not to end the VM can be tried again, which QEMU does not offer.
    await qmp.setCapability("x-ignore-shared");
    await qmp.execute("migrate-incoming", { uri });
    await qmp.reaches("paused");
    await qmp.execute("cont");
    await assertSuccess(lab, qmp);
  },
);

const MEMFD = ["-object", "memory-backend-memfd,id=pc.ram,size=64M,share=on"];
const SHARED = [...MEMFD, "-machine", "memory-backend=pc.ram", "-machine", "aux-ram-share=on"];

/** Starts the source of cases 2 to 4, its RAM filled. */
async function source(lab: Laboratory): Promise<{ vmm: Vmm; qmp: Qmp }> {
  const old = await lab.run("old", { options: SHARED });
  await lab.printed("tick 1");
  await fill(memfdOf(old.vmm));
  return old;
}

/** Starts a successor whose cpr listener was opened here and is passed on as a descriptor. */
function startWithListener(lab: Laboratory, name: string) {
  const [mainPath, cprPath] = [lab.path(`${name}.main`), lab.path(`${name}.cpr`)];
  using listener = listenUnix(cprPath);
  const addr = { transport: "socket", type: "fd", str: "9" };
  const vmm = lab.start(name, {
    fds: [[listener.fd, 9]],
    options: [
      ...[...SHARED, "-incoming", `unix:${mainPath}`],
      ...["-incoming", JSON.stringify({ "channel-type": "cpr", addr })],
    ],
  });
  return { vmm, channels: [unixChannel("main", mainPath), unixChannel("cpr", cprPath)] };
}

kvmTest("QEMU's case 2: cpr-transfer over a listener that is passed as a descriptor", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await source(lab);
  const { vmm, channels } = startWithListener(lab, "new");
  await beginTransfer(qmp, channels);
  await qmp.logged("MIGRATION completed");
  assert.deepEqual(qmp.log, transferLog);
  assert.equal((await qmp.migration()).status, "completed");
  assert.equal(await qmp.runState(), "postmigrate");
  const next = await lab.monitor(vmm);
  await next.reaches("running");
  assert.equal((await next.migration()).status, "completed");
  await assertPrints(lab);
  await assertSuccess(lab, next);
});

kvmTest(
  "case 2 in mode normal does nothing to a waiting successor, and a retry works",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await source(lab);
    const { vmm, channels } = startWithListener(lab, "new");
    qmp.log.length = 0;
    await qmp.execute("migrate", { channels });
    await qmp.logged("MIGRATION failed");
    assert.deepEqual(events(qmp), ["MIGRATION setup", "MIGRATION failing", "MIGRATION failed"]);
    assert.equal(
      (await qmp.migration())["error-desc"],
      `Failed to connect to '${lab.path("new.main")}': No such file or directory`,
    );
    await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
    assert.equal(
      await qmp.refusal("migrate", { channels: channels.slice(0, 1) }),
      "missing 'cpr' migration channel",
    );
    await beginTransfer(qmp, channels);
    await qmp.logged("MIGRATION completed");
    await assertSuccess(lab, await lab.monitor(vmm));
  },
);

kvmTest(
  "a descriptor that is no listener, or none at all, is refused as a cpr channel",
  async () => {
    await using lab = await Laboratory.open();
    const wrong: [str: string, message: string][] = [
      ["0", "File descriptor '0' is not a listening socket"],
      ["77", "File descriptor '77' is not a listening socket"],
      ["name", "File descriptor named 'name' has not been found"],
    ];
    for (const [str, message] of wrong) {
      const addr = { transport: "socket", type: "fd", str };
      const vmm = lab.start(`new-${str}`, {
        options: [
          "-incoming",
          "defer",
          "-incoming",
          JSON.stringify({ "channel-type": "cpr", addr }),
        ],
      });
      assert.deepEqual(await vmm.ended(), { code: 1 });
      assert.equal(vmm.output, `denovo: ${message}\n`);
    }
  },
);

kvmTest("QEMU's case 3: cpr-transfer, `migrate-incoming` with the main channel alone", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await source(lab);
  const { vmm, channels } = await startSuccessor(lab, "new", {
    options: SHARED,
    incoming: "defer",
  });
  await beginTransfer(qmp, channels);
  const next = await (await lab.monitor(vmm)).withEvents();
  assert.equal(await next.runState(), "inmigrate");
  await qmp.assertGuestRuns();
  await next.execute("migrate-incoming", { channels: channels.slice(0, 1) });
  await next.logged("MIGRATION completed");
  assert.deepEqual(events(next), successorLog);
  await qmp.logged("MIGRATION completed");
  assert.deepEqual(qmp.log.filter((entry, i) => entry !== "reply" || i < 2), transferLog);
  await assertPrints(lab);
  await assertSuccess(lab, next);
});

kvmTest(
  "case 3 with wrong lists in `migrate-incoming` is refused, and the right one works",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await source(lab);
    const { vmm, channels } = await startSuccessor(lab, "new", {
      options: SHARED,
      incoming: "defer",
    });
    await beginTransfer(qmp, channels);
    const next = await lab.monitor(vmm);
    const onlyMain = "Channel list must have only one entry, for type 'main'";
    const wrong: [args: object, message: string][] = [
      [{}, "need either 'uri' or 'channels' argument"],
      [{ channels: [] }, "need either 'uri' or 'channels' argument"],
      [{ uri: "nope" }, "unknown migration protocol: nope"],
      [{ channels }, onlyMain],
      [{ channels: channels.slice(1) }, onlyMain],
      [
        { uri: "unix:/nonexistent/x" },
        "Failed to bind socket to /nonexistent/x: No such file or directory",
      ],
      [{ uri: "file:/nonexistent" }, "Could not open '/nonexistent': No such file or directory"],
    ];
    for (const [args, message] of wrong) {
      assert.equal(await next.refusal("migrate-incoming", args), message);
      assert.equal(await next.runState(), "inmigrate");
    }
    assert.deepEqual(await qmp.migration(), { status: "setup" });
    await qmp.assertGuestRuns();
    await next.execute("migrate-incoming", { channels: channels.slice(0, 1) });
    await next.reaches("running");
    await assertSuccess(lab, next);
  },
);

/** The options of the source, to be executed again in its place. */
const again = (vmm: Vmm, incoming: string) => [...program, ...vmm.options, "-incoming", incoming];

kvmTest("QEMU's case 4: cpr-exec of the same program, deferred, on the same console", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await source(lab);
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, again(vmm, "defer"));
  qmp.log.length = 0;
  await qmp.execute("migrate", { uri });
  await qmp.closed();
  assert.deepEqual(qmp.log, execLog);
  const next = await (await lab.monitorAtOnce(vmm)).withEvents();
  assert.equal(vmm.child.poll(), undefined, "The process is the same");
  assert.equal(await next.runState(), "inmigrate");
  await next.execute("migrate-incoming", {
    channels: [{
      "channel-type": "main",
      addr: {
        transport: "file",
        filename: lab.path("state"),
        offset: 0,
      },
    }],
  });
  await next.logged("MIGRATION completed");
  assert.deepEqual(events(next), successorLog);
  await assertPrints(lab);
  await assertSuccess(lab, next);
});

kvmTest("case 4 goes on in a chain, and with wrong settings in between", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await source(lab);
  const uri = `file:${lab.path("state")}`;
  let monitor = qmp;
  for (let update = 0; update < 3; update++) {
    await monitor.execute("migrate-set-parameters", { mode: "cpr-exec" });
    // Parameters are back at their defaults in each successor: the command is not set.
    assert.equal(
      await monitor.refusal("migrate", { uri }),
      "cpr-exec mode requires setting cpr-exec-command",
    );
    await setExec(monitor, again(vmm, "defer"));
    assert.equal(
      await monitor.refusal("migrate", {}),
      "need either 'uri' or 'channels' argument",
    );
    await monitor.execute("migrate", { uri });
    await monitor.closed();
    monitor = await lab.monitorAtOnce(vmm);
    await monitor.execute("migrate-incoming", { uri });
    await monitor.reaches("running");
  }
  await assertSuccess(lab, monitor);
});
