/**
 * A vCPU from the main thread.
 *
 * @module
 */
import { threadId } from "../../ffi/process.ts";
import type { AcceleratorVcpu } from "../accel/accelerator.ts";
import { controlBlockSize, ThreadPhase } from "./control_block.ts";
import type { DeviceSetDescription } from "../bus/thread_devices.ts";
import { MachineThread } from "./machine_thread.ts";
import type { VcpuThreadDescription } from "./vcpu_worker.ts";

/** The Worker's module: TypeScript in the source tree, JavaScript beside the bundle. */
const workerUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./vcpu_worker.ts" : "./vcpu_worker.js",
  import.meta.url,
);

/** Threads that were started for vCPUs that are still to come. */
const spare: Worker[] = [];

/**
 * Starts threads for vCPUs that will be made: a thread takes as long to come up as the machine to be
 * built, or longer.
 */
export function startSpareThreads(count: number): void {
  while (spare.length < count) spare.push(new Worker(workerUrl, { type: "module" }));
}

/** Ends the threads that no vCPU has taken, as soon as they are up. */
export function endSpareThreads(): void {
  for (const worker of spare.splice(0)) worker.postMessage(null);
}

/** One vCPU. It parks between two guest instructions, with no access half done. */
export class Vcpu extends MachineThread {
  /**
   * @param index 0 for the boot processor; its line in the control block
   * @param hardware the vCPU in its accelerator
   * @param controlBlock the machine's control block
   */
  constructor(
    readonly index: number,
    readonly hardware: AcceleratorVcpu,
    controlBlock: SharedArrayBuffer,
  ) {
    super(`CPU ${index}`, controlBlock, index);
  }

  /** Starts the vCPU's thread, parked; `vcpuCount` is how many vCPUs there are. */
  startThread(
    vcpuCount: number,
    devices: DeviceSetDescription,
    onFailure: (reason: string) => void,
  ): void {
    const description: VcpuThreadDescription = {
      index: this.index,
      vcpuCount,
      runner: this.hardware.description,
      control: this.controlBlock,
      devices,
    };
    const worker = spare.shift() ?? new Worker(workerUrl, { type: "module" });
    this.start(worker, { ...description }, onFailure, devices.isPluggable);
  }

  override allow(): void {
    this.hardware.allow();
  }

  override halt(): void {
    this.hardware.halt(this.threadId);
  }

  override interrupt(): void {
    this.hardware.interrupt(this.threadId);
  }
}

/** A vCPU to rehearse on: its thread is the caller's own, and it is parked as soon as it is kicked. */
export class ScratchVcpu extends Vcpu {
  /** @param hardware a scratch VM's vCPU */
  constructor(hardware: AcceleratorVcpu) {
    super(0, hardware, new SharedArrayBuffer(controlBlockSize(1)));
    this.control.threadId = threadId();
  }

  override kick(): void {
    this.control.phase = ThreadPhase.RUNNING;
    super.kick();
    this.control.phase = ThreadPhase.PARKED;
    // As long as another thread takes to park: a loop that gets long for the first time is compiled.
    this.control.spinWhilePhase(ThreadPhase.PARKED);
  }
}
