/** Devices that come and go behind ports, over live updates: a plugged one moves on, a pending unplug too. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kvmTest, Laboratory } from "./program.ts";
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
