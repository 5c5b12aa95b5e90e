/**
 * The caches of a portable model, which are no host's.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";

/** Leaves that say what caches there are, Intel's and AMD's. */
const CACHE_LEAVES = [0x2, 0x4, 0x8000_0005, 0x8000_0006, 0x8000_001d];

function leaf(
  number: number,
  index: number | undefined,
  registers: readonly [eax: number, ebx: number, ecx: number, edx: number],
): CpuidEntry {
  const [eax, ebx, ecx, edx] = registers;
  const flags = index === undefined ? 0 : 1;
  return { function: number, index: index ?? 0, flags, eax, ebx, ecx, edx };
}

/**
 * 32 KiB of data and 32 KiB of code, eight ways each, and 2 MiB for both, eight ways, in lines of 64
 * bytes: descriptors 0x2c, 0x30 and 0x7d of leaf 2, and the same in leaf 4 (Intel SDM volume 2,
 * CPUID) and in AMD's leaves (APM volume 3, E.4.4 and E.4.5). Guests divide by what they read there.
 */
const PORTABLE: readonly CpuidEntry[] = [
  leaf(0x2, undefined, [0x01, 0, 0, 0x002c_307d]),
  leaf(0x4, 0, [0x121, 0x01c0_003f, 63, 0]),
  leaf(0x4, 1, [0x122, 0x01c0_003f, 63, 0]),
  leaf(0x4, 2, [0x143, 0x01c0_003f, 4095, 0]),
  leaf(0x8000_0005, undefined, [0x01ff_01ff, 0x01ff_01ff, 0x2008_0140, 0x2008_0140]),
  leaf(0x8000_0006, undefined, [0, 0x4200_4200, 0x0800_6140, 0]),
];

/** The leaves that a host supports, with a portable model's caches instead of its own. */
export function withPortableCaches(supported: readonly CpuidEntry[]): readonly CpuidEntry[] {
  return [
    ...supported.filter((entry) => !CACHE_LEAVES.includes(entry.function)),
    ...PORTABLE.map((entry) => ({ ...entry })),
  ];
}
