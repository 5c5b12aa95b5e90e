/**
 * KVM on the threads of vCPUs and devices.
 *
 * @module
 */
import { ioctlBuffer, KVM } from "../../../ffi/kvm/ioctl.ts";
import { RunPage } from "../../../ffi/kvm/run.ts";
import { kvmIrqLevel } from "../../../ffi/kvm/structs.ts";
import { runVcpu } from "../../../ffi/kvm/vcpu.ts";
import type {
  AcceleratorThread,
  InterruptLines,
  KvmInterruptsDescription,
  KvmRunnerDescription,
  VcpuRunner,
} from "../accelerator.ts";

/** KVM_RUN of one vCPU. */
class KvmRunner implements VcpuRunner {
  readonly run: RunPage;
  readonly #fd: number;

  constructor({ fd, runAddress, runSize }: KvmRunnerDescription) {
    this.run = new RunPage(runAddress, runSize);
    this.#fd = fd;
  }

  enter(): number {
    return runVcpu(this.#fd);
  }
}

/** KVM_IRQ_LINE of one VM, with a buffer of this thread's own. */
export class KvmInterruptLines implements InterruptLines {
  readonly #fd: number;
  readonly #line = kvmIrqLevel.alloc();

  /** @param description the VM */
  constructor({ vmFd }: KvmInterruptsDescription) {
    this.#fd = vmFd;
  }

  setLine(gsi: number, level: boolean): void {
    this.#line.view.irq = gsi;
    this.#line.view.level = level ? 1 : 0;
    ioctlBuffer(this.#fd, KVM.IRQ_LINE, this.#line.bytes);
  }
}

/** KVM's side for threads. */
export const kvmThread: AcceleratorThread = {
  openRunner: (description) => new KvmRunner(description as KvmRunnerDescription),
  openInterrupts: (description) => new KvmInterruptLines(description as KvmInterruptsDescription),
};
