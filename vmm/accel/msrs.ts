/**
 * Buffers of MSRs as KVM_GET_MSRS and KVM_SET_MSRS take them (linux/kvm.h, struct kvm_msrs).
 *
 * @module
 */
import { Errno, OsError } from "../../ffi/errno.ts";
import { kvmMsrEntry } from "../../ffi/kvm/structs.ts";

/** Bytes before the first entry. */
const HEAD = 8;

/** A buffer for some MSRs, whose values are 0. */
export function msrBuffer(indices: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  const buffer = new Uint8Array(HEAD + indices.length * kvmMsrEntry.size);
  const data = new DataView(buffer.buffer);
  data.setUint32(0, indices.length, true);
  for (let i = 0; i < indices.length; i++) {
    data.setUint32(HEAD + i * kvmMsrEntry.size, indices[i], true);
  }
  return buffer;
}

/** Whether two buffers of MSRs hold the same ones in the same order, whatever their values. */
export function sameMsrs(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): boolean {
  if (a.length !== b.length) return false;
  const [one, other] = [new DataView(a.buffer, a.byteOffset), new DataView(b.buffer, b.byteOffset)];
  if (one.getUint32(0, true) !== other.getUint32(0, true)) return false;
  for (let at = HEAD; at < a.length; at += kvmMsrEntry.size) {
    if (one.getUint32(at, true) !== other.getUint32(at, true)) return false;
  }
  return true;
}

/** How many MSRs a buffer holds. */
export function msrCount(buffer: Uint8Array<ArrayBuffer>): number {
  return new DataView(buffer.buffer, buffer.byteOffset).getUint32(0, true);
}

/** Where entry `position` of a buffer is: the MSR's number, a u32; its value is a u64, 8 bytes after. */
export function msrOffset(position: number): number {
  return HEAD + position * kvmMsrEntry.size;
}

/** Entry `position` of a buffer: the MSR's number and value. */
export function msrEntry(
  buffer: Uint8Array<ArrayBuffer>,
  position: number,
): { index: number; data: bigint } {
  return kvmMsrEntry.view(buffer.buffer, buffer.byteOffset + msrOffset(position));
}

/**
 * The error of an accelerator that has not gone through all MSRs of a buffer: it names the one at which
 * it stopped.
 */
export function msrError(buffer: Uint8Array<ArrayBuffer>, done: number, syscall: string): OsError {
  return new OsError(syscall, Errno.EINVAL, `0x${msrEntry(buffer, done).index.toString(16)}`);
}
