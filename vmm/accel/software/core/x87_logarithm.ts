// 2^x - 1 and y * log2(x) of FINITE numbers.
import {
  LN2_EXPONENT,
  LN2_HIGH,
  LN2_LOW,
  RECIPROCAL_FACTORIALS,
  RECIPROCALS_OF_ODD,
  TWO_BY_LN2_EXPONENT,
  TWO_BY_LN2_HIGH,
  TWO_BY_LN2_LOW,
} from "./x87_coefficients";
import {
  addFinite,
  copyNumber,
  EXPONENT,
  FINITE,
  fromInteger,
  HIGH,
  KIND,
  LOW,
  setFinite,
  setNormalized,
  setZero,
  SIGN,
  ZERO,
} from "./softfloat";
import {
  addNumbers,
  divideNumbers,
  fractionHigh,
  fractionLow,
  multiplyByFraction,
  multiplyFraction,
  multiplyNumbers,
  series,
  setConstant,
  setInexact,
  squareToFraction,
  toFraction,
} from "./softfloat_wide";

const ONE: usize = memory.data(32, 16);
const M: usize = memory.data(32, 16);
const S: usize = memory.data(32, 16);
const U: usize = memory.data(32, 16);

/** r = 2^a - 1 for a between -1 and 1. */
export function exponentialMinusOne(r: usize, a: usize): void {
  setConstant(M, LN2_EXPONENT, LN2_HIGH, LN2_LOW);
  multiplyNumbers(M, M, a);
  toFraction(M);
  const high = fractionHigh;
  const low = fractionLow;
  // e^x - 1 = x + x * (x/2! + x^2/3! + ...)
  series(RECIPROCAL_FACTORIALS, 0, 1, 35, load<u32>(a, SIGN) != 0, high, low);
  multiplyFraction(high, low);
  multiplyByFraction(U, M, fractionHigh, fractionLow);
  if (load<u32>(U, KIND) == FINITE) addNumbers(r, M, U, load<u32>(a, SIGN) != 0);
  else copyNumber(r, M);
  setInexact(r);
}

/** r = log2((1 + s) / (1 - s)), where S is s, below 0.172. */
function logarithmOfQuotient(r: usize): void {
  squareToFraction(S);
  const high = fractionHigh;
  const low = fractionLow;
  // 2/ln 2 * s * (1 + s^2/3 + s^4/5 + ...)
  series(RECIPROCALS_OF_ODD, 0, 1, 27, false, high, low);
  multiplyFraction(high, low);
  const restHigh = fractionHigh;
  const restLow = fractionLow;
  setConstant(M, TWO_BY_LN2_EXPONENT, TWO_BY_LN2_HIGH, TWO_BY_LN2_LOW);
  multiplyNumbers(M, M, S);
  multiplyByFraction(U, M, restHigh, restLow);
  if (load<u32>(U, KIND) == FINITE) addFinite(r, M, U, false);
  else copyNumber(r, M);
}

/** The significand of the square root of 2. */
const ROOT_2: u64 = 0xb504f333f9de6484;

/** r = log2(a), a positive with up to 128 bits; for a power of 2 a whole number. */
function logarithm(r: usize, a: usize): void {
  copyNumber(M, a);
  const above = load<u64>(a, HIGH) > ROOT_2;
  const exponent = load<i32>(a, EXPONENT) + (above ? 1 : 0);
  store<i32>(M, above ? -1 : 0, EXPONENT);
  setFinite(ONE, 0, 0, (1 as u64) << 63, 0);
  addNumbers(S, M, ONE, true);
  if (load<u32>(S, KIND) == ZERO) {
    fromInteger(r, exponent < 0, abs(exponent) as u64);
    return;
  }
  addNumbers(U, M, ONE, false);
  divideNumbers(S, S, U);
  logarithmOfQuotient(r);
  fromInteger(ONE, exponent < 0, abs(exponent) as u64);
  addNumbers(r, r, ONE, false);
  setInexact(r);
}

/** What the processor has for a whole logarithm's product: the exact one less a little. */
function justBelow(r: usize): void {
  const low = load<u64>(r, LOW);
  setNormalized(
    r,
    load<u32>(r, SIGN),
    load<i32>(r, EXPONENT),
    load<u64>(r, HIGH) - (low == 0 ? 1 : 0),
    low - 1,
  );
}

/** r = y * log2(x), x positive. */
export function timesLogarithm(r: usize, y: usize, x: usize): void {
  logarithm(r, x);
  if (load<u32>(r, KIND) == ZERO) {
    setZero(r, load<u32>(y, SIGN));
    return;
  }
  const whole = (load<u64>(r, LOW) & 1) == 0;
  multiplyNumbers(r, r, y);
  if (whole) justBelow(r);
  setInexact(r);
}

/** r = y * log2(1 + x), x more than -1. */
export function timesLogarithmOfOnePlus(r: usize, y: usize, x: usize): void {
  setFinite(ONE, 0, 0, (1 as u64) << 63, 0);
  if (load<i32>(x, EXPONENT) < -2) {
    // log2(1 + x) = log2((1 + s) / (1 - s)) for s = x / (2 + x)
    setFinite(U, 0, 1, (1 as u64) << 63, 0);
    addNumbers(U, U, x, false);
    divideNumbers(S, x, U);
    logarithmOfQuotient(r);
    setInexact(r);
  } else {
    addNumbers(S, ONE, x, false);
    copyNumber(r, S);
    logarithm(r, S);
  }
  multiplyNumbers(r, r, y);
  setInexact(r);
}
