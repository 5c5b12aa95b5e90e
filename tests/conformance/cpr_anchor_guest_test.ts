/** What anchored cpr-execs leave of the guest and of what its devices have under way: everything. */
import assert from "node:assert/strict";
import { create } from "../devices/qcow2/testing.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { assertRecords } from "./disk_records.ts";
import { Laboratory, type VmmOptions } from "./program.ts";
import { assertSteady, Chain, EchoTypist, endUnharmed, FifoConsole, goThrough } from "./updates.ts";

const updates = ["cpr-exec", "cpr-exec"] as const;

/** A guest whose cpr-execs are anchored. */
async function start(lab: Laboratory, special: VmmOptions): Promise<Chain> {
  const chain = await Chain.start(lab, special);
  chain.relay = "anchor";
  return chain;
}

for (const guest of ["steady_cpl0", "steady_cpl3"] as const) {
  for (const cpus of [1, 2, 4]) {
    onlyKvmTest(`${guest} on ${cpus} vCPUs goes on unharmed through an anchor`, async () => {
      await using lab = await Laboratory.open();
      using console = await FifoConsole.open(lab.path("console"));
      const options = ["-smp", `${cpus}`];
      const chain = await start(lab, { guest, options, serial: console.serial });
      await console.printed(`steady ${cpus}\n`);
      using typist = new EchoTypist(console);
      await assertSteady(chain.qmp, cpus);
      for (const mode of updates) {
        await chain.update(mode);
        await assertSteady(chain.qmp, cpus);
        await typist.echoes();
      }
      await typist.finish();
      assert.equal(chain.vmm.output, "");
    });
  }
}

onlyKvmTest("a guest that halts between ticks goes on through an anchor", async () => {
  await using lab = await Laboratory.open();
  using console = await FifoConsole.open(lab.path("console"));
  const options = ["-smp", "2", "-append", "mode=h"];
  const chain = await start(lab, { guest: "steady_cpl0", options, serial: console.serial });
  await console.printed("steady 2\n");
  for (const mode of updates) {
    await chain.update(mode);
    await assertSteady(chain.qmp, 2);
  }
});

for (const packed of ["off", "on"]) {
  onlyKvmTest(`no request to a device is lost in an anchor, packed: ${packed}`, async () => {
    await using lab = await Laboratory.open();
    const options = ["-device", `virtio-rng-device,packed=${packed}`];
    const chain = await start(lab, { guest: "virtio_rng", options });
    await lab.printed("rng at irq 47\n");
    await goThrough(chain, updates);
    await endUnharmed(chain);
  });
}

for (const format of ["raw", "qcow2"] as const) {
  onlyKvmTest(`a guest that writes records goes on through an anchor, ${format}`, async () => {
    await using lab = await Laboratory.open();
    const image = lab.path("disk");
    if (format === "qcow2") create(image, { size: 1 << 20, clusterBits: 9 });
    else Deno.writeFileSync(image, new Uint8Array(1 << 20));
    const drive = `file=${image},format=${format},if=none,id=d`;
    const options = ["-drive", drive, "-device", "virtio-blk-device,drive=d"];
    const chain = await start(lab, { guest: "virtio_blk", options });
    await lab.printed("2048 sectors\n");
    await goThrough(chain, [...updates, "cpr-transfer", ...updates]);
    await endUnharmed(chain);
    if (format === "raw") await assertRecords(image, chain.qmp);
  });
}
