/**
 * Whether a guest that has seen one CPUID table can run on another host.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import { AMD_ALIASES } from "./cpuid.ts";
import { type HostCpu, hostFeatures } from "./definition.ts";
import { describeRegister, FeatureSet, findCpuid } from "./features.ts";

/** Bits that a processor sets by itself or copies from others: they say nothing of the host. */
const SELF_SET = [
  { leaf: 0x1, register: "ecx", mask: 1 << 27 }, // OSXSAVE
  { leaf: 0x7, register: "ecx", mask: 1 << 4 }, // OSPKE
  { leaf: 0x8000_0001, register: "edx", mask: AMD_ALIASES },
] as const;

/**
 * Lists what a saved CPUID table has that a host can't give.
 *
 * @param saved the table that the guest has seen
 * @param host the host it shall run on
 * @returns a line for each, such as `CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]`; empty if the guest
 * can run there
 */
export function compareCpuid(
  saved: readonly CpuidEntry[],
  host: Pick<HostCpu, "supported" | "tscDeadline">,
): string[] {
  const features = FeatureSet.fromCpuid(saved.map(withoutSelfSet));
  return [
    ...features.minus(hostFeatures(host)).describe(),
    ...missingStates(saved, host.supported),
    ...missingAddressBits(saved, host.supported),
  ];
}

/**
 * Says why a guest that has seen one CPUID table cannot run with another, which differs.
 *
 * @param index which vCPU
 * @param saved the table that the guest has seen
 * @param own the table that it would see
 * @param host the host it shall run on
 */
export function describeDifference(
  index: number,
  saved: readonly CpuidEntry[],
  own: readonly CpuidEntry[],
  host: Pick<HostCpu, "supported" | "tscDeadline">,
): string {
  const lacking = compareCpuid(saved, host);
  if (lacking.length > 0) {
    return `CPU ${index} of the saved VM has what this host lacks: ${lacking.join(", ")}`;
  }
  const [seen, shown] = [saved, own].map((table) =>
    FeatureSet.fromCpuid(table.map(withoutSelfSet))
  );
  const differences = [
    ...seen.minus(shown).describe().map((bit) => `only the saved VM has ${bit}`),
    ...shown.minus(seen).describe().map((bit) => `only this VM has ${bit}`),
  ];
  const what = differences.length > 0 ? ` (${differences.join(", ")})` : "";
  return `CPUID of CPU ${index} differs from the saved VM's${what}; start with the same -cpu`;
}

function withoutSelfSet(entry: CpuidEntry): CpuidEntry {
  const result = { ...entry };
  for (const { leaf, register, mask } of SELF_SET) {
    if (entry.function === leaf && entry.index === 0) result[register] &= ~mask;
  }
  return result;
}

/** States of XCR0 that the host's XSAVE doesn't know. */
function missingStates(
  saved: readonly CpuidEntry[],
  supported: readonly CpuidEntry[],
): string[] {
  const missing = (findCpuid(saved, 0xd)?.eax ?? 0) & ~(findCpuid(supported, 0xd)?.eax ?? 0);
  return Array.from({ length: 32 }, (_, bit) => bit).filter((bit) => missing >>> bit & 1)
    .map((bit) => `${describeRegister(0xd, 0, "eax")} [bit ${bit}]`);
}

/** A physical address that the guest may use and the host would fault on. */
function missingAddressBits(
  saved: readonly CpuidEntry[],
  supported: readonly CpuidEntry[],
): string[] {
  const bits = (table: readonly CpuidEntry[]) => (findCpuid(table, 0x8000_0008)?.eax ?? 0) & 0xff;
  if (bits(saved) <= bits(supported)) return [];
  const register = describeRegister(0x8000_0008, undefined, "eax");
  return [`${register} physical address bits ${bits(saved)} (host has ${bits(supported)})`];
}
