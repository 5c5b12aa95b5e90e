/** The Virtual Machine Generation ID: a live update keeps it, a start from a file gives another one. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory } from "./program.ts";
import { Chain, FifoConsole } from "./updates.ts";

const GUID = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
const generation = async ({ qmp }: Chain) =>
  (await qmp.execute<{ guid: string }>("query-vm-generation-id")).guid;

kvmTest("the generation ID stays over live updates, and a start from a file is told", async () => {
  await using lab = await Laboratory.open();
  using console = await FifoConsole.open(lab.path("console"));
  const options = ["-device", "vmgenid"];
  const chain = await Chain.start(lab, { guest: "acpi", options, serial: console.serial });
  await console.printed("acpi 1\n");
  const first = await generation(chain);
  assert.match(first, /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/);
  for (const mode of ["cpr-transfer", "cpr-exec"] as const) {
    await chain.update(mode);
    assert.equal(await generation(chain), first, mode);
  }
  assert.equal(console.text, "acpi 1\n");
  await chain.update("cpr-reboot");
  assert.notEqual(await generation(chain), first);
  await console.printed("button 256\n");
});

kvmTest("a generation ID of the command line's is the same after a start from a file", async () => {
  await using lab = await Laboratory.open();
  using console = await FifoConsole.open(lab.path("console"));
  const options = ["-device", `vmgenid,guid=${GUID}`];
  const chain = await Chain.start(lab, { guest: "acpi", options, serial: console.serial });
  await console.printed("acpi 1\n");
  await chain.update("cpr-reboot");
  assert.equal(await generation(chain), GUID);
  await console.type("x");
  await console.printed("x");
  assert.equal(console.text, "acpi 1\nx");
});
