/**
 * KVM on the threads of vCPUs and devices.
 *
 * @module
 */
import { OsError } from "../../../ffi/errno.ts";
import { ioctlBuffer, KVM } from "../../../ffi/kvm/ioctl.ts";
import { RunPage } from "../../../ffi/kvm/run.ts";
import { kvmIrqLevel, kvmMsi } from "../../../ffi/kvm/structs.ts";
import { runVcpu } from "../../../ffi/kvm/vcpu.ts";
import { setIoeventfd } from "../../../ffi/kvm/vm.ts";
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

/**
 * KVM_IRQ_LINE and KVM_SIGNAL_MSI of one VM, with buffers of this thread's own.
 *
 * Any thread may call them, so that interrupts of the I/O threads' devices take no way around. An irqfd
 * is no shorter one: a write to its eventfd takes longer (0.20 to 0.25 us where KVM_SIGNAL_MSI takes
 * 0.16 to 0.21), and a level that the guest acknowledges needs a second eventfd to be raised again.
 */
export class KvmInterruptLines implements InterruptLines {
  readonly #fd: number;
  readonly #line = kvmIrqLevel.alloc();
  readonly #msi = kvmMsi.alloc();

  /** @param description the VM */
  constructor({ vmFd }: KvmInterruptsDescription) {
    this.#fd = vmFd;
  }

  setLine(gsi: number, level: boolean): void {
    this.#line.view.irq = gsi;
    this.#line.view.level = level ? 1 : 0;
    ioctlBuffer(this.#fd, KVM.IRQ_LINE, this.#line.bytes);
  }

  /** The processor sees to it. */
  ramWritten(): void {}

  connectDoorbell(address: number, fd: number): void {
    setIoeventfd(this.#fd, address, fd, true);
  }

  disconnectDoorbell(address: number, fd: number): void {
    setIoeventfd(this.#fd, address, fd, false);
  }

  sendMsi(address: number, data: number): void {
    this.#msi.view.address_lo = address;
    this.#msi.view.data = data;
    try {
      ioctlBuffer(this.#fd, KVM.SIGNAL_MSI, this.#msi.bytes);
    } catch (error) {
      // The result -1, which reads as EPERM, says that no local APIC has taken it: the guest's affair.
      if (!(error instanceof OsError && error.code === "EPERM")) throw error;
    }
  }
}

/** KVM's side for threads. */
export const kvmThread: AcceleratorThread = {
  openRunner: (description) => new KvmRunner(description as KvmRunnerDescription),
  openInterrupts: (description) => new KvmInterruptLines(description as KvmInterruptsDescription),
};
