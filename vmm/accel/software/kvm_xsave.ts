/**
 * The software CPU's x87 and SSE registers as KVM_GET_XSAVE gives and KVM_SET_XSAVE takes them: XSAVE's
 * standard format (Intel SDM volume 1, 13.4), of which the first two components are there.
 *
 * @module
 */
import { Errno, OsError } from "../../../ffi/errno.ts";
import { kvmXsave, xsaveHead } from "../../../ffi/kvm/structs.ts";
import { fxsaveIn, fxsaveOut } from "./fxsave.ts";
import type { CpuState } from "./kvm_state.ts";

/** Bytes of struct kvm_xsave. */
export const XSAVE_SIZE: number = kvmXsave.size;

const LEGACY = 512;
const X87 = 1n;
const SSE = 2n;
/** What a component is that the header says is in its initial state (SDM volume 1, 13.6). */
const INITIAL_FCW = 0x37f;
const INITIAL_MXCSR = 0x1f80;
const MXCSR_MASK = 0xffff;

/** KVM_GET_XSAVE. */
export function readXsave(state: CpuState, into: Uint8Array<ArrayBuffer>): void {
  into.fill(0);
  into.set(fxsaveOut(state.fxsave));
  const head = xsaveHead.view(into.buffer, into.byteOffset);
  head.mxcsr_mask = MXCSR_MASK;
  head.xstate_bv = X87 | SSE;
}

/**
 * KVM_SET_XSAVE. Components that the CPU does not have are left out: KVM on a processor that has them
 * may save them of a guest that has never been able to reach them, which its XCR0 says.
 *
 * @throws {OsError} EINVAL for another format, and for bits of MXCSR that there are not
 */
export function writeXsave(state: CpuState, from: Uint8Array<ArrayBuffer>): void {
  const { bytes, view } = xsaveHead.alloc();
  bytes.set(from.subarray(0, xsaveHead.size));
  if (view.xcomp_bv !== 0n || view.mxcsr & ~MXCSR_MASK) {
    const [format, mxcsr] = [view.xcomp_bv.toString(16), view.mxcsr.toString(16)];
    throw new OsError("KVM_SET_XSAVE", Errno.EINVAL, `xcomp_bv 0x${format}, mxcsr 0x${mxcsr}`);
  }
  if (!(view.xstate_bv & X87)) {
    bytes.fill(0, 0, xsaveHead.offsets.mxcsr);
    bytes.fill(0, xsaveHead.offsets.st, xsaveHead.offsets.xmm);
    view.fcw = INITIAL_FCW;
  }
  if (!(view.xstate_bv & SSE)) {
    bytes.fill(0, xsaveHead.offsets.xmm, xsaveHead.offsets.reserved_416);
    view.mxcsr = INITIAL_MXCSR;
  }
  view.mxcsr_mask = MXCSR_MASK;
  state.fxsave.set(fxsaveIn(bytes.subarray(0, LEGACY)));
}
