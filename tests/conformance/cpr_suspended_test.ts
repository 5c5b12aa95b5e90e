/** A guest that sleeps, and a press of the button that it has not heard of, through every mode. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory } from "./program.ts";
import { Chain, FifoConsole, modes } from "./updates.ts";

const guest = "acpi";

kvmTest("a guest that sleeps arrives asleep in each mode, and is woken there", async () => {
  await using lab = await Laboratory.open();
  using console = await FifoConsole.open(lab.path("console"));
  const chain = await Chain.start(lab, { guest, serial: console.serial });
  await console.printed("acpi 1\n");
  for (const mode of modes) {
    await console.type("s");
    await chain.qmp.reaches("suspended");
    await chain.update(mode, { arrives: "suspended" });
    const from = console.text.length;
    await chain.qmp.execute("system_wakeup");
    await console.printed("awake\n", from);
  }
  assert.equal(
    await chain.qmp.refusal("system_wakeup"),
    "Unable to wake up: guest is not in suspended state",
  );
  const from = console.text.length;
  await chain.qmp.execute("system_powerdown");
  await console.printed("button 2\n", from);
});

kvmTest("a press of the power button that the guest has not taken arrives with it", async () => {
  await using lab = await Laboratory.open();
  using console = await FifoConsole.open(lab.path("console"));
  const chain = await Chain.start(lab, { guest, serial: console.serial });
  await console.printed("acpi 1\n");
  for (const mode of modes) {
    const from = console.text.length;
    await chain.qmp.execute("stop");
    await chain.qmp.execute("system_powerdown");
    await chain.update(mode, { arrives: "paused" });
    await chain.qmp.execute("cont");
    await console.printed("button 2\n", from);
  }
});
