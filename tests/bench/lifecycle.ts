/**
 * Creating and closing a VM, and stopping and continuing one.
 *
 * @module
 */
import { ThreadPhase } from "../../vmm/threads/control_block.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { createVm, startExits } from "./machines.ts";
import { sleep, Workspace } from "./program.ts";
import type { BenchOptions, Measurement } from "./statistics.ts";

/** `VirtualMachine.create` with a kernel loaded, and `close` once its thread is ready. */
export async function* lifecycle({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using work = await Workspace.create();
  const kernel = await work.guest("hello");
  const create: number[] = [];
  const ready: number[] = [];
  const close: number[] = [];
  for (let i = 0; i < (quick ? 3 : 20); i++) {
    const start = performance.now();
    const vm = await createVm({ kernel });
    create.push(performance.now() - start);
    while (phase(vm) === ThreadPhase.STARTING) await sleep(0);
    ready.push(performance.now() - start);
    const end = performance.now();
    await vm.close();
    close.push(performance.now() - end);
  }
  yield { name: "lifecycle: create", unit: "ms", samples: create };
  yield { name: "lifecycle: create to vCPU thread ready", unit: "ms", samples: ready };
  yield { name: "lifecycle: close", unit: "ms", samples: close };
}

const situations = { h: "hlt loop, 100 Hz timer", t: "tight loop", p: "exit storm" };

/**
 * `stop` returns when the vCPU is parked; `cont` is measured until the vCPU's thread has woken and
 * is about to enter the guest.
 */
export async function* stopping({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using work = await Workspace.create();
  const image = await work.guest("exits");
  for (const [mode, situation] of Object.entries(situations)) {
    await using vm = await startExits(image, mode);
    const stops: number[] = [];
    const conts: number[] = [];
    for (let i = 0; i < (quick ? 20 : 500); i++) {
      let start = performance.now();
      vm.stop();
      stops.push(performance.now() - start);
      start = performance.now();
      vm.cont();
      vm.machine.vcpus[0].control.waitWhilePhase(ThreadPhase.PARKED, 1000);
      conts.push(performance.now() - start);
      await sleep(1 + (i % 5));
    }
    yield { name: `stop: ${situation}`, unit: "ms", samples: stops, aim: "below 5 ms" };
    yield { name: `cont: ${situation}`, unit: "ms", samples: conts };
  }
}

function phase(vm: VirtualMachine): number {
  return vm.machine.vcpus[0].control.phase;
}
