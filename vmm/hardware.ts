/**
 * The KVM side of a machine: VM, in-kernel interrupt chips and vCPUs, and their state.
 *
 * @module
 */
import { Capability, KVM } from "../ffi/kvm/ioctl.ts";
import { kvmClockData, kvmIrqchip, kvmMpState, kvmPitState2 } from "../ffi/kvm/structs.ts";
import type { CpuidEntry, KvmSystem } from "../ffi/kvm/system.ts";
import { KvmVcpu } from "../ffi/kvm/vcpu.ts";
import { KvmVm } from "../ffi/kvm/vm.ts";
import { KVM_IDENTITY_MAP_ADDRESS, KVM_TSS_ADDRESS } from "./boot/e820.ts";
import { VcpuState, type VcpuStateLayout, vcpuStateLayout } from "./vcpu_state.ts";

/** In-kernel chips by their KVM_IRQCHIP_* numbers. */
export const irqchips = ["pic_master", "pic_slave", "ioapic"] as const;

/** What {@linkcode Hardware} is made of. */
export interface HardwareOptions {
  /** Whether to make the in-kernel PIT. */
  readonly pit: boolean;
  /** One entry a vCPU: its APIC id and its CPUID leaves. */
  readonly vcpus: readonly { readonly apicId: number; readonly cpuid: readonly CpuidEntry[] }[];
}

/** A VM with its vCPUs; it has no memory until slots are set. */
export class Hardware implements Disposable {
  readonly vm: KvmVm;
  readonly vcpus: readonly KvmVcpu[];
  readonly #kvm: KvmSystem;
  readonly #options: HardwareOptions;
  #layout: VcpuStateLayout | undefined;
  #frozenClock: Uint8Array<ArrayBuffer> | undefined;

