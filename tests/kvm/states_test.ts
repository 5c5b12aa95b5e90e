/** Run states, the events that tell of them, and what leads from one to another. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kvmTest, sleep, TestVm, until } from "./harness.ts";

kvmTest("`startPaused` leaves the guest in prelaunch until `cont()`", async () => {
  await using test = await TestVm.start({ program: "counter_cpl0", startPaused: true });
  assert.equal(test.vm.runState, "prelaunch");
  await sleep(20);
  assert.equal(test.word(layout.counter), 0);
  assert.deepEqual(test.eventNames, []);
  test.vm.cont();
  assert.equal(test.vm.runState, "running");
  await test.grown(layout.counter);
  assert.deepEqual(test.eventNames, ["RESUME"]);
});

kvmTest("events come in order, once each, with QEMU's data", async () => {
  await using test = await TestVm.start({ program: "counter_cpl0" });
  const { vm } = test;
  await test.grown(layout.counter);
  vm.cont();
  vm.stop();
  vm.stop();
  vm.cont();
  vm.reset();
  vm.powerdown();
  vm.stop();
  vm.reset();
  vm.quit();
  vm.quit();
  assert.equal(await test.ended(), 0);
  assert.deepEqual(
    test.events.map(({ name, data }) => data ? [name, data] : [name]),
    [
      ["RESUME"],
      ["STOP"],
      ["RESUME"],
      ["RESET", { guest: false, reason: "host-qmp-system-reset" }],
      ["POWERDOWN"],
      ["STOP"],
      ["RESET", { guest: false, reason: "host-qmp-system-reset" }],
      ["SHUTDOWN", { guest: false, reason: "host-qmp-quit" }],
    ],
  );
  const times = test.events.map(({ timestamp: t }) => t.seconds * 1e6 + t.microseconds);
  assert.deepEqual(times, times.toSorted((a, b) => a - b));
  assert.ok(test.events.every(({ timestamp: { microseconds } }) => microseconds < 1e6));
});

kvmTest("`reset()` boots the guest again, and leaves a stopped one stopped", async () => {
  await using test = await TestVm.start({ program: "demo" });
  await test.printed("capitals\n");
  test.vm.reset();
  await test.printed("capitals\n", 2);
  test.vm.stop();
  test.vm.reset();
  assert.equal(test.vm.runState, "paused");
  await sleep(20);
  assert.equal(test.text.split("capitals\n").length - 1, 2);
  test.vm.cont();
  await test.printed("capitals\n", 3);
});

kvmTest("`reset()` takes all vCPUs back to where they started, at any time", async () => {
  await using test = await TestVm.start({ program: "smp", cpus: 2 });
  for (let boot = 1; boot <= 5; boot++) {
    await test.printed("cpus 2\n", boot);
    await test.grown(layout.cpuRecords + layout.cpuRecordSize);
    test.vm.reset();
  }
  await test.printed("cpus 2\n", 6);
  test.assertUnharmed();
});

/** QEMU's first lines; suberror 1 is an instruction that KVM cannot emulate. */
const INTERNAL_ERROR = /^KVM internal error\. Suberror: 1\nextra data\[0\]: 0x[0-9a-f]{16}\n/;

kvmTest("an instruction that KVM cannot emulate stops the VM and dumps its registers", async () => {
  await using test = await TestVm.start({ program: "badop" });
  let status: number | undefined;
  test.vm.exited.then((value) => status = value);
  await test.printed("badop\n");
  await until(() => !test.vm.running, () => "the guest to fail");
  // A KVM that runs kernel mode on the CPU delivers the exception, and the guest exits.
  if (status !== undefined) return assert.equal(status, (2 * 0x83 + 1) & 0xff);
  assert.equal(test.vm.runState, "internal-error");
  assert.deepEqual(test.eventNames, ["RESUME", "STOP"]);
  assert.equal(test.notices.length, 1);
  assert.match(test.notices[0], INTERNAL_ERROR);
  assert.match(test.notices[0], /\nRAX=[0-9a-f]{16} RBX=/);
  assert.match(test.notices[0], /\nCode=<cc>( [0-9a-f]{2}){15}$/);

  assert.throws(() => test.vm.cont(), /^Error: Resetting the Virtual Machine is required$/);
  assert.equal(test.vm.runState, "internal-error");
  test.vm.stop();
  assert.equal(test.vm.runState, "internal-error");
  test.vm.reset();
  assert.equal(test.vm.runState, "paused");
  assert.equal(test.text, "badop\n");
  test.vm.cont();
  await test.printed("badop\n", 2);
  await test.reaches("internal-error");
  assert.equal(test.notices.length, 2);
});

kvmTest("`injectNmi()` interrupts every vCPU, whether or not the guest runs", async () => {
  for (const stopped of [false, true]) {
    await using test = await TestVm.start({ program: "counter_cpl0" });
    await test.grown(layout.counter);
    if (stopped) test.vm.stop();
    test.vm.injectNmi();
    assert.equal(test.vm.running, !stopped);
    if (stopped) test.vm.cont();
    // The program takes it for what it did not expect: exception 2.
    assert.equal(await test.ended(), (2 * 0x82 + 1) & 0xff);
    assert.equal(test.word(layout.check), 0x102);
    assert.match(test.text, /exception 0x2 at 0x/);
  }
});

kvmTest("`close()` ends a running VM and resolves `exited`", async () => {
  const test = await TestVm.start({ program: "counter_cpl3" });
  await test.grown(layout.counter);
  await test[Symbol.asyncDispose]();
  assert.equal(await test.vm.exited, 0);
  assert.equal(test.vm.runState, "shutdown");
  await test.vm.close();
});

kvmTest("`close()` ends a VM that was never started", async () => {
  const test = await TestVm.create({ program: "counter_cpl3", cpus: 2 });
  await test[Symbol.asyncDispose]();
  assert.equal(await test.vm.exited, 0);
});
