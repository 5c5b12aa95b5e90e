/** PCI functions over live updates: they stay where the guest has put them, and lose no interrupt. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kvmTest, Laboratory } from "./program.ts";
import { assertCounts, Chain, endUnharmed, modes } from "./updates.ts";

/** A part of what `query-pci` returns. */
interface PciBus {
  readonly devices: readonly {
    readonly slot: number;
    readonly regions: readonly { readonly address: number }[];
  }[];
}

for (const [told, irq] of [["pci", 0], ["pci-line", 17]] as const) {
  for (const packed of ["off", "on"]) {
    kvmTest(`a PCI function works on through each mode, packed: ${packed}, ${told}`, async () => {
      await using lab = await Laboratory.open();
      const options = [
        ...["-machine", "pcie=on", "-append", told],
        ...["-device", `virtio-rng-pci,packed=${packed}`, "-device", "virtio-rng-pci,addr=5"],
      ];
      const chain = await Chain.start(lab, { guest: "virtio_rng", options });
      await lab.printed(`rng at irq ${irq}\n`);
      const before = await chain.qmp.hmp("info mtree");
      assert.match(before, /00000000c0010000-00000000c0013fff \(prio 0, i\/o\): virtio-rng-pci/);
      assert.match(before, /00000000c0018000-00000000c0018fff \(prio 0, i\/o\): msix/);
      const [{ devices }] = await chain.qmp.execute<PciBus[]>("query-pci");
      assert.deepEqual(devices.map(({ slot }) => slot), [0, 1, 5]);
      assert.deepEqual(devices[1].regions, [
        {
          ...{ bar: 1, type: "memory", address: 0xc001_8000, size: 0x1000 },
          ...{ prefetch: false, mem_type_64: false },
        },
        {
          ...{ bar: 4, type: "memory", address: 0xc001_0000, size: 0x4000 },
          ...{ prefetch: true, mem_type_64: true },
        },
      ]);
      assert.deepEqual(devices[2].regions.map(({ address }) => address), [-1, -1]);
      for (const mode of modes) {
        await assertCounts(chain.qmp, layout.counter);
        await chain.update(mode);
        assert.equal(await chain.qmp.hmp("info mtree"), before);
      }
      await endUnharmed(chain);
    });
  }
}
