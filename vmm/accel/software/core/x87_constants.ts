// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ: kept to more than 64 bits and rounded as FCW.RC says.
import { NEAREST, rounding, UP } from "./softfloat";
import { begin, canPush } from "./x87_operands";
import { pushRaw } from "./x87_memory";

/** Significands truncated to 64 bits, by ModRM.rm of D9 E8 to EE. */
const SIGNIFICANDS: StaticArray<u64> = [
  0x8000000000000000,
  0xd49a784bcd1b8afe, // log2(10) = 3.32...
  0xb8aa3b295c17f0bb, // log2(e) = 1.44...
  0xc90fdaa22168c234, // pi
  0x9a209a84fbcff798, // log10(2) = 0.301...
  0xb17217f7d1cf79ab, // ln(2) = 0.693...
  0,
];
const EXPONENTS: StaticArray<u16> = [0x3fff, 0x4000, 0x3fff, 0x4000, 0x3ffd, 0x3ffe, 0];
/** Whether more than half a unit has been cut off: rounding to nearest adds one. */
const ROUNDS_UP: StaticArray<bool> = [false, false, true, true, true, true, false];

export function loadConstant(which: u32): void {
  begin();
  if (!canPush()) return;
  let significand = unchecked(SIGNIFICANDS[which]);
  const exact = which == 0 || which == 6;
  if (!exact && (rounding == NEAREST ? unchecked(ROUNDS_UP[which]) : rounding == UP)) significand++;
  pushRaw(significand, unchecked(EXPONENTS[which]));
}
