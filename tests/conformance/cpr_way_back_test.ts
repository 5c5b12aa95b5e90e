/** cpr-exec to commands that cannot take the guest: it is never lost. */
import assert from "node:assert/strict";
import { execUpdate, kvmTest, Laboratory, program, setExec } from "./program.ts";

kvmTest("cpr-exec is refused before the guest stops when the command cannot take it", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const uri = `file:${lab.path("state")}`;
  const incoming = ["-incoming", uri];
  const replaced = (option: string, value: string) => {
    const options = [...vmm.options];
    options[options.indexOf(option) + 1] = value;
    return [...program, ...options, ...incoming];
  };
  const cases: [command: readonly string[], reason: RegExp][] = [
    [["/bin/true"], /^cpr-exec-command \/bin\/true ended without an answer: it must start Denovo$/],
    [[...program, ...vmm.options], /it has no -incoming option$/],
    [[...program, ...vmm.options, "-nope", ...incoming], /-nope: invalid option$/],
    [[...program, ...vmm.options, "-incoming", "nope"], /does not accept value 'nope'$/],
    [replaced("-m", "128"), /RAM size differs: the guest has 67108864, the command 134217728$/],
    [
      [...program, ...vmm.options, "-smp", "2", ...incoming],
      /number of CPUs differs: the guest has 1, the command 2$/,
    ],
    [
      [...program, ...vmm.options, "-debugcon", "null", ...incoming],
      /device 'debugcon' differs: the guest has none/,
    ],
    [[...program, ...vmm.options, "-cpu", "qemu64", ...incoming], /CPUID of CPU 0 differs/],
  ];
  for (const [command, reason] of cases) {
    await setExec(qmp, command);
    qmp.log.length = 0;
    assert.match(await qmp.refusal("migrate", { uri }), reason);
    assert.ok(!qmp.log.includes("STOP"), `stopped for ${command.at(-1)}: ${qmp.log}`);
    await qmp.assertGuestRuns();
  }
  assert.equal((await qmp.migration()).status, "failed");
  const next = await execUpdate(lab, vmm, qmp);
  await next.assertGuestRuns();
});

kvmTest("cpr-exec goes back to the old command line when the new image fails", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  await qmp.assertGuestRuns();
  const before = await execUpdate(lab, vmm, qmp, { incoming: "file:/nonexistent/state" });
  await before.reaches("running");
  assert.equal(await before.runState(), "running");
  assert.deepEqual(await before.migration(), {
    status: "failed",
    "error-desc": "-incoming file:/nonexistent/state: Could not open '/nonexistent/state': " +
      "No such file or directory",
  });
  await before.assertGuestRuns();
  assert.equal(await before.word(0x200018), 0);
  // And it can be tried again.
  const next = await execUpdate(lab, vmm, before);
  await next.reaches("running");
  await next.assertGuestRuns();
  assert.equal((await next.migration()).status, "completed");
  await next.execute("quit");
  assert.deepEqual(await vmm.ended(), { code: 0 });
});

kvmTest("cpr-exec goes back when the new image finds a damaged state", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const garbage = lab.path("garbage");
  Deno.writeTextFileSync(garbage, "this is no saved state");
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, [...program, ...vmm.options, "-incoming", `file:${garbage}`]);
  await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": "off" });
  await qmp.execute("migrate", { uri });
  await qmp.closed();
  // The image that fails may have opened its monitor before it read the state.
  let before = await lab.monitor(vmm).catch(() => undefined);
  while (!before || await before.runState().catch(() => "gone") !== "running") {
    before = await lab.monitor(vmm).catch(() => undefined);
  }
  const { status, "error-desc": reason } = await before.migration();
  assert.equal(status, "failed");
  assert.match(reason!, /Not a migration stream/);
  await before.assertGuestRuns();
});
