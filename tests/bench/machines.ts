/**
 * VMs inside the benchmark's own process, made through the library.
 *
 * @module
 */
import type { MachineConfig } from "../../vmm/config.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { layout } from "../guests/programs.ts";
import { sleep } from "./program.ts";

/** Creates a VM of 64 MiB whose console goes nowhere. */
export function createVm(options: Partial<MachineConfig>): Promise<VirtualMachine> {
  return VirtualMachine.create({
    memory: 64 << 20,
    chardevs: [{ backend: "null", id: "console" }],
    serials: ["console"],
    ...options,
  });
}

/** Reads one of a guest program's 8-byte words. */
export function readWord(vm: VirtualMachine, address: number): number {
  return Number(new DataView(vm.machine.memory.read(address, 8).buffer).getBigUint64(0, true));
}

/** Starts the guest `exits` in a mode and waits until it is in it. */
export async function startExits(image: string, mode: string): Promise<VirtualMachine> {
  const vm = await createVm({ kernel: image, append: `mode=${mode}` });
  vm.start();
  // `t` and `d` do not count: they are long there after this time.
  const deadline = performance.now() + 500;
  while (readWord(vm, layout.counter) < 1000 && performance.now() < deadline) await sleep(5);
  return vm;
}
