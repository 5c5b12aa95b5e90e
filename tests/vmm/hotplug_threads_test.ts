/** Devices that come while threads come up, or have something to say: nobody misses them, and nobody stays behind. */
import assert from "node:assert/strict";
import type { DeviceSetDescription } from "../../vmm/bus/thread_devices.ts";
import { defaultConfig } from "../../vmm/config.ts";
import { GuestEvent, ThreadPhase, Wanted } from "../../vmm/threads/control_block.ts";
import { threadsAtATime } from "../../vmm/threads/machine_thread.ts";
import { Vcpu } from "../../vmm/threads/vcpu.ts";
import { addDevice } from "../../vmm/view/hotplug.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { patience } from "../patience.ts";

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + patience(60_000);
  while (!condition()) {
    assert.ok(performance.now() < end, `waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** A VM with a port, without a guest. */
function makeVm(cpus: number): Promise<VirtualMachine> {
  const config = defaultConfig();
  return VirtualMachine.create({
    accelerators: ["tcg"],
    memory: 16 << 20,
    smp: { ...config.smp, cpus, maxcpus: cpus, cores: cpus },
    machine: { ...config.machine, pcie: true },
    devices: [{ driver: "pcie-root-port", id: "p", properties: { slot: 1 } }],
    startPaused: true,
  }, { incoming: true });
}

const rng = { driver: "virtio-rng-pci", id: "r", properties: { bus: "p" } };

Deno.test("a vCPU that is started late has the devices that have come by then", async () => {
  const { startThread } = Vcpu.prototype;
  const started: [vcpu: Vcpu, devices: DeviceSetDescription][] = [];
  Vcpu.prototype.startThread = function (_count, devices) {
    started.push([this, devices]);
  };
  try {
    await using vm = await makeVm(threadsAtATime + 1);
    assert.equal(started.length, threadsAtATime);
    addDevice(vm, rng);
    // There is no thread; this one is not in anybody's way any more.
    for (const [{ control }] of started) control.phase = ThreadPhase.EXITED;
    await until(() => started.length > threadsAtATime, "the last vCPU");
    const [last, devices] = started.at(-1)!;
    assert.deepEqual(devices.devices.map(({ id }) => id).filter((id) => id === "r"), ["r"]);
    last.control.phase = ThreadPhase.EXITED;
  } finally {
    Vcpu.prototype.startThread = startThread;
  }
});

Deno.test("a thread that serves the guest goes on after a device has come, whatever it has to tell", async () => {
  await using vm = await makeVm(1);
  const { vcpus: [vcpu], ioThreads: [io] } = vm.machine;
  const isUp = () => [vcpu, io].every(({ control }) => control.phase === ThreadPhase.PARKED);
  await until(isUp, "the threads");
  io.resume();
  await until(() => io.control.phase === ThreadPhase.RUNNING, "the I/O thread");
  io.control.post(GuestEvent.DISK_ERROR);
  addDevice(vm, rng);
  assert.equal(io.control.wanted, Wanted.RUN);
  assert.ok(io.control.hasEvent);
  assert.equal(vcpu.control.wanted, Wanted.PARK);
});
