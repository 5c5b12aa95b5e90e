/** What the monitor shows of the machine's chips is named as QEMU does under the same accelerator. */
import assert from "node:assert/strict";
import { addressSpaces, deviceTree, interruptStatistics } from "../../vmm/view/machine_tree.ts";
import { testAccelerator } from "../needs_kvm.ts";
import { kvmTest, TestVm } from "./harness.ts";

const KVM = {
  places: ["kvm-pic", "kvm-pit", "kvm-pic", "kvm-elcr", "kvm-ioapic", "kvm-apic-msi"],
  drivers: ["kvm-pit", "kvm-i8259", "kvm-i8259"],
  ioapic: "kvm-ioapic",
};
const TCG = {
  // The second I/O APIC is a device, whose registers have the same name.
  places: ["pic", "pit", "pic", "elcr", "ioapic", "ioapic", "apic-msi"],
  drivers: ["isa-pit", "isa-i8259", "isa-i8259"],
  ioapic: "ioapic",
};

kvmTest("the chips have QEMU's names under the accelerator", async () => {
  await using test = await TestVm.create({ program: "hello" });
  const { machine } = test.vm;
  const expected = testAccelerator === "kvm" ? KVM : TCG;
  const places = addressSpaces(machine).toReversed().flatMap(({ root }) => root.children ?? [])
    .map(({ name }) => name);
  assert.deepEqual(places.filter((name) => expected.places.includes(name)), expected.places);
  const bridge = deviceTree(machine).devices.find(({ driver }) => driver === "isabus-bridge");
  const drivers = bridge?.buses?.[0].devices.map(({ driver }) => driver) ?? [];
  assert.deepEqual(drivers.slice(0, 3), expected.drivers);
  assert.match(
    interruptStatistics(machine),
    new RegExp(`^IRQ statistics for ${expected.ioapic}:$`, "m"),
  );
});
