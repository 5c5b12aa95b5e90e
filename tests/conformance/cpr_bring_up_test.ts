/** Live updates while the guest starts its processors. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kvmTest, Laboratory } from "./program.ts";
import { assertCounts, assertUnharmed, Chain, FifoConsole, modes } from "./updates.ts";

const places = ["off", "init", "real", "protected", "long", "halted"];

for (const cpus of [2, 4]) {
  for (const mode of modes) {
    kvmTest(`${mode} may come at any point of the start of ${cpus} vCPUs`, async () => {
      await using lab = await Laboratory.open();
      using console = await FifoConsole.open(lab.path("console"));
      const options = ["-smp", `${cpus}`, "-append", `mode=${cpus}`];
      const chain = await Chain.start(lab, { guest: "bring_up", options, serial: console.serial });
      for (const place of places) {
        await console.printed(`${place}\n`);
        await chain.update(mode);
        await console.type("k");
      }
      await console.printed("storm\n");
      for (let update = 0; update < 3; update++) {
        await assertCounts(chain.qmp, layout.counter);
        await chain.update(mode);
      }
      await assertCounts(chain.qmp, layout.counter);
      await console.type("k");
      await console.printed("done\n");
      await assertUnharmed(chain.qmp);
      assert.equal(console.text.replaceAll("\n", " "), `${places.join(" ")} storm done `);
    });
  }
}
