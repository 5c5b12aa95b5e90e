/**
 * A vCPU in KVM.
 *
 * @module
 */
import { Capability, GuestDebug, KVM } from "../../../ffi/kvm/ioctl.ts";
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
import { type Direction, expectedResult, stateRequests, transferFailure } from "./state_ioctls.ts";

/** A vCPU; its ioctls work on any thread while it is parked. */
export class KvmAcceleratorVcpu implements AcceleratorVcpu {
  readonly run: RunPage;
  readonly description: RunnerDescription;
  /** The request that gets all of the XSAVE state. */
  readonly getXsave: number;
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
    this.getXsave = isLarge ? KVM.GET_XSAVE2 : KVM.GET_XSAVE;
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
    return part === "xsave" && direction === "get" ? this.getXsave : stateRequests[part][direction];
  }

  #prepare(transfer: VcpuTransfer, direction: Direction): PreparedTransfer {
    const program = this.kvm.prepare(transfer.map(([part, buffer]): PreparedIoctl => ({
      request: this.#request(part, direction),
      buffer: part === "tsc_offset" ? tscOffsetAttribute(buffer) : buffer,
      expected: expectedResult(part, buffer),
    })));
    return () => {
      const failure = program.run();
      if (!failure) return undefined;
      return transferFailure(transfer, failure.index, failure.result, direction);
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
