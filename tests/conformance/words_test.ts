/** What went wrong is said of what the user has named, not of what the VMM calls it. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory } from "./program.ts";

kvmTest("memory that cannot be written names its file", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  assert.equal(
    await qmp.refusal("pmemsave", { val: 0, size: 4096, filename: "/dev/full" }),
    "writing memory to '/dev/full' failed: No space left on device",
  );
});

kvmTest("a state that cannot be read names its file", async () => {
  await using lab = await Laboratory.open();
  const vmm = lab.start("vmm", { options: ["-incoming", `file:${lab.folder}`] });
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.equal(
    vmm.output,
    `denovo: load of migration failed: Unable to read from '${lab.folder}': Is a directory\n`,
  );
});

for (const memory of [128, 32]) {
  kvmTest(`a restore with -m ${memory} says both sizes`, async () => {
    await using lab = await Laboratory.open();
    const uri = `file:${lab.path("state")}`;
    const { qmp } = await lab.run("vmm");
    await qmp.execute("migrate", { uri });
    await qmp.logged("MIGRATION completed");
    const next = lab.start("next", { memory, options: ["-incoming", uri] });
    assert.deepEqual(await next.ended(), { code: 1 });
    assert.equal(
      next.output,
      "denovo: load of migration failed: Machine differs: " +
        `this VM has memory ${memory << 20}, the saved VM has memory ${64 << 20}\n`,
    );
  });
}
