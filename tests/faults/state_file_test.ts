/** State files that cannot take or do not hold the state. */
import assert from "node:assert/strict";
import { execUpdate, kvmTest, Laboratory, program, setExec } from "../conformance/program.ts";

for (const mode of ["cpr-exec", "cpr-reboot"]) {
  kvmTest(`${mode} lets the guest go on when the disk is full`, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("vmm");
    await setExec(qmp, [...program, ...vmm.options, "-incoming", "file:/dev/full"]);
    await qmp.execute("migrate-set-parameters", { mode, "x-cpr-exec-relay": "off" });
    assert.equal(
      await qmp.refusal("migrate", { uri: "file:/dev/full" }),
      "failed to truncate migration file to offset 0: Invalid argument",
    );
    assert.ok(!qmp.log.includes("STOP"));
    qmp.log.length = 0;
    await qmp.execute("migrate", { uri: "exec:cat > /dev/full" });
    await qmp.logged("MIGRATION failed");
    await qmp.reaches("running");
    assert.equal((await qmp.migration()).status, "failed");
    await qmp.assertGuestRuns();
    if (mode === "cpr-exec") await (await execUpdate(lab, vmm, qmp)).assertGuestRuns();
  });
}

kvmTest(
  "a state file that is cut or damaged is refused, and the right one still loads",
  async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("old");
    await lab.printed("tick 1");
    await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
    await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
    await qmp.logged("MIGRATION completed");
    await qmp.execute("quit");
    await vmm.ended();
    const state = Deno.readFileSync(lab.path("state"));
    const damaged = state.slice();
    damaged[damaged.length >> 1] ^= 1;
    Deno.writeFileSync(lab.path("cut"), state.subarray(0, state.length - 1));
    Deno.writeFileSync(lab.path("damaged"), damaged);
    const next = lab.start("new", { options: ["-incoming", "defer"] });
    const monitor = await (await lab.monitor(next)).withEvents();
    for (const name of ["cut", "damaged"]) {
      monitor.log.length = 0;
      const uri = `file:${lab.path(name)}`;
      await monitor.execute("migrate-incoming", { uri, "exit-on-error": false });
      await monitor.logged("MIGRATION failed");
      assert.match(
        (await monitor.migration())["error-desc"]!,
        name === "cut" ? /^Stream ends within the end of the stream/ : /^Checksum of section/,
      );
      assert.equal(await monitor.runState(), "inmigrate");
    }
    await monitor.execute("migrate-incoming", { uri: `file:${lab.path("state")}` });
    await monitor.logged("MIGRATION completed");
    await monitor.assertGuestRuns();
  },
);

kvmTest("the state that a cpr-exec left is refused by a VM without the guest's RAM", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  await (await execUpdate(lab, vmm, qmp)).assertGuestRuns();
  const next = lab.start("new", { options: ["-incoming", `file:${lab.path("state")}`] });
  assert.deepEqual(await next.ended(), { code: 1 });
  assert.match(
    next.output,
    /^denovo: load of migration failed: RAM of 'ram-below-4g' is missing from the stream: 0 of /,
  );
});
