/**
 * KVM as an accelerator.
 *
 * @module
 */
import type { CpuidEntry } from "../../../ffi/kvm/cpuid.ts";
import { Capability } from "../../../ffi/kvm/ioctl.ts";
import { KvmSystem } from "../../../ffi/kvm/system.ts";
import type { Accelerator, VmOptions } from "../accelerator.ts";
import { KvmAcceleratorVm } from "./vm.ts";

/** An open /dev/kvm. */
export class KvmAccelerator implements Accelerator {
  readonly name = "kvm";
  readonly title = "KVM";
  readonly mapsFiles = false;
  readonly #kvm: KvmSystem = new KvmSystem();

  get maxVcpus(): number {
    return this.#kvm.capability(Capability.MAX_VCPUS);
  }

  get tscDeadline(): boolean {
    return this.#kvm.capability(Capability.TSC_DEADLINE_TIMER) !== 0;
  }

  supportedCpuid(): CpuidEntry[] {
    return this.#kvm.supportedCpuid();
  }

  createVm(options: VmOptions): KvmAcceleratorVm {
    return new KvmAcceleratorVm(this.#kvm, options);
  }

  [Symbol.dispose](): void {
    this.#kvm[Symbol.dispose]();
  }
}
