/**
 * The ioctls that move a vCPU's state.
 *
 * @module
 */
import { OsError } from "../../../ffi/errno.ts";
import { KVM, requestName } from "../../../ffi/kvm/ioctl.ts";
import type { MovedPart, TransferFailure, VcpuTransfer } from "../accelerator.ts";
import { msrCount, msrError } from "../msrs.ts";

/** Out of the vCPU or into it. */
export type Direction = "get" | "set";

/** The requests; the size of XSAVE state decides which one gets it. */
export const stateRequests: Record<MovedPart, Readonly<Record<Direction, number>>> = {
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

/** What moving a part returns if all is well. */
export function expectedResult(part: MovedPart, buffer: Uint8Array<ArrayBuffer>): number {
  return part === "msrs" ? msrCount(buffer) : 0;
}

/** The failure of a transfer at one of its parts, from what that has returned. */
export function transferFailure(
  transfer: VcpuTransfer,
  index: number,
  result: number | OsError,
  direction: Direction,
): TransferFailure {
  const [part, buffer] = transfer[index];
  if (result instanceof OsError) return { part, error: result };
  const name = requestName(stateRequests[part][direction]);
  return { part, error: result < 0 ? new OsError(name, -result) : msrError(buffer, result, name) };
}
