/**
 * Leaf 0xd: which states XSAVE saves, and where.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import { type FeatureSet, findCpuid } from "./features.ts";

const LEAF = 0xd;
const FIRST_EXTENDED = 2;

/** Legacy region and header (Intel SDM volume 1, "XSAVE-Managed State"). */
const HEAD_SIZE = 512 + 64;

/** x87 and SSE, which every processor with XSAVE has. */
const LEGACY = 0b11;

/** The states of XCR0 that come with a feature, by bit number. */
const STATES: readonly (readonly [feature: string, bits: readonly number[]])[] = [
  ["avx", [2]],
  ["mpx", [3, 4]],
  ["avx512f", [5, 6, 7]],
  ["pku", [9]],
  ["amx-tile", [17, 18]],
];

/**
 * The subleaves of leaf 0xd, none without XSAVE.
 *
 * Offsets and sizes are the processor's and come from KVM. The table has no supervisor states
 * (XSS), because none of the features that need one can be chosen.
 */
export function xsaveLeaves(features: FeatureSet, supported: readonly CpuidEntry[]): CpuidEntry[] {
  if (!features.has("xsave")) return [];
  const wanted = STATES.filter(([feature]) => features.has(feature))
    .flatMap(([, bits]) => bits).reduce((mask, bit) => mask | 1 << bit, LEGACY);
  const mask = wanted & (findCpuid(supported, LEAF)?.eax ?? LEGACY);

  const states: CpuidEntry[] = [];
  for (let bit = FIRST_EXTENDED; bit < 32; bit++) {
    const state = findCpuid(supported, LEAF, bit);
    if (mask >>> bit & 1 && state) states.push({ ...state });
  }
  const size = Math.max(HEAD_SIZE, ...states.map(({ eax, ebx }) => ebx + eax));
  const head = { function: LEAF, flags: 1, edx: 0 };
  return [
    // KVM keeps EBX of both up to date with what the guest has enabled.
    { ...head, index: 0, eax: mask >>> 0, ebx: size, ecx: size },
    { ...head, index: 1, eax: features.word(LEAF, "eax", 1), ebx: 0, ecx: 0 },
    ...states,
  ];
}
