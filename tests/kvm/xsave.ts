/**
 * XSAVE areas as they compare.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";

/** Where XSTATE_BV lies (Intel SDM volume 1, 13.4.2). */
const XSTATE_BV = 512;

/** The parts of the area that a state component has, and what they hold initially. */
interface Component {
  readonly bit: number;
  readonly parts: readonly (readonly [start: number, end: number])[];
  /** Initial bytes other than 0, by offset. */
  readonly initial: Readonly<Record<number, number>>;
}

/**
 * Components of the legacy region (SDM volume 1, 13.4.1 and 13.6): x87 with FCW 037FH, and SSE's
 * XMM registers. MXCSR belongs to neither's initial configuration, and is compared as it is.
 */
const legacy: readonly Component[] = [
  { bit: 0, parts: [[0, 24], [32, 160]], initial: { 0: 0x7f, 1: 0x03 } },
  { bit: 1, parts: [[160, 416]], initial: {} },
];

/** The components that CPUID leaf 0DH describes; all are 0 initially. */
function extended(cpuid: readonly CpuidEntry[]): Component[] {
  return cpuid
    .filter((entry) => entry.function === 0xd && entry.index >= 2 && entry.eax > 0)
    // Supervisor components (ECX bit 0) have no place in the standard format.
    .filter((entry) => (entry.ecx & 1) === 0)
    .map(({ index, eax, ebx }) => ({ bit: index, parts: [[ebx, ebx + eax]], initial: {} }));
}

/**
 * An XSAVE area of the standard format in the one form that all have that say the same.
 *
 * A component whose bit in XSTATE_BV is clear is in its initial configuration; whether the processor
 * sets the bit of one that is in that configuration anyway is its own choice, from one time to the
 * next (SDM volume 1, 13.6). Here the bit is clear for both.
 *
 * @param cpuid leaves that describe all components of the area
 */
export function canonicalXsave(
  area: Uint8Array,
  cpuid: readonly CpuidEntry[],
): Uint8Array<ArrayBuffer> {
  const result = Uint8Array.from(area);
  const view = new DataView(result.buffer);
  let inUse = view.getBigUint64(XSTATE_BV, true);
  for (const component of [...legacy, ...extended(cpuid)]) {
    const bit = 1n << BigInt(component.bit);
    if ((inUse & bit) === 0n) reset(result, component);
    else if (isInitial(result, component)) inUse &= ~bit;
  }
  view.setBigUint64(XSTATE_BV, inUse, true);
  return result;
}

function reset(area: Uint8Array, { parts, initial }: Component): void {
  for (const [start, end] of parts) area.fill(0, start, end);
  for (const [at, value] of Object.entries(initial)) area[Number(at)] = value;
}

function isInitial(area: Uint8Array, { parts, initial }: Component): boolean {
  return parts.every(([start, end]) =>
    area.subarray(start, end).every((byte, i) => byte === (initial[start + i] ?? 0))
  );
}
