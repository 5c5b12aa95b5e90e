/**
 * A vCPU in KVM.
 *
 * @module
 */
import { Capability, GuestDebug, KVM } from "../../../ffi/kvm/ioctl.ts";
import type { RunPage } from "../../../ffi/kvm/run.ts";
import { kvmGuestDebug, kvmXsave } from "../../../ffi/kvm/structs.ts";
import type { KvmSystem } from "../../../ffi/kvm/system.ts";
import type { KvmVcpu } from "../../../ffi/kvm/vcpu.ts";
import { kickThread } from "../../../ffi/process.ts";
import type { AcceleratorVcpu, DebugControl, RunnerDescription, VcpuPart } from "../accelerator.ts";
import { debugControlRegister } from "../debug_points.ts";

const requests: Record<VcpuPart, { get: number; set: number }> = {
  mp_state: { get: KVM.GET_MP_STATE, set: KVM.SET_MP_STATE },
  regs: { get: KVM.GET_REGS, set: KVM.SET_REGS },
  sregs: { get: KVM.GET_SREGS, set: KVM.SET_SREGS },
  xsave: { get: KVM.GET_XSAVE, set: KVM.SET_XSAVE },
  xcrs: { get: KVM.GET_XCRS, set: KVM.SET_XCRS },
  debugregs: { get: KVM.GET_DEBUGREGS, set: KVM.SET_DEBUGREGS },
  lapic: { get: KVM.GET_LAPIC, set: KVM.SET_LAPIC },
  msrs: { get: KVM.GET_MSRS, set: KVM.SET_MSRS },
  vcpu_events: { get: KVM.GET_VCPU_EVENTS, set: KVM.SET_VCPU_EVENTS },
};

/** A vCPU; its ioctls work on any thread while it is parked. */
export class KvmAcceleratorVcpu implements AcceleratorVcpu {
  readonly run: RunPage;
  readonly description: RunnerDescription;
  readonly #getXsave: number;
  /** GuestDebug bits for a single step. */
  readonly #singleStep: number;

  /**
   * @param kvm the vCPU
   * @param system the KVM that it is in
   */
  constructor(readonly kvm: KvmVcpu, system: KvmSystem) {
    this.run = kvm.run;
    this.description = {
      accelerator: "kvm",
      fd: kvm.fd.fd,
      runAddress: kvm.runMapping.address,
      runSize: kvm.runMapping.size,
    };
    const isLarge = system.capability(Capability.XSAVE2) > kvmXsave.size;
    const known = system.capability(Capability.SET_GUEST_DEBUG2);
    this.#singleStep = GuestDebug.SINGLESTEP | (known & GuestDebug.BLOCKIRQ);
    this.#getXsave = isLarge ? KVM.GET_XSAVE2 : KVM.GET_XSAVE;
  }

  get tscKhz(): number {
    return this.kvm.tscKhz;
  }

  read(part: VcpuPart, into: Uint8Array<ArrayBuffer>): number {
    return this.kvm.transfer(part === "xsave" ? this.#getXsave : requests[part].get, into);
  }

  write(part: VcpuPart, from: Uint8Array<ArrayBuffer>): number {
    return this.kvm.transfer(requests[part].set, from);
  }

  readTscOffset(into: Uint8Array<ArrayBuffer>): void {
    this.kvm.readTscOffset(into);
  }

  writeTscOffset(from: Uint8Array<ArrayBuffer>): void {
    this.kvm.writeTscOffset(from);
  }

  settleTimer(): void {
    this.kvm.settleTimer();
  }

  noteKvmclockPause(): void {
    this.kvm.noteKvmclockPause();
  }

  nmi(): void {
    this.kvm.nmi();
  }

  debug(control: DebugControl | undefined): void {
    const { bytes, view } = kvmGuestDebug.alloc();
    if (control) {
      view.control = GuestDebug.ENABLE | (control.singleStep ? this.#singleStep : 0) |
        (control.points.length > 0 ? GuestDebug.USE_HW_BP : 0);
      control.points.forEach(({ address }, i) => view.debugreg.put(i, address));
      view.debugreg.put(7, debugControlRegister(control.points));
    }
    this.kvm.transfer(KVM.SET_GUEST_DEBUG, bytes);
  }

  translate(linear: bigint): bigint | undefined {
    return this.kvm.translate(linear);
  }

  allow(): void {
    this.run.immediateExit = false;
  }

  halt(threadId: number): void {
    this.run.immediateExit = true;
    kickThread(threadId);
  }

  interrupt(threadId: number): void {
    kickThread(threadId);
  }

  /** Closes the vCPU. Its thread is not inside KVM_RUN. */
  close(): void {
    this.kvm.close();
  }
}
