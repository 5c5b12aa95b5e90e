/**
 * A debugger's points as the processor's debug registers have them.
 *
 * @module
 */
import type { DebugPoint } from "./accelerator.ts";

/** DR7's R/W and LEN fields (Intel SDM volume 3, 19.2.4). */
const CONDITIONS = { execute: 0, write: 1, access: 3 } as const;
const LENGTHS: Readonly<Record<number, number>> = { 1: 0, 2: 1, 8: 2, 4: 3 };
/** Bit 10, which is always set, and GE. */
const DR7_FIXED = 0x600;

/** DR7 that enables the points for all tasks. */
export function debugControlRegister(points: readonly DebugPoint[]): bigint {
  const bits = points.map(({ on, length }, i) =>
    BigInt(CONDITIONS[on] | LENGTHS[length] << 2) << BigInt(16 + 4 * i) | 2n << BigInt(2 * i)
  );
  return bits.reduce((all, one) => all | one, BigInt(DR7_FIXED));
}
