/** Devices that come and go behind ports, over live updates: a plugged one moves on, a pending unplug too. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kvmTest, Laboratory, program, setExec } from "./program.ts";
import { assertCounts, Chain, endUnharmed, modes } from "./updates.ts";

const machine = [
  ...["-machine", "pcie=on", "-append", "pci-port"],
  ...["-device", "pcie-root-port,id=rp,slot=1", "-device", "pcie-root-port,id=rq,slot=2,chassis=1"],
];
const entropy = (port: string) => ({ driver: "virtio-rng-pci", id: "r", bus: port });
const withEntropy = (port: string) => [
  ...machine,
  ...["-device", JSON.stringify(entropy(port))],
];

const guest = "virtio_rng";

for (const mode of modes) {
  kvmTest(`what is plugged in moves on by ${mode}, comes and goes there`, async () => {
    await using lab = await Laboratory.open();
    const chain = await Chain.start(lab, { guest, options: machine });
    await chain.qmp.execute("device_add", entropy("rp"));
    await lab.printed("rng at irq 0\n");
    await assertCounts(chain.qmp, layout.counter);
    const before = await chain.qmp.hmp("info mtree");
    chain.become({ guest, options: withEntropy("rp") });
    await chain.update(mode);
    assert.equal(await chain.qmp.hmp("info mtree"), before);
    await assertCounts(chain.qmp, layout.counter);
    await chain.qmp.execute("device_del", { id: "r" });
    await lab.printed("given up\n");
    await chain.qmp.logged("DEVICE_DELETED");
    await chain.qmp.execute("device_add", entropy("rq"));
    await lab.printed("given up\nrng at irq 0\n");
    chain.become({ guest, options: withEntropy("rq") });
    await chain.update(mode);
    await assertCounts(chain.qmp, layout.counter);
    await endUnharmed(chain);
  });

  kvmTest(
    `a guest that is asked to give a device up does so after an update by ${mode}`,
    async () => {
      await using lab = await Laboratory.open();
      const chain = await Chain.start(lab, { guest, options: withEntropy("rp") });
      await lab.printed("rng at irq 0\n");
      await chain.qmp.execute("stop");
      await chain.qmp.execute("device_del", { id: "r" });
      assert.equal(
        await chain.qmp.refusal("device_del", { id: "r" }),
        "Device r is already in the process of unplug",
      );
      await chain.update(mode, { arrives: "paused" });
      await chain.qmp.execute("cont");
      await lab.printed("given up\n");
      await chain.qmp.logged("DEVICE_DELETED");
      assert.equal(await chain.qmp.refusal("device_del", { id: "r" }), "Device 'r' not found");
    },
  );
}

kvmTest("cpr-exec is refused where there would be no way back, and the guest stays", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm", { guest, options: machine });
  await qmp.execute("stop");
  await qmp.execute("blockdev-add", { driver: "null-co", "node-name": "n", size: 4096 });
  const disk = { driver: "virtio-blk-pci", id: "d", bus: "rp", drive: "n" };
  await qmp.execute("device_add", disk);
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, [...program, ...lab.optionsOf("vmm", { guest, options: machine })]);
  assert.match(
    await qmp.refusal("migrate", { uri }),
    /^This VMM's own options do not make the guest's machine \(.*'n'.*\): device_del what has a backend /,
  );
  const { status } = await qmp.execute<{ status: string }>("query-status");
  assert.equal(status, "paused");
});
