/** Virtio devices over live updates: no request is lost, and none is done twice. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kvmTest, Laboratory } from "./program.ts";
import { assertCounts, assertUnharmed, Chain, modes } from "./updates.ts";

for (const packed of ["off", "on"]) {
  kvmTest(`requests to the entropy device go on through each mode, packed: ${packed}`, async () => {
    await using lab = await Laboratory.open();
    const options = ["-device", `virtio-rng-device,packed=${packed}`];
    const chain = await Chain.start(lab, { guest: "virtio_rng", options });
    await lab.printed("rng at irq 47\n");
    for (const mode of modes) {
      await assertCounts(chain.qmp, layout.counter);
      await chain.update(mode);
    }
    await assertCounts(chain.qmp, layout.counter);
    await chain.qmp.execute("stop");
    await assertUnharmed(chain.qmp);
    assert.equal(lab.serialText.includes("FAIL"), false, lab.serialText);
  });
}
