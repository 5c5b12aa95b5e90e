/**
 * What this host's KVM can save of a vCPU.
 *
 * @module
 */
import { Capability, KVM } from "../../../ffi/kvm/ioctl.ts";
import { kvmXsave } from "../../../ffi/kvm/structs.ts";
import type { KvmSystem } from "../../../ffi/kvm/system.ts";
import type { KvmVcpu } from "../../../ffi/kvm/vcpu.ts";
import type { VcpuStateLayout } from "../accelerator.ts";
import { msrBuffer } from "../msrs.ts";

/** IA32_TSC_DEADLINE: written last, because it arms the LAPIC timer against the restored TSC. */
const MSR_TSC_DEADLINE = 0x6e0;

/** Asks KVM for the state layout; `vcpu` is any vCPU whose CPUID is set. */
export function stateLayout(kvm: KvmSystem, vcpu: KvmVcpu): VcpuStateLayout {
  const listed = [...kvm.msrIndexList()].filter((index) => index !== MSR_TSC_DEADLINE);
  return {
    xsaveSize: Math.max(kvmXsave.size, kvm.capability(Capability.XSAVE2)),
    msrs: readableMsrs(vcpu, [...listed, MSR_TSC_DEADLINE]),
    tscOffset: vcpu.hasTscOffset(),
  };
}

/** KVM_GET_MSRS stops at the first MSR that it cannot read: drop it and ask again. */
function readableMsrs(vcpu: KvmVcpu, wanted: number[]): Uint32Array {
  let rest = wanted;
  const readable: number[] = [];
  while (rest.length > 0) {
    const done = vcpu.transfer(KVM.GET_MSRS, msrBuffer(rest));
    readable.push(...rest.slice(0, done));
    rest = rest.slice(done + 1);
  }
  return Uint32Array.from(readable);
}
