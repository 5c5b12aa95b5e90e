/**
 * A VM in KVM, with its in-kernel chips.
 *
 * @module
 */
import type { OwnedFd } from "../../../ffi/fd.ts";
import { Capability, KVM } from "../../../ffi/kvm/ioctl.ts";
import type { KvmSystem } from "../../../ffi/kvm/system.ts";
import { KvmVcpu } from "../../../ffi/kvm/vcpu.ts";
import { KvmVm } from "../../../ffi/kvm/vm.ts";
import { KVM_IDENTITY_MAP_ADDRESS, KVM_TSS_ADDRESS } from "../../machine/microvm.ts";
import type {
  AcceleratorVm,
  DoorbellAddress,
  KvmInterruptsDescription,
  VcpuStateLayout,
  VmOptions,
  VmPart,
} from "../accelerator.ts";
import type { MemorySlot } from "../memory_slot.ts";
import { stateLayout } from "./state_layout.ts";
import { KvmInterruptLines } from "./thread.ts";
import { KvmAcceleratorVcpu } from "./vcpu.ts";

/** The requests that move a VM's state. */
export const vmRequests: Record<VmPart, { get: number; set: number }> = {
  irqchip: { get: KVM.GET_IRQCHIP, set: KVM.SET_IRQCHIP },
  pit: { get: KVM.GET_PIT2, set: KVM.SET_PIT2 },
  clock: { get: KVM.GET_CLOCK, set: KVM.SET_CLOCK },
};

/** Interrupt lines of the in-kernel IOAPIC. */
const IOAPIC_PINS = 24;

/** A VM with its vCPUs. */
export class KvmAcceleratorVm implements AcceleratorVm {
  readonly vcpus: readonly KvmAcceleratorVcpu[];
  readonly interrupts: KvmInterruptLines;
  readonly interruptsDescription: KvmInterruptsDescription;
  readonly practice = undefined;
  readonly #kvm: KvmSystem;
  readonly #vm: KvmVm;

  /**
   * Makes VM, chips and vCPUs.
   *
   * @throws {OsError} if KVM refuses; what was made by then is closed
   */
  constructor(kvm: KvmSystem, options: VmOptions) {
    this.#kvm = kvm;
    this.#vm = new KvmVm(kvm.createVm());
    this.interruptsDescription = { accelerator: "kvm", vmFd: this.#vm.fd.fd };
    this.interrupts = new KvmInterruptLines(this.interruptsDescription);
    const vcpus: KvmAcceleratorVcpu[] = [];
    this.vcpus = vcpus;
    try {
      this.#vm.setIdentityMapAddress(KVM_IDENTITY_MAP_ADDRESS);
      this.#vm.setTssAddress(KVM_TSS_ADDRESS);
      this.#vm.createIrqchip();
      // KVM makes PICs in any case: without them no line leads there.
      if (!options.pic) this.#vm.routeToIoapic(IOAPIC_PINS);
      // A triple fault that KVM has noted but not reported is state too: a reset must clear it.
      if (kvm.capability(Capability.X86_TRIPLE_FAULT_EVENT) > 0) {
        this.#vm.enableCapability(Capability.X86_TRIPLE_FAULT_EVENT, 1n);
      }
      if (options.pit) this.#vm.createPit();
      const size = kvm.vcpuMmapSize();
      for (const { apicId, cpuid } of options.cpus) {
        const vcpu = new KvmVcpu(this.#vm.createVcpu(apicId), size);
        vcpus.push(new KvmAcceleratorVcpu(vcpu, kvm));
        vcpu.setCpuid(cpuid);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Taking a VM apart waits for the kernel's other processors, some 16 ms. */
  get remains(): readonly OwnedFd[] {
    return [this.#vm.fd];
  }

  stateLayout(): VcpuStateLayout {
    return stateLayout(this.#kvm, this.vcpus[0].kvm);
  }

  setMemory({ slot, gpa, size, address, readonly }: MemorySlot): void {
    this.#vm.setMemoryRegion(slot, gpa, size, address, readonly);
  }

  removeMemory({ slot, gpa, address }: MemorySlot): void {
    this.#vm.setMemoryRegion(slot, gpa, 0, address);
  }

  prefault(gpa: number, size: number): boolean {
    if (this.#kvm.capability(Capability.PRE_FAULT_MEMORY) === 0) return false;
    // All vCPUs have their page tables from the VM.
    const { kvm } = this.vcpus[0];
    // Where a memory slot was taken away, KVM drops a vCPU's page tables on the way through KVM_RUN; before that
    // Linux 6.11 to 6.14 would try to fill them for ever.
    kvm.settleTimer();
    kvm.prefault(gpa, size);
    return true;
  }

  connectDoorbell({ address, value, fd }: DoorbellAddress): void {
    this.#vm.addIoeventfd(address, value, fd);
  }

  read(part: VmPart, into: Uint8Array<ArrayBuffer>): void {
    this.#vm.transfer(vmRequests[part].get, into);
  }

  write(part: VmPart, from: Uint8Array<ArrayBuffer>): void {
    this.#vm.transfer(vmRequests[part].set, from);
  }

  close(): void {
    for (const vcpu of this.vcpus) vcpu.close();
    this.#vm.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
