/** Guest memory whose file is cut off while the guest runs. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory, onlyKvmTest } from "../conformance/program.ts";

const LOST = "No memory is behind guest RAM 'm': ";

// The software CPU touches memory directly: there the host ends the VMM.
onlyKvmTest("a guest whose memory's file is cut off is stopped, and the VMM says why", async () => {
  await using lab = await Laboratory.open();
  const ram = lab.path("ram");
  const { vmm, qmp } = await lab.run("vmm", {
    options: [
      ...["-object", `memory-backend-file,id=m,size=64M,mem-path=${ram},share=on`],
      ...["-machine", "microvm,memory-backend=m"],
    ],
  });
  await qmp.assertGuestRuns();
  Deno.truncateSync(ram, 0);
  await vmm.said(LOST);
  await qmp.reaches("internal-error");
  for (const command of ["xp /1gx 0x200000", "x /1gx 0x200000"]) {
    assert.ok((await qmp.hmp(command)).startsWith(`Error: ${LOST}`), command);
  }
  const dump = { val: 0, size: 4096, filename: lab.path("dump") };
  assert.ok((await qmp.refusal("pmemsave", dump)).startsWith(LOST));
  await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
  await qmp.logged("MIGRATION failed");
  assert.ok((await qmp.migration())["error-desc"]?.startsWith(LOST));
  assert.equal(await qmp.runState(), "internal-error");
  assert.equal(await qmp.refusal("cont"), "Resetting the Virtual Machine is required");
  assert.ok((await qmp.refusal("system_reset")).startsWith(LOST));
  assert.equal(await qmp.runState(), "internal-error");
  await qmp.execute("quit");
  assert.deepEqual(await vmm.ended(), { code: 0 });
});

kvmTest("a guest whose kernel is gone at its reset is stopped, and the VMM says why", async () => {
  await using lab = await Laboratory.open();
  const vmm = lab.start("vmm", { guest: "reset", options: ["-S"] });
  const qmp = await lab.monitor(vmm);
  await Deno.remove(lab.path("reset"));
  await qmp.execute("cont");
  const message = `could not open kernel '${lab.path("reset")}': No such file or directory`;
  await vmm.said(message);
  await qmp.reaches("internal-error");
  assert.equal(await qmp.refusal("system_reset"), message);
});
