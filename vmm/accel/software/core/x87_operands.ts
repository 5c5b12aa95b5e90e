// The numbers that an x87 instruction computes with, the rules for NaNs (SDM 1, table 4-7 and 8.5.1), and
// how a result becomes a register with its exceptions.
import {
  addFlags,
  copyNumber,
  DENORMAL,
  DENORMAL_OPERAND,
  EXPONENT,
  FINITE,
  flags,
  HIGH,
  INEXACT,
  INVALID,
  KIND,
  QUIET_NAN,
  round,
  roundedUp,
  setControl,
  SIGN,
  SIGNALLING_NAN,
  UNSUPPORTED,
} from "./softfloat";
import { invalid } from "./softfloat_arithmetic";
import { EXTENDED_LARGEST, EXTENDED_LEAST, packExtended, unpackExtended } from "./softfloat_formats";
import {
  C1,
  isEmpty,
  rotate,
  setConditions,
  setInUse,
  signal,
  st,
  stackFault,
  X87_FCW,
} from "./x87_state";

export const A: usize = memory.data(32, 16);
export const B: usize = memory.data(32, 16);
export const R: usize = memory.data(32, 16);

/** The exceptions that are known before there is a result: unmasked, they leave everything as it is. */
const BEFORE_RESULT: u32 = 7;

/** Takes rounding and masks out of FCW. */
export function readControl(): void {
  const fcw = load<u16>(X87_FCW) as u32;
  setControl((fcw >> 10) & 3, fcw & 0x3f, false);
}

/** What nearly all instructions begin with: C1 is 0 until it is known better. */
export function begin(): void {
  readControl();
  setConditions(C1, 0);
}

/** Bits of significand that FCW.PC asks for. */
export function precision(): u32 {
  const control = ((load<u16>(X87_FCW) as u32) >> 8) & 3;
  return control == 0 ? 24 : control == 2 ? 53 : 64;
}

export function loadSt(to: usize, i: u32): void {
  unpackExtended(to, st(i));
}

export function isNaN(a: usize): bool {
  return load<u32>(a, KIND) >= QUIET_NAN;
}

export function isSignalling(a: usize): bool {
  return load<u32>(a, KIND) >= SIGNALLING_NAN;
}

/** The result for two NaNs: the one with the larger significand, a quiet one before a signalling one. */
function larger(): usize {
  const quietA = load<u32>(A, KIND) == QUIET_NAN;
  const quietB = load<u32>(B, KIND) == QUIET_NAN;
  if (quietA != quietB) return quietA ? A : B;
  const highA = load<u64>(A, HIGH);
  const highB = load<u64>(B, HIGH);
  if (highA != highB) return highA > highB ? A : B;
  return load<u32>(A, SIGN) == 0 ? A : B;
}

/** If A or B is no number: R is the result, with the flag of an invalid operand. */
export function propagate(): bool {
  if (!isNaN(A) && !isNaN(B)) return false;
  if (load<u32>(A, KIND) == UNSUPPORTED || load<u32>(B, KIND) == UNSUPPORTED) {
    invalid(R);
    return true;
  }
  if (isSignalling(A) || isSignalling(B)) addFlags(INVALID);
  const result = !isNaN(B) ? A : !isNaN(A) ? B : larger();
  copyNumber(R, result);
  store<u32>(R, QUIET_NAN, KIND);
  return true;
}

/** Like propagate() for instructions with one operand. */
export function propagateOne(): bool {
  if (!isNaN(A)) return false;
  if (load<u32>(A, KIND) == UNSUPPORTED) {
    invalid(R);
    return true;
  }
  if (isSignalling(A)) addFlags(INVALID);
  copyNumber(R, A);
  store<u32>(R, QUIET_NAN, KIND);
  return true;
}

export function noteDenormal(a: usize): void {
  if (load<u32>(a, DENORMAL) != 0) addFlags(DENORMAL_OPERAND);
}

/** Whether an exception prevents a result; it is signalled then. */
export function stopped(): bool {
  if ((flags & BEFORE_RESULT & ~(load<u16>(X87_FCW) as u32)) == 0) return false;
  signal(flags & BEFORE_RESULT);
  return true;
}

/** Signals what has been collected; C1 tells whether an inexact result was rounded up. */
export function conclude(): void {
  signal(flags);
  if ((flags & INEXACT) != 0 && roundedUp) setConditions(C1, C1);
}

/** Rounds R to `bits` and stores it in ST(to); false if an exception has prevented it. */
export function storeResult(to: u32, bits: u32): bool {
  if (stopped()) return false;
  round(R, bits, EXTENDED_LEAST, EXTENDED_LARGEST);
  packExtended(R, st(to));
  setInUse(to);
  conclude();
  return true;
}

/** Stores the indefinite NaN in ST(to). */
export function storeIndefinite(to: u32): void {
  store<u64>(st(to), (3 as u64) << 62);
  store<u16>(st(to), 0xffff, 8);
  setInUse(to);
}

/** An empty operand: ST(to) becomes indefinite if that is masked; false if it is not. */
export function underflowTo(to: u32): bool {
  if (stackFault(false)) return false;
  storeIndefinite(to);
  return true;
}

/** Makes room for a push; true if there was some, else a fault has been handled. */
export function canPush(): bool {
  if (isEmpty(7)) return true;
  if (!stackFault(true)) {
    rotate(-1);
    storeIndefinite(0);
  }
  return false;
}

/** Whether a number is FINITE and of less than 2^bits. */
export function isBelow(a: usize, bits: i32): bool {
  return load<u32>(a, KIND) == FINITE && load<i32>(a, EXPONENT) < bits;
}
