/** Every guest program, from its start to what it prints and how it ends. */
import assert from "node:assert/strict";
import { describeCheck, layout, programs } from "../guests/programs.ts";
import { testAccelerator } from "../needs_kvm.ts";
import { kvmTest, TestVm, until } from "./harness.ts";
import { Probe } from "./probe.ts";

const MIB = 2 ** 20;

kvmTest("`start()` runs a guest to the exit status that it chose", async () => {
  await using test = await TestVm.start({ program: "hello" });
  assert.equal(await test.ended(), 0x21);
  assert.equal(test.text, "hello from denovo\n");
  assert.deepEqual(test.eventNames, ["RESUME"]);
});

kvmTest(
  "`start()` ends with SHUTDOWN when a guest without a debug exit triple-faults",
  async () => {
    await using test = await TestVm.start({ program: "hello", debugExit: false, noReboot: true });
    assert.equal(await test.ended(), 0);
    assert.equal(test.text, "hello from denovo\n");
    assert.equal(test.events.at(-1)?.name, "SHUTDOWN");
  },
);

kvmTest("the serial port is a 16550A when the guest checks it register by register", async () => {
  await using test = await TestVm.start({ program: "uart" });
  const status = await test.ended();
  assert.equal(test.text, "uart: ok\n");
  assert.equal(status, 1);
});

kvmTest("compute prints a letter after each batch of work", async () => {
  for (const mode of ["p", "x"]) {
    await using test = await TestVm.start({ program: "compute", append: `mode=${mode}` });
    await test.printed(mode === "p" ? "pppp" : "?");
    assert.match(test.text, mode === "p" ? /^p+$/ : /^\?$/);
  }
});

kvmTest("both vCPUs verify themselves in user mode", async () => {
  await using test = await TestVm.start({ program: "steady_cpl3", cpus: 2 });
  await test.printed("steady 2");
  const ticks = layout.steadyRecords + 16;
  await until(
    () => [0, 1].every((cpu) => test.word(ticks + cpu * layout.steadyRecordSize) > 5),
    () => `timer interrupts on both vCPUs; the guest said: ${test.text}`,
  );
  assert.equal(describeCheck(test.word(layout.check)), "no error", test.text);
});

kvmTest("`bios` starts at the reset vector and reaches long mode", async () => {
  await using test = await TestVm.start({ program: "modes" });
  assert.equal(await test.ended(), 1);
  assert.equal(test.text, "real\nprotected\nlong\n");
});

/** MiB in all, from 0 and from 4 GiB; the software CPU has room for less. */
const memories = testAccelerator === "tcg"
  ? [[4, 4, 0], [64, 64, 0], [3072, 3072, 0], [3584, 3072, 512]]
  : [[4, 4, 0], [64, 64, 0], [3072, 3072, 0], [5120, 3072, 2048]];

for (const [memory, low, high] of memories) {
  kvmTest(`${memory} MiB of RAM are ${low} MiB from 0 and ${high} MiB from 4 GiB`, async () => {
    await using test = await TestVm.start({ program: "memory", memory: memory * MIB });
    const status = await test.ended();
    assert.equal(test.text, `memory: ok ${low} ${high}\n`);
    assert.equal(status, 1);
  });
}

kvmTest("the software CPU says how much RAM it can have", async () => {
  await assert.rejects(
    TestVm.create({ program: "memory", memory: 5120 * MIB, accelerators: ["tcg"] }),
    {
      message:
        "Memory of 5368709120 bytes is too much for the software CPU, it can have 4026531840",
    },
  );
});

kvmTest("the RTC tells the host's time and interrupts at 1024 Hz", async () => {
  const before = Math.floor(Date.now() / 1000);
  await using test = await TestVm.start({ program: "rtc", machine: { rtc: true } });
  const status = await test.ended();
  const [, time] = /^rtc: (.*)\nrtc: irqs ok\n$/.exec(test.text) ?? assert.fail(test.text);
  assert.equal(status, 1);
  const told = Date.parse(`${time.replace(" ", "T")}Z`) / 1000;
  assert.ok(told >= before && told <= Date.now() / 1000, `${time} is not now`);
});

kvmTest("a loader stores values and files as they are, beside a kernel", async () => {
  const path = await Deno.makeTempFile();
  await Deno.writeFile(path, programs.hello.bytes);
  await using probe = await Probe.start({
    loaders: [
      { addr: 0x30_0000, data: 0x1122_3344_5566_7788n, dataLen: 8, dataBe: true },
      { addr: 0x30_0010, data: 0x55n, dataLen: 2 },
      { addr: 0x31_0000, file: path, forceRaw: true },
    ],
  });
  await Deno.remove(path);
  assert.deepEqual(await probe.load(0x30_0000, 8), [
    0x11,
    0x22,
    0x33,
    0x44,
    0x55,
    0x66,
    0x77,
    0x88,
  ]);
  assert.deepEqual(await probe.load(0x30_0010, 2), [0x55, 0]);
  assert.deepEqual(await probe.load(0x31_0000, 4), [0x7f, 0x45, 0x4c, 0x46]);
});

