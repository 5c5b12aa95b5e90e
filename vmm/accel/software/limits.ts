/**
 * What a CPUID table lets a vCPU's registers have, as KVM checks it when state is set.
 *
 * The CPU checks the same for the guest's own writes in core/cpuid.ts.
 *
 * @module
 */
import type { CpuidEntry } from "../../../ffi/kvm/cpuid.ts";
import { findCpuid } from "../../cpu/features.ts";

/** Which bits of its registers a vCPU may set. */
export interface CpuLimits {
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly xcr0: bigint;
  /** Bits of a physical address. */
  readonly physicalBits: number;
}

type Register = "eax" | "ebx" | "ecx" | "edx";
/** Leaf, register and bit of a feature, and the bit of CR4 or EFER that is its own. */
type FeatureBit = readonly [leaf: number, register: Register, bit: number, own: number];

/** CR4 (Intel SDM volume 3, 2.5). */
const CR4_FEATURES: readonly FeatureBit[] = [
  [1, "edx", 4, 2], // TSD
  [1, "edx", 2, 3], // DE
  [1, "edx", 3, 4], // PSE
  [1, "edx", 6, 5], // PAE
  [1, "edx", 7, 6], // MCE
  [1, "edx", 13, 7], // PGE
  [1, "edx", 24, 9], // OSFXSR
  [1, "edx", 25, 10], // OSXMMEXCPT
  [7, "ecx", 2, 11], // UMIP
  [7, "ecx", 16, 12], // LA57
  [7, "ebx", 0, 16], // FSGSBASE
  [1, "ecx", 17, 17], // PCIDE
  [1, "ecx", 26, 18], // OSXSAVE
  [7, "ebx", 7, 20], // SMEP
  [7, "ebx", 20, 21], // SMAP
];
/** PCE needs no feature. */
const CR4_ALWAYS = 1n << 8n;

/** EFER (AMD APM volume 2, 3.1.7). */
const EFER_FEATURES: readonly FeatureBit[] = [
  [0x8000_0001, "edx", 11, 0], // SCE
  [0x8000_0001, "edx", 29, 8], // LME
  [0x8000_0001, "edx", 29, 10], // LMA
  [0x8000_0001, "edx", 20, 11], // NXE
  [0x8000_0001, "edx", 25, 14], // FFXSR
];

/** The x87 state, which XCR0 always has. */
const XCR0_X87 = 1n;
/** What a CPU has whose leaf 0x80000008 says nothing. */
const LEAST_PHYSICAL_BITS = 36;

/** Works out the limits of a CPUID table. */
export function cpuLimits(cpuid: readonly CpuidEntry[]): CpuLimits {
  const find = (leaf: number) => findCpuid(cpuid, leaf);
  const bits = (features: readonly FeatureBit[]) =>
    features.reduce((all, [leaf, register, bit, own]) => {
      const set = ((find(leaf)?.[register] ?? 0) >>> bit) & 1;
      return all | (BigInt(set) << BigInt(own));
    }, 0n);
  return {
    cr4: CR4_ALWAYS | bits(CR4_FEATURES),
    efer: bits(EFER_FEATURES),
    xcr0: XCR0_X87 | BigInt(find(0xd)?.eax ?? 0),
    physicalBits: ((find(0x8000_0008)?.eax ?? 0) & 0xff) || LEAST_PHYSICAL_BITS,
  };
}
