/** The machine as ACPI tells a guest of it: power button, sleep, power off, reset. */
import assert from "node:assert/strict";
import { deviceTree } from "../../vmm/view/machine_tree.ts";
import { kvmTest, TestVm } from "./harness.ts";
import { testAccelerator } from "../needs_kvm.ts";

kvmTest("the power button interrupts the guest, which powers off by S5", async () => {
  await using test = await TestVm.start({ program: "acpi" });
  await test.printed("acpi 1\n");
  test.vm.powerdown();
  await test.printed("button 2\n");
  test.vm.powerdown();
  await test.printed("button 2\n", 2);
  test.type("o");
  assert.equal(await test.ended(), 0);
  assert.deepEqual(
    test.events.map(({ name, data }) => data ? [name, data] : [name]),
    [["RESUME"], ["POWERDOWN"], ["POWERDOWN"], [
      "SHUTDOWN",
      { guest: true, reason: "guest-shutdown" },
    ]],
  );
});

kvmTest("without ACPI there are no tables, and the button is only an event", async () => {
  await using test = await TestVm.start({ program: "acpi", machine: { acpi: false } });
  await test.printed("acpi 0\n");
  test.vm.powerdown();
  test.type("x");
  await test.printed("x");
  assert.equal(test.text, "acpi 0\nx");
  assert.deepEqual(test.eventNames, ["RESUME", "POWERDOWN"]);
  assert.throws(() => test.vm.wakeup(), {
    message: "wake-up from suspend is not supported by this guest",
  });
});

kvmTest("the reset register resets, and the button works again", async () => {
  await using test = await TestVm.start({ program: "acpi" });
  await test.printed("acpi 1\n");
  test.type("r");
  await test.printed("acpi 1\n", 2);
  assert.deepEqual(test.events.at(-1)?.data, { guest: true, reason: "guest-reset" });
  test.vm.powerdown();
  await test.printed("button 2\n");
});

kvmTest("S3 suspends the VM until it is woken", async () => {
  await using test = await TestVm.start({ program: "acpi", cpus: 2 });
  const { vm } = test;
  await test.printed("acpi 1\n");
  assert.throws(() => vm.wakeup(), {
    message: "Unable to wake up: guest is not in suspended state",
  });
  for (let time = 1; time <= 3; time++) {
    test.type("s");
    await test.reaches("suspended");
    assert.equal(vm.running, false);
    // As under QEMU this does not wake it.
    vm.cont();
    assert.equal(vm.runState, "suspended");
    vm.wakeup();
    assert.equal(vm.runState, "running");
    await test.printed("awake\n", time);
  }
  const round = ["SUSPEND", "WAKEUP"];
  assert.deepEqual(test.eventNames, ["RESUME", ...round, ...round, ...round]);
});

kvmTest("a guest that sleeps can be stopped, and sleeps on", async () => {
  await using test = await TestVm.start({ program: "acpi" });
  const { vm } = test;
  await test.printed("acpi 1\n");
  test.type("s");
  await test.reaches("suspended");
  vm.stop();
  assert.equal(vm.runState, "paused");
  assert.throws(() => vm.wakeup(), /not in suspended state/);
  vm.cont();
  assert.equal(vm.runState, "suspended");
  vm.wakeup();
  await test.printed("awake\n");
  assert.deepEqual(test.eventNames, ["RESUME", "SUSPEND", "STOP", "RESUME", "WAKEUP"]);
});

kvmTest("what is no ISA device is on the system bus, as under QEMU", async () => {
  const devices = [{ driver: "vmgenid", properties: {} }];
  await using test = await TestVm.create({ program: "acpi", devices });
  const drivers = deviceTree(test.vm.machine).devices.map(({ driver }) => driver)
    .filter((driver) => driver !== "virtio-mmio");
  assert.deepEqual(
    drivers,
    [
      testAccelerator === "kvm" ? "kvm-ioapic" : "ioapic",
      "acpi-ged",
      "ioapic",
      "vmgenid",
      "isabus-bridge",
      "kvmclock",
    ],
  );
});

kvmTest("a reset ends sleep", async () => {
  await using test = await TestVm.start({ program: "acpi" });
  const { vm } = test;
  await test.printed("acpi 1\n");
  test.type("s");
  await test.reaches("suspended");
  vm.reset();
  assert.equal(vm.runState, "running");
  await test.printed("acpi 1\n", 2);
  assert.throws(() => vm.wakeup(), /not in suspended state/);
});
