/** `migrate_cancel` while a guest's RAM is copied. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory } from "../conformance/program.ts";
import { assertRunsIn, GuestMemory } from "./faults.ts";

const MIB = 1 << 20;
/** RAM that is not empty. */
const FULL_MIB = 256;
/** Takes it slowly: its copy would last for much longer than anything that is waited for here. */
const TAKE =
  "i=0; while [ $i -lt 10000 ]; do head -c 65536 >/dev/null; sleep 0.1; i=$((i+1)); done";
/** Where it begins: behind what the guest itself uses. */
const FULL_AT = 32 * MIB;

for (const mode of ["cpr-reboot", "normal"]) {
  kvmTest(`${mode} is cancelled while a large guest's RAM is copied`, async () => {
    await using lab = await Laboratory.open();
    Deno.writeFileSync(lab.path("full"), new Uint8Array(FULL_MIB * MIB).fill(0x5a));
    const { vmm, qmp } = await lab.run("vmm", {
      memory: 512,
      options: ["-device", `loader,file=${lab.path("full")},addr=${FULL_AT}`],
    });
    using memory = GuestMemory.of(vmm.child.pid);
    assert.equal(memory.word(FULL_AT + FULL_MIB * MIB - 8), 0x5a5a5a5a5a5a5a5an);
    await qmp.execute("migrate-set-parameters", { mode });
    for (let attempt = 0; attempt < 2; attempt++) {
      qmp.log.length = 0;
      await qmp.execute("migrate", { uri: `exec:${TAKE}` });
      await qmp.logged("MIGRATION_PASS");
      await qmp.execute("migrate_cancel");
      await qmp.logged("MIGRATION cancelled");
      assert.deepEqual(qmp.log.filter((entry) => entry !== "reply"), [
        ...["MIGRATION setup", "STOP", "MIGRATION active", "MIGRATION_PASS"],
        ...["MIGRATION cancelling", "RESUME", "MIGRATION cancelled"],
      ]);
      await assertRunsIn(qmp, memory);
    }
    const uri = `file:${lab.path("state")}`;
    await qmp.execute("migrate", { uri });
    await qmp.logged("MIGRATION completed");
    const options = ["-incoming", uri];
    const next = await lab.run("next", { memory: 512, options });
    using copy = GuestMemory.of(next.vmm.child.pid);
    assert.equal(copy.word(FULL_AT + FULL_MIB * MIB - 8), 0x5a5a5a5a5a5a5a5an);
    await assertRunsIn(next.qmp, copy);
  });
}
