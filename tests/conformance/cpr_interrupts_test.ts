/** Interrupts that are pending during a live update come after it, once each. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory } from "./program.ts";
import { assertUnharmed, Chain, FifoConsole, modes } from "./updates.ts";

/** What `pending` says when an interrupt is pending, in order. */
const announcements = [
  "timer",
  "fired",
  "deadline",
  "rested",
  "service",
  "tpr",
  "typed",
  "pic",
  "masked",
  "nmi",
];

for (const mode of modes) {
  kvmTest(`interrupts that are pending during ${mode} come once each`, async () => {
    await using lab = await Laboratory.open();
    using console = await FifoConsole.open(lab.path("console"));
    const chain = await Chain.start(lab, {
      guest: "pending",
      options: ["-machine", "microvm,rtc=on"],
      serial: console.serial,
    });
    for (const name of announcements) {
      if (name === "typed") {
        await console.printed("type\n");
        await console.type("x");
      }
      if (name === "nmi") {
        await console.printed("inject\n");
        await chain.qmp.execute("inject-nmi");
      }
      await console.printed(`${name}\n`);
      // While one is in service the next one waits: it travels too.
      if (name === "nmi") await chain.qmp.execute("inject-nmi");
      await chain.update(mode);
      await console.type("k");
    }
    await console.printed("done\n");
    await assertUnharmed(chain.qmp);
    const order = announcements.join(" ").replace("typed", "type typed").replace(
      "nmi",
      "inject nmi",
    );
    assert.equal(console.text.replaceAll("\n", " "), `${order} done `);
  });
}
