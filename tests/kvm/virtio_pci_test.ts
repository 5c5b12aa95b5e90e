/** Virtio devices as PCI functions, with a driver in the guest that finds them by configuration space. */
import assert from "node:assert/strict";
import { deviceTree } from "../../vmm/view/machine_tree.ts";
import { layout } from "../guests/programs.ts";
import { kvmTest, TestVm } from "./harness.ts";

const rng = (properties = {}) => [{ driver: "virtio-rng-pci", properties }];
const machine = { pcie: true };

/** Whether an I/O thread has connected the doorbells. */
function areConnected({ vm: { machine } }: TestVm): boolean {
  const words = new Int32Array(machine.devices.description.movingDoorbells);
  return Atomics.load(words, 1) !== 0;
}

for (const packed of [false, true]) {
  for (const [word, irq] of [["pci", 0], ["pci-line", 17]] as const) {
    kvmTest(`a PCI function works, packed: ${packed}, told by ${word}`, async () => {
      const devices = rng({ packed });
      await using test = await TestVm.start({
        program: "virtio_rng",
        append: word,
        devices,
        machine,
      });
      await test.printed(`rng at irq ${irq}\n`);
      await test.grown(layout.counter, 100);
      assert.ok(areConnected(test), "the accelerator has not been told of doorbells");
      for (let stop = 0; stop < 3; stop++) {
        await test.assertStandsStill([layout.counter]);
        test.vm.cont();
        await test.grown(layout.counter);
      }
      test.vm.reset();
      await test.printed("rng at irq", 2);
      await test.grown(layout.counter);
      test.assertUnharmed();
    });
  }

  const ways = packed ? 10 : 14;
  kvmTest(`a PCI function whose ring is malformed goes on, packed: ${packed}`, async () => {
    await using test = await TestVm.start({
      program: "virtio_rng",
      append: "pci broken",
      devices: rng({ packed }),
      machine,
    });
    assert.equal(await test.ended(), 1);
    assert.equal(test.text, `rng at irq 0\nbroken ok ${ways}\n`);
  });
}

kvmTest("functions that share an interrupt line work side by side", async () => {
  // Four slots further is the same wire; the driver takes the first function.
  const others = ["1", "5", "9"].map((addr) => rng({ addr })).flat();
  await using test = await TestVm.start({
    program: "virtio_rng",
    append: "pci-line",
    devices: others,
    machine,
  });
  await test.printed("rng at irq 17\n");
  await test.grown(layout.counter, 100);
  test.assertUnharmed();
});

kvmTest("`info qtree` shows the functions on the root bus, with ports behind them", async () => {
  await using test = await TestVm.create({
    program: "virtio_rng",
    devices: [
      ...rng({ addr: "0x1f" }),
      { driver: "virtio-serial-pci", id: "vs", properties: { bus: "pcie.0" } },
      { driver: "virtserialport", id: "agent", properties: { name: "a" } },
    ],
    machine,
  });
  const { devices: all } = deviceTree(test.vm.machine);
  const [bus] = all.find(({ driver }) => driver === "gpex-pcihost")!.buses!;
  assert.deepEqual([bus.name, bus.type], ["pcie.0", "PCIE"]);
  assert.deepEqual(bus.devices.map(({ driver }) => driver), [
    "virtio-rng-pci",
    "virtio-serial-pci",
  ]);
  const [ports] = bus.devices[1].buses!;
  assert.deepEqual([ports.name, ports.devices.map(({ id }) => id)], ["vs.0", ["agent"]]);
});