kvmTest(
  "`memPath` and `memPrealloc` make the machine's own RAM, which a successor can map",
  async () => {
    const memPath = await Deno.makeTempDir();
    await using test = await TestVm.start({ program: "hello", memPath, memPrealloc: true });
    assert.equal(await test.ended(), 0x21);
    const [{ config, fd }] = [...test.vm.backends.values()];
    assert.equal(config.share, true);
    // All of it is there, in a file that has no name any more.
    const { blocks, size } = await Deno.stat(`/proc/self/fd/${fd!.fd}`);
    assert.equal(size, 64 * MIB);
    assert.ok(blocks! * 512 >= size, `${blocks} blocks`);
    assert.deepEqual([...Deno.readDirSync(memPath)], []);
    await Deno.remove(memPath);
  },
);

kvmTest("without a PIC no interrupt reaches a guest that has set one up", async () => {
  await using test = await TestVm.start({ program: "rtc", machine: { rtc: true, pic: false } });
  const status = await test.ended();
  assert.match(test.text, /\nrtc: irqs fail 0\n$/);
  assert.equal(status, 3);
});

kvmTest("a triple fault resets the machine, again and again", async () => {
  await using test = await TestVm.start({ program: "triple" });
  await test.resets(3);
  assert.equal(test.vm.runState, "running");
  assert.deepEqual(test.events[1].data, { guest: true, reason: "guest-reset" });
});

kvmTest("a triple fault ends the VM when `noReboot` is set", async () => {
  await using test = await TestVm.start({ program: "triple", noReboot: true });
  assert.equal(await test.ended(), 0);
  assert.deepEqual(test.eventNames, ["RESUME", "SHUTDOWN"]);
  assert.deepEqual(test.events[1].data, { guest: true, reason: "guest-reset" });
});

kvmTest("a triple fault stops the VM when `noReboot` and `noShutdown` are set", async () => {
  await using test = await TestVm.start({ program: "triple", noReboot: true, noShutdown: true });
  await test.reaches("shutdown");
  assert.deepEqual(test.eventNames, ["RESUME", "STOP", "SHUTDOWN"]);
  assert.throws(() => test.vm.cont(), /^Error: Resetting the Virtual Machine is required$/);
});

kvmTest("a guest that resets itself boots again with its RAM as it left it", async () => {
  await using test = await TestVm.start({ program: "reset" });
  assert.equal(await test.ended(), 1);
  assert.equal(test.text, "boot 1\nboot 2\nboot 3\n");
  assert.deepEqual(test.eventNames, ["RESUME", "RESET", "RESET"]);
  assert.equal(test.word(layout.boots), 0);
});

kvmTest("a jump to real mode's reset vector resets the machine", async () => {
  await using test = await TestVm.start({ program: "reset_vector" });
  assert.equal(await test.ended(), 1);
  assert.deepEqual(test.eventNames, ["RESUME", "RESET", "RESET"]);
});

for (const cpus of [1, 2, 4]) {
  kvmTest(`${cpus} vCPUs all come up and count, and all stand still when stopped`, async () => {
    await using test = await TestVm.start({ program: "smp", cpus });
    await test.printed(`cpus ${cpus}\n`);
    assert.equal(test.word(layout.cpus), cpus);
    const counters = Array.from(
      { length: cpus },
      (_, id) => layout.cpuRecords + id * layout.cpuRecordSize,
    );
    for (let round = 0; round < 10; round++) {
      for (const counter of counters) await test.grown(counter);
      await test.assertStandsStill(counters);
      test.vm.cont();
    }
    test.assertUnharmed();
  });
}

kvmTest("`dirty` writes to every page of its memory, pass after pass, over a stop", async () => {
  await using test = await TestVm.start({ program: "dirty", memory: 80 * MIB });
  const last = layout.dirty + layout.dirtyBytes - 4096;
  const passes = async (least: number) =>
    await until(() => test.word(last) >= least, () => `pass ${least}: ${test.word(last)}`);
  await passes(2);
  await test.assertStandsStill([layout.counter, layout.dirty, last]);
  assert.ok(test.word(layout.dirty) - test.word(last) <= 1);
  const before = test.word(last);
  test.vm.cont();
  await passes(before + 2);
  test.assertUnharmed();
});

kvmTest("the demo answers, tells its gap, resets and quits", async () => {
  await using test = await TestVm.start({ program: "demo", machine: { pit: false, pic: false } });
  await test.printed("capitals\n");
  test.type("hello\n");
  await test.printed("you said: HELLO\n");
  test.type("gap\n");
  await test.printed("longest gap: ");
  await test.printed("tick 1\n");
  assert.ok(test.word(layout.clockNs) > 0);
  test.type("reset\n");
  await test.printed("capitals\n", 2);
  test.assertUnharmed();
  test.type("quit\n");
  assert.equal(await test.ended(), 1);
  assert.deepEqual(test.eventNames, ["RESUME", "RESET"]);
});
