/**
 * What a live update leaves of the guest: everything. The guest `steady` verifies registers, memory,
 * clocks, timers and the console itself, on every vCPU, and stops with a message when it is harmed.
 */
import assert from "node:assert/strict";
import { kvmTest, Laboratory } from "./program.ts";
import {
  assertSteady,
  assertUnharmed,
  Chain,
  EchoTypist,
  FifoConsole,
  modes,
  steadyAddress,
  words,
} from "./updates.ts";

for (const guest of ["steady_cpl0", "steady_cpl3"] as const) {
  for (const cpus of [1, 2, 4]) {
    kvmTest(`${guest} on ${cpus} vCPUs goes on unharmed through each mode`, async () => {
      await using lab = await Laboratory.open();
      using console = await FifoConsole.open(lab.path("console"));
      const options = ["-smp", `${cpus}`];
      const chain = await Chain.start(lab, { guest, options, serial: console.serial });
      await console.printed(`steady ${cpus}\n`);
      using typist = new EchoTypist(console);
      await assertSteady(chain.qmp, cpus);
      for (const mode of modes) {
        await chain.update(mode);
        await assertSteady(chain.qmp, cpus);
        await typist.echoes();
      }
      await typist.finish();
      assert.equal(chain.vmm.output, "");
    });
  }
}

for (const cpus of [1, 2]) {
  kvmTest(
    `a guest on ${cpus} vCPUs that halts between ticks goes on through each mode`,
    async () => {
      await using lab = await Laboratory.open();
      using console = await FifoConsole.open(lab.path("console"));
      const options = ["-smp", `${cpus}`, "-append", "mode=h"];
      const chain = await Chain.start(lab, {
        guest: "steady_cpl0",
        options,
        serial: console.serial,
      });
      await console.printed(`steady ${cpus}\n`);
      for (const mode of modes) {
        await chain.update(mode);
        await assertSteady(chain.qmp, cpus);
      }
    },
  );
}

kvmTest(
  "a guest that sleeps without a timer is woken by input alone, after each mode",
  async () => {
    await using lab = await Laboratory.open();
    using console = await FifoConsole.open(lab.path("console"));
    const options = ["-smp", "2", "-append", "mode=i"];
    const chain = await Chain.start(lab, { guest: "steady_cpl0", options, serial: console.serial });
    await console.printed("steady 2\n");
    const wakeUps = () => words(chain.qmp, [0, 1].map((cpu) => steadyAddress(cpu, "counter")));
    while ((await wakeUps()).includes(0));
    for (const [number, mode] of modes.entries()) {
      const asleep = await wakeUps();
      await chain.update(mode);
      assert.deepEqual(await wakeUps(), asleep, `${mode} woke a halted vCPU`);
      await console.type(`${number}`);
      await console.printed(`${number}`, "steady 2\n".length);
      // The last CPU takes the interrupt; the other one sleeps on.
      while ((await wakeUps())[1] === asleep[1]);
      assert.equal((await wakeUps())[0], asleep[0]);
    }
    assert.equal(console.text, "steady 2\n012");
    await assertUnharmed(chain.qmp);
  },
);
