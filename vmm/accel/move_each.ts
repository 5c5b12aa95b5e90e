/**
 * Moving a vCPU's state part by part, where there is nothing to prepare.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import type { MovedPart, TransferFailure, VcpuTransfer } from "./accelerator.ts";
import { msrCount, msrError } from "./msrs.ts";

/**
 * Moves parts up to the first that fails.
 *
 * @param transfer the parts, and their buffers
 * @param msrsCall the name under which a failure names an MSR
 * @param move moves one; for `msrs`, returns how many it has moved
 */
export function moveEach(
  transfer: VcpuTransfer,
  msrsCall: string,
  move: (part: MovedPart, buffer: Uint8Array<ArrayBuffer>) => number,
): TransferFailure | undefined {
  for (const [part, buffer] of transfer) {
    try {
      const done = move(part, buffer);
      if (part !== "msrs" || done === msrCount(buffer)) continue;
      return { part, error: msrError(buffer, done, msrsCall) };
    } catch (error) {
      if (error instanceof OsError) return { part, error };
      throw error;
    }
  }
}
