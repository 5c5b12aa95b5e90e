import assert from "node:assert/strict";
import { makeMemfd, mapShared } from "../../../ffi/memory.ts";
import { practice } from "../../../vmm/accel/software/practice.ts";
import { SCRATCH_MEMORY } from "../../../vmm/machine/microvm.ts";
import { startVcpu } from "../../../vmm/machine/power_on.ts";
import { TestVm, until } from "../../kvm/harness.ts";

Deno.test("vCPUs come through the practice's end, each by itself", async () => {
  const cpus = 2;
  await using test = await TestVm.create({ program: "smp", cpus, accelerators: ["tcg"] });
  const { machine } = test.vm;
  await machine.threadsStarted();
  const { vm, vcpus } = machine.hardware;
  const image = practice.image(SCRATCH_MEMORY, cpus);
  using fd = makeMemfd("test-practice", image.length);
  using memory = mapShared(fd.fd, image.length);
  memory.write(0, image);
  const slot = {
    slot: machine.memory.regions.length,
    gpa: SCRATCH_MEMORY,
    size: image.length,
    address: memory.address,
    file: { fd, offset: 0 },
    readonly: false,
  };
  const state = machine.hardware.makeState();
  state.save();
  vm.setMemory(slot);
  vcpus.forEach((vcpu, i) => startVcpu(vcpu, practice.start(SCRATCH_MEMORY, i)));
  const done = () => vcpus.map((_, i) => practice.isDone(memory, i));
  assert.deepEqual(done(), [false, false]);
  machine.resume();
  await until(
    () => done().every((one) => one) || machine.vcpus.some(({ control }) => control.hasEvent),
    () => "the practice's end",
  );
  machine.park();
  assert.deepEqual(done(), [true, true]);
  vm.removeMemory(slot);
  state.restore({ clock: false, tscOffsets: true });
  // Nothing of it is left for the guest.
  test.vm.start();
  await test.printed(`cpus ${cpus}\n`);
});
