// FRNDINT, FSCALE, FXTRACT, FPREM, FPREM1: what works on exponents and whole numbers.
import {
  addFlags,
  copyNumber,
  DIVIDE_BY_ZERO,
  EXPONENT,
  FINITE,
  flags,
  fromInteger,
  HIGH,
  INFINITE,
  KIND,
  rounding,
  setFlags,
  setInfinite,
  setNormalized,
  setRounding,
  setZero,
  SIGN,
  toInteger,
  TOWARD_ZERO,
  ZERO,
} from "./softfloat";
import { invalid } from "./softfloat_arithmetic";
import { EXTENDED_LEAST, packExtended } from "./softfloat_formats";
import {
  A,
  B,
  canPush,
  conclude,
  begin,
  isBelow,
  loadSt,
  noteDenormal,
  propagate,
  propagateOne,
  R,
  stopped,
  storeIndefinite,
  storeResult,
  underflowTo,
} from "./x87_operands";
import {
  C0,
  C1,
  C2,
  C3,
  isEmpty,
  rotate,
  setConditions,
  setInUse,
  st,
  stackFault,
} from "./x87_state";

export function frndint(): void {
  begin();
  if (isEmpty(0)) {
    underflowTo(0);
    return;
  }
  loadSt(A, 0);
  if (!propagateOne()) {
    noteDenormal(A);
    if (stopped()) return;
    copyNumber(R, A);
    if (isBelow(A, 63)) {
      fromInteger(R, load<u32>(A, SIGN) != 0, toInteger(A));
      store<u32>(R, load<u32>(A, SIGN), SIGN);
    }
    // R is exact now, and what toInteger() has found stays.
    packExtended(R, st(0));
    conclude();
    return;
  }
  storeResult(0, 64);
}

/** ST(0), which is in A, stays, and that it is tiny is no underflow; but a pseudo-denormal is normalized. */
function keepTop(): void {
  if (load<u32>(A, KIND) == FINITE && load<i32>(A, EXPONENT) == EXTENDED_LEAST) {
    packExtended(A, st(0));
  }
  conclude();
}

/** Exponents beyond this over- or underflow whatever they are added to. */
const SCALE_LIMIT: i64 = 0x10000;

/** B, truncated, as an exponent to add. */
function scale(): i32 {
  const negative = load<u32>(B, SIGN) != 0;
  if (load<i32>(B, EXPONENT) > 16) return (negative ? -SCALE_LIMIT : SCALE_LIMIT) as i32;
  const before = flags;
  const mode = rounding;
  setRounding(TOWARD_ZERO);
  const magnitude = toInteger(B) as i64;
  setRounding(mode);
  // That B is no whole number is no exception.
  setFlags(before);
  return (negative ? 0 - magnitude : magnitude) as i32;
}

/** R = A * 2^B for what is not both FINITE. */
function scaleSpecial(): void {
  const kindA = load<u32>(A, KIND);
  const sign = load<u32>(A, SIGN);
  if (load<u32>(B, KIND) == INFINITE) {
    const up = load<u32>(B, SIGN) == 0;
    if (up ? kindA == ZERO : kindA == INFINITE) {
      invalid(R);
      return;
    }
    if (up) setInfinite(R, sign);
    else setZero(R, sign);
    noteDenormal(A);
    return;
  }
  copyNumber(R, A);
  noteDenormal(B);
}

export function fscale(): void {
  begin();
  if (isEmpty(0) || isEmpty(1)) {
    underflowTo(0);
    return;
  }
  loadSt(A, 0);
  loadSt(B, 1);
  if (!propagate()) {
    if (load<u32>(B, KIND) == ZERO) {
      noteDenormal(A);
      if (!stopped()) keepTop();
      return;
    }
    if (load<u32>(A, KIND) == FINITE && load<u32>(B, KIND) != INFINITE) {
      noteDenormal(A);
      noteDenormal(B);
      copyNumber(R, A);
      store<i32>(R, load<i32>(A, EXPONENT) + scale(), EXPONENT);
    } else {
      scaleSpecial();
    }
  }
  storeResult(0, 64);
}