  /**
   * Makes VM, chips and vCPUs.
   *
   * @throws {OsError} if KVM refuses; what was made by then is closed
   */
  constructor(kvm: KvmSystem, options: HardwareOptions) {
    this.#kvm = kvm;
    this.#options = options;
    this.vm = new KvmVm(kvm.createVm());
    const vcpus: KvmVcpu[] = [];
    this.vcpus = vcpus;
    try {
      this.vm.setIdentityMapAddress(KVM_IDENTITY_MAP_ADDRESS);
      this.vm.setTssAddress(KVM_TSS_ADDRESS);
      this.vm.createIrqchip();
      // A triple fault that KVM has noted but not reported is state too: a reset must clear it.
      if (kvm.capability(Capability.X86_TRIPLE_FAULT_EVENT) > 0) {
        this.vm.enableCapability(Capability.X86_TRIPLE_FAULT_EVENT, 1n);
      }
      if (options.pit) this.vm.createPit();
      const size = kvm.vcpuMmapSize();
      for (const { apicId, cpuid } of options.vcpus) {
        const vcpu = new KvmVcpu(this.vm.createVcpu(apicId), size);
        vcpus.push(vcpu);
        vcpu.setCpuid(cpuid);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** What can be saved of a vCPU on this host. */
  get layout(): VcpuStateLayout {
    return this.#layout ??= vcpuStateLayout(this.#kvm, this.vcpus[0]);
  }

  /** Whether there is an in-kernel PIT. */
  get hasPit(): boolean {
    return this.#options.pit;
  }

  /** Buffers for the whole state. */
  makeState(): HardwareState {
    return new HardwareState(this.vcpus.length, this.#options.pit, this.layout);
  }

  /** The same hardware once more, without memory: to learn its power-on state, or to rehearse on. */
  makeScratch(): Hardware {
    const scratch = new Hardware(this.#kvm, this.#options);
    // Asking a vCPU what it can save blocks while it runs the guest: the scratch one does not.
    scratch.#layout = this.#layout ??= vcpuStateLayout(this.#kvm, scratch.vcpus[0]);
    return scratch;
  }

  /** Puts vCPUs and chips into the state that KVM gives them at power-on. */
  reset(): void {
    using scratch = this.makeScratch();
    const state = scratch.makeState();
    state.save(scratch);
    state.restore(this, { clock: false, tscOffsets: false });
  }

  /**
   * Makes all vCPUs wait for a startup interrupt: while they do, running them runs no guest code.
   *
   * @returns lets them be what they were
   */
  holdVcpus(): () => void {
    const before = this.vcpus.map((vcpu) => {
      const { bytes } = kvmMpState.alloc();
      vcpu.transfer(KVM.GET_MP_STATE, bytes);
      vcpu.transfer(KVM.SET_MP_STATE, kvmMpState.alloc({ mp_state: MP_STATE_UNINITIALIZED }).bytes);
      return bytes;
    });
    return () => before.forEach((bytes, i) => this.vcpus[i].transfer(KVM.SET_MP_STATE, bytes));
  }

  /** Stops guest time: kvmclock will go on from here when it is thawed. */
  freezeClock(): void {
    const clock = new Uint8Array(kvmClockData.size);
    this.vm.transfer(KVM.GET_CLOCK, clock);
    kvmClockData.view(clock.buffer).flags = 0;
    this.#frozenClock = clock;
  }

  /** Lets guest time go on, and tells the guest that it was paused; without effect if it goes on. */
  thawClock(): void {
    if (!this.#frozenClock) return;
    this.vm.transfer(KVM.SET_CLOCK, this.#frozenClock);
    this.#frozenClock = undefined;
    for (const vcpu of this.vcpus) vcpu.noteKvmclockPause();
  }

  /** Reads kvmclock: the value at which it stands, or the running clock with the host's time. */
  readClock(into: Uint8Array<ArrayBuffer>): void {
    if (this.#frozenClock) into.set(this.#frozenClock);
    else this.vm.transfer(KVM.GET_CLOCK, into);
  }

  /** Sets kvmclock. A value without the host's time stands still until the clock is thawed. */
  writeClock(from: Uint8Array<ArrayBuffer>): void {
    const clock = kvmClockData.view(from.buffer, from.byteOffset);
    // Of the flags only this one may be given back: the others say how the value was read.
    clock.flags &= CLOCK_REALTIME;
    if (clock.flags === 0) this.#frozenClock = Uint8Array.from(from);
    else this.vm.transfer(KVM.SET_CLOCK, from);
  }

  /** Closes vCPUs and VM. No thread may be inside KVM_RUN. */
  close(): void {
    for (const vcpu of this.vcpus) vcpu.close();
    this.vm.close();
  }

  /** Closes vCPUs and VM at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** KVM_MP_STATE_UNINITIALIZED: an application processor before INIT and SIPI. */
const MP_STATE_UNINITIALIZED = 1;
/** KVM_CLOCK_REALTIME: the clock struct carries the wall-clock time it was read at. */
const CLOCK_REALTIME = 4;

/** State of vCPUs, interrupt chips, PIT and kvmclock. */
export class HardwareState {
  readonly vcpus: readonly VcpuState[];
  /** struct kvm_irqchip of each of {@linkcode irqchips}. */
  readonly irqchips: readonly Uint8Array<ArrayBuffer>[];
  /** struct kvm_pit_state2, if the machine has a PIT. */
  readonly pit: Uint8Array<ArrayBuffer> | undefined;
  /** struct kvm_clock_data. */
  readonly clock: Uint8Array<ArrayBuffer> = new Uint8Array(kvmClockData.size);

  /** Makes empty buffers. */
  constructor(vcpus: number, pit: boolean, layout: VcpuStateLayout) {
    this.vcpus = Array.from({ length: vcpus }, () => new VcpuState(layout));
    this.irqchips = irqchips.map((_, id) => {
      const { bytes, view } = kvmIrqchip.alloc();
      view.chip_id = id;
      return bytes;
    });
    this.pit = pit ? new Uint8Array(kvmPitState2.size) : undefined;
  }

  /** Reads everything; all vCPUs are parked. */
  save(from: Hardware): void {
    this.vcpus.forEach((state, i) => state.save(from.vcpus[i]));
    for (const chip of this.irqchips) from.vm.transfer(KVM.GET_IRQCHIP, chip);
    if (this.pit) from.vm.transfer(KVM.GET_PIT2, this.pit);
    from.readClock(this.clock);
  }

  /**
   * Writes everything; all vCPUs are parked.
   *
   * @param options.clock whether to set kvmclock too
   * @param options.tscOffsets whether to set TSCs by their offsets rather than by their values
   */
  restore(to: Hardware, options: { clock: boolean; tscOffsets: boolean }): void {
    if (options.clock) to.writeClock(this.clock);
    this.vcpus.forEach((state, i) => state.restore(to.vcpus[i], options.tscOffsets));
    for (const chip of this.irqchips) to.vm.transfer(KVM.SET_IRQCHIP, chip);
    if (this.pit) to.vm.transfer(KVM.SET_PIT2, this.pit);
  }
}
