/**
 * A vCPU in KVM.
 *
 * @module
 */
import { OsError } from "../../../ffi/errno.ts";
import { Capability, GuestDebug, KVM, requestName } from "../../../ffi/kvm/ioctl.ts";
import type { PreparedIoctl } from "../../../ffi/kvm/ioctl_program.ts";
import type { RunPage } from "../../../ffi/kvm/run.ts";
import { kvmGuestDebug, kvmXsave } from "../../../ffi/kvm/structs.ts";
import type { KvmSystem } from "../../../ffi/kvm/system.ts";
import { type KvmVcpu, tscOffsetAttribute } from "../../../ffi/kvm/vcpu.ts";
import { kickThread } from "../../../ffi/process.ts";
import type {
  AcceleratorVcpu,
  DebugControl,
  MovedPart,
  PreparedTransfer,
  RunnerDescription,
  VcpuPart,
  VcpuTransfer,
} from "../accelerator.ts";
import { debugControlRegister } from "../debug_points.ts";
import { msrCount, msrError } from "../msrs.ts";

type Direction = "get" | "set";

const requests: Record<MovedPart, Readonly<Record<Direction, number>>> = {
  mp_state: { get: KVM.GET_MP_STATE, set: KVM.SET_MP_STATE },
  regs: { get: KVM.GET_REGS, set: KVM.SET_REGS },
  sregs: { get: KVM.GET_SREGS, set: KVM.SET_SREGS },
  xsave: { get: KVM.GET_XSAVE, set: KVM.SET_XSAVE },
  xcrs: { get: KVM.GET_XCRS, set: KVM.SET_XCRS },
  debugregs: { get: KVM.GET_DEBUGREGS, set: KVM.SET_DEBUGREGS },
  lapic: { get: KVM.GET_LAPIC, set: KVM.SET_LAPIC },
  msrs: { get: KVM.GET_MSRS, set: KVM.SET_MSRS },
  vcpu_events: { get: KVM.GET_VCPU_EVENTS, set: KVM.SET_VCPU_EVENTS },
  tsc_offset: { get: KVM.GET_DEVICE_ATTR, set: KVM.SET_DEVICE_ATTR },
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
    return this.kvm.transfer(this.#request(part, "get"), into);
  }

  write(part: VcpuPart, from: Uint8Array<ArrayBuffer>): number {
    return this.kvm.transfer(this.#request(part, "set"), from);
  }

  prepareRead(transfer: VcpuTransfer): PreparedTransfer {
    return this.#prepare(transfer, "get");
  }

  prepareWrite(transfer: VcpuTransfer): PreparedTransfer {
    return this.#prepare(transfer, "set");
  }

  #request(part: MovedPart, direction: Direction): number {
    return part === "xsave" && direction === "get" ? this.#getXsave : requests[part][direction];
  }

  #prepare(transfer: VcpuTransfer, direction: Direction): PreparedTransfer {
    const program = this.kvm.prepare(transfer.map(([part, buffer]): PreparedIoctl => ({
      request: this.#request(part, direction),
      buffer: part === "tsc_offset" ? tscOffsetAttribute(buffer) : buffer,
      expected: part === "msrs" ? msrCount(buffer) : 0,
    })));
    return () => {
      const failure = program.run();
      if (!failure) return undefined;
      const { index, result } = failure;
      const [part, buffer] = transfer[index];
      if (result instanceof OsError) return { part, error: result };
      return { part, error: msrError(buffer, result, requestName(requests.msrs[direction])) };
    };
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
