/** Stopping and going on, whatever the guest is in the middle of. */
import assert from "node:assert/strict";
import { enterOnce } from "../../vmm/threads/first_entry.ts";
import { layout, type ProgramName } from "../guests/programs.ts";
import { instructionAddress } from "../../vmm/view/registers.ts";
import { kvmTest, sleep, still, TestVm, until } from "./harness.ts";

const ROUNDS = 20;

/** Modes of `exits` in which it counts, and can be told to go on to another one. */
const countingModes = [..."prsmlhPRSML"];

kvmTest("`stop()` holds a guest still in the middle of any kind of exit", async () => {
  await using test = await TestVm.start({ program: "exits" });
  for (const mode of countingModes) {
    test.setWord(layout.mode, mode.charCodeAt(0));
    for (let round = 0; round < ROUNDS; round++) {
      await test.grown(layout.counter);
      await test.assertStandsStill([layout.counter, layout.ticks]);
      assert.equal(test.vm.runState, "paused", mode);
      test.vm.cont();
    }
  }
  assert.equal(test.text, "");
  assert.deepEqual(test.notices, []);
});

for (const mode of ["t", "T", "d"]) {
  kvmTest(`\`stop()\` holds a guest that never exits by itself, in mode ${mode}`, async () => {
    await using test = await TestVm.start({ program: "exits", append: `mode=${mode}` });
    // No counter tells that it came there: it has when it is stopped in the same two places, the
    // loop's instructions, over and over.
    const [vcpu] = test.vm.machine.hardware.vcpus;
    const stops: bigint[] = [];
    const places = () => new Set(stops.slice(-ROUNDS));
    const looping = () => {
      test.vm.stop();
      assert.equal(test.vm.runState, "paused");
      stops.push(instructionAddress(vcpu));
      test.vm.cont();
      return stops.length >= ROUNDS && places().size <= 2;
    };
    await until(looping, () => `mode ${mode}, stopped at ${[...places()]}`);
    test.vm.stop();
  });
}

for (const program of ["counter_cpl0", "counter_cpl3"] satisfies ProgramName[]) {
  kvmTest(`registers, memory and clocks of ${program} survive 50 stops`, async () => {
    await using test = await TestVm.start({ program });
    for (let round = 0; round < 50; round++) {
      await test.grown(layout.counter);
      await test.assertStandsStill([layout.counter, layout.ticks, layout.pitTicks]);
      test.vm.cont();
      test.assertUnharmed();
    }
    // Timer and PIT interrupts go on after all of this.
    await test.grown(layout.pitTicks);
    await test.grown(layout.ticks);
    await test.grown(layout.counter);
    test.assertUnharmed();
    await test.printed("tick 1\n");
  });
}

kvmTest("`stop()` holds at any time while the vCPU threads are still starting", async () => {
  for (let delay = 0; delay < 60; delay += 2) {
    await using test = await TestVm.create({ program: "counter_cpl0" });
    const start = performance.now();
    // Without the event loop in between, where that is the other side of the race.
    while (performance.now() < start + delay) void delay;
    test.vm.start();
    test.vm.stop();
    await sleep(20);
    await test.assertStandsStill([layout.counter, layout.ticks]);
    test.vm.cont();
    await test.grown(layout.counter);
  }
});

kvmTest("a vCPU that was made ready stands still until it shall run, park or end", async () => {
  await using test = await TestVm.start({ program: "counter_cpl3" });
  const { machine } = test.vm;
  await test.grown(layout.counter);
  for (let round = 0; round < 20; round++) {
    test.vm.stop();
    machine.makeReady();
    // For longer, or not, than it waits awake.
    if (round % 2 === 0) await test.assertStandsStill([layout.counter, layout.ticks]);
    if (round % 4 === 1) machine.park();
    await test.assertStandsStill([layout.counter, layout.ticks]);
    test.vm.cont();
    await test.grown(layout.counter);
  }
  test.assertUnharmed();
  test.vm.stop();
  machine.makeReady();
});

kvmTest("`enterOnce()` runs vCPUs and leaves the machine as it was", async () => {
  for (const cpus of [1, 2]) {
    await using test = await TestVm.create({ program: "smp", cpus });
    const { machine } = test.vm;
    await machine.threadsStarted();
    const before = still(test.vm);
    const entered = machine.vcpus.map(({ control }) => control.enteredNs);
    // Twice: the page's memory slot is free again.
    for (let round = 0; round < 2; round++) enterOnce(machine);
    assert.deepEqual(still(test.vm), before);
    machine.vcpus.forEach(({ control }, i) => assert.ok(control.enteredNs > entered[i]));
    test.vm.start();
    await test.printed(`cpus ${cpus}\n`);
  }
});

kvmTest("`stop()` and `cont()` lose no input and no output of a busy console", async () => {
  await using test = await TestVm.start({ program: "demo" });
  await test.printed("capitals\n");
  const lines = Array.from({ length: 30 }, (_, i) => `line ${i} with some more text`);
  for (const line of lines) {
    // In two parts, so that the guest is stopped, and goes on, with half a line received.
    test.type(line.slice(0, 9));
    test.vm.stop();
    test.type(line.slice(9));
    await sleep(1);
    test.vm.cont();
    test.vm.stop();
    test.vm.cont();
    test.type("\n");
    await test.printed(`you said: ${line.toUpperCase()}\n`);
  }
  const said = test.text.split("\n").filter((line) => line.startsWith("you said: "));
  assert.deepEqual(said, lines.map((line) => `you said: ${line.toUpperCase()}`));
  test.assertUnharmed();
});

kvmTest("`stop()` and `cont()` stop and start all vCPUs a thousand times", async () => {
  await using test = await TestVm.start({ program: "smp", cpus: 2 });
  await test.printed("cpus 2\n");
  for (let round = 0; round < 1000; round++) {
    test.vm.stop();
    test.vm.cont();
  }
  await test.grown(layout.cpuRecords);
  await test.grown(layout.cpuRecords + layout.cpuRecordSize);
  test.assertUnharmed();
  assert.equal(test.events.length, 2001);
});
