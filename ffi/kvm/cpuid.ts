/**
 * CPUID leaves as KVM takes and gives them (linux/kvm.h, struct kvm_cpuid2).
 *
 * @module
 */
import { kvmCpuidEntry2 } from "./structs.ts";

/** One CPUID leaf (struct kvm_cpuid_entry2). */
export interface CpuidEntry {
  function: number;
  index: number;
  flags: number;
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

/** Packs leaves as struct kvm_cpuid2. */
export function encodeCpuid(entries: readonly CpuidEntry[]): Uint8Array<ArrayBuffer> {
  const buffer = new Uint8Array(8 + entries.length * kvmCpuidEntry2.size);
  new Uint32Array(buffer.buffer, 0, 1)[0] = entries.length;
  entries.forEach((entry, i) => {
    const at = kvmCpuidEntry2.view(buffer.buffer, 8 + i * kvmCpuidEntry2.size);
    at.function = entry.function;
    at.index = entry.index;
    at.flags = entry.flags;
    at.eax = entry.eax;
    at.ebx = entry.ebx;
    at.ecx = entry.ecx;
    at.edx = entry.edx;
  });
  return buffer;
}

/** Unpacks a struct kvm_cpuid2. @throws {RangeError} if it is cut short */
export function decodeCpuid(buffer: Uint8Array<ArrayBuffer>): CpuidEntry[] {
  const count = new DataView(buffer.buffer, buffer.byteOffset, 8).getUint32(0, true);
  if (8 + count * kvmCpuidEntry2.size > buffer.length) {
    throw new RangeError(`CPUID table says ${count} entries but has only ${buffer.length} bytes`);
  }
  return Array.from({ length: count }, (_, i) => {
    const e = kvmCpuidEntry2.view(buffer.buffer, buffer.byteOffset + 8 + i * kvmCpuidEntry2.size);
    return {
      function: e.function,
      index: e.index,
      flags: e.flags,
      eax: e.eax,
      ebx: e.ebx,
      ecx: e.ecx,
      edx: e.edx,
    };
  });
}
