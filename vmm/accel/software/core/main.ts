// What the module exports.
import { RESERVED_ADDRESS } from "./derived";
import { modeChanged } from "./mode";
import { resetTlb } from "./tlb";

/** Physical address bits that the CPU has, as its CPUID leaf 0x80000008 says. */
const PHYSICAL_BITS: u64 = 40;

/** Rebuilds what is derived from the state; to be called after anyone else has changed that. */
export function refresh(): void {
  store<u64>(RESERVED_ADDRESS, 0x000f_ffff_ffff_ffff & ~(((1 as u64) << PHYSICAL_BITS) - 1));
  resetTlb();
  modeChanged();
}