/** FXTRACT: ST(0) becomes the exponent, and the significand is pushed. */
export function fxtract(): void {
  begin();
  if (isEmpty(0) || !isEmpty(7)) {
    if (stackFault(!isEmpty(0))) return;
    storeIndefinite(0);
    rotate(-1);
    storeIndefinite(0);
    return;
  }
  loadSt(A, 0);
  if (propagateOne()) {
    copyNumber(A, R);
    copyNumber(B, R);
  } else if (load<u32>(A, KIND) == ZERO) {
    addFlags(DIVIDE_BY_ZERO);
    setInfinite(B, 1);
  } else if (load<u32>(A, KIND) == INFINITE) {
    setInfinite(B, 0);
  } else {
    noteDenormal(A);
    const exponent = load<i32>(A, EXPONENT);
    fromInteger(B, exponent < 0, abs(exponent) as u64);
    store<i32>(A, 0, EXPONENT);
  }
  if (stopped()) return;
  packExtended(B, st(0));
  rotate(-1);
  packExtended(A, st(0));
  setInUse(0);
  conclude();
}

/** The quotient's low bits, of the last partialRemainder(). */
let quotient: u64 = 0;

/**
 * R = A - quotient * B * 2^(difference - steps), |A| >= |B| in exponents: `steps` + 1 bits of the
 * quotient, truncated.
 */
function partialRemainder(difference: i32, steps: i32): void {
  let rest = load<u64>(A, HIGH);
  const divisor = load<u64>(B, HIGH);
  quotient = 0;
  let carry = false;
  for (let i = steps;; i--) {
    quotient <<= 1;
    if (carry || rest >= divisor) {
      rest -= divisor;
      quotient |= 1;
    }
    if (i == 0) break;
    carry = (rest >> 63) != 0;
    rest <<= 1;
  }
  const exponent = load<i32>(B, EXPONENT) + difference - steps;
  setNormalized(R, load<u32>(A, SIGN), exponent, rest, 0);
  if (load<u32>(R, KIND) == ZERO) store<u32>(R, load<u32>(A, SIGN), SIGN);
}

/** FPREM1: the quotient is rounded to nearest instead. */
function adjustToNearest(): void {
  if (load<u32>(R, KIND) == ZERO) return;
  const exponentR = load<i32>(R, EXPONENT);
  const half = load<i32>(B, EXPONENT) - 1;
  const highR = load<u64>(R, HIGH);
  const highB = load<u64>(B, HIGH);
  if (exponentR < half) return;
  if (exponentR == half && (highR < highB || (highR == highB && (quotient & 1) == 0))) return;
  quotient++;
  // |B| - |R|, exactly: R is of the divisor's binade or the one below.
  const sign = load<u32>(R, SIGN) ^ 1;
  const shift = (load<i32>(B, EXPONENT) - exponentR) as u64;
  const low: u64 = shift == 0 ? 0 : highR << (64 - shift);
  const borrow: u64 = low != 0 ? 1 : 0;
  setNormalized(R, sign, load<i32>(B, EXPONENT), highB - (highR >> shift) - borrow, 0 - low);
}

function remainderOfFinite(nearest: bool): void {
  const difference = load<i32>(A, EXPONENT) - load<i32>(B, EXPONENT);
  quotient = 0;
  if (difference >= 64) {
    // As many bits as leave a multiple of 32.
    partialRemainder(difference, 32 + (difference & 31));
    setConditions(C3 | C2 | C1 | C0, C2);
    return;
  }
  if (difference < 0) copyNumber(R, A);
  else partialRemainder(difference, difference);
  if (nearest) adjustToNearest();
  setQuotient();
}

/** The quotient's low three bits are in C0, C3, C1. */
function setQuotient(): void {
  const low = quotient as u32;
  const bits = ((low & 4) != 0 ? C0 : 0) | ((low & 2) != 0 ? C3 : 0) | ((low & 1) != 0 ? C1 : 0);
  setConditions(C3 | C2 | C1 | C0, bits);
}

/** FPREM, FPREM1 (nearest). */
export function fprem(nearest: bool): void {
  begin();
  setConditions(C2, 0);
  if (isEmpty(0) || isEmpty(1)) {
    underflowTo(0);
    return;
  }
  loadSt(A, 0);
  loadSt(B, 1);
  if (!propagate()) {
    const kindA = load<u32>(A, KIND);
    const kindB = load<u32>(B, KIND);
    if (kindA == INFINITE || kindB == ZERO) {
      invalid(R);
    } else if (kindA == ZERO || kindB == INFINITE) {
      noteDenormal(A);
      noteDenormal(B);
      if (stopped()) return;
      quotient = 0;
      setQuotient();
      keepTop();
      return;
    } else {
      noteDenormal(A);
      noteDenormal(B);
      if (stopped()) return;
      remainderOfFinite(nearest);
    }
  }
  storeResult(0, 64);
}
