// Numbers with all 128 bits of significand, and fractions of 2^128: what the transcendental functions are
// computed in, so that their errors are far below the 64 bits of the result.
import {
  addFinite,
  copyNumber,
  divideFinite,
  EXPONENT,
  FINITE,
  HIGH,
  KIND,
  LOW,
  multiplyWide,
  setFinite,
  setNormalized,
  shiftRightSticky,
  SIGN,
  wideHigh,
  wideLow,
  ZERO,
} from "./softfloat";

/** Scratch of divideNumbers(). */
const QUOTIENT: usize = memory.data(32, 16);
const REST: usize = memory.data(32, 16);
const DIVISOR: usize = memory.data(32, 16);

/** wideHigh:wideLow = the upper 128 bits of the product of two times 128, about. */
function multiplyUpper(ah: u64, al: u64, bh: u64, bl: u64): void {
  multiplyWide(ah, bl);
  const first = wideHigh;
  multiplyWide(al, bh);
  const second = wideHigh;
  multiplyWide(ah, bh);
  let high = wideHigh;
  let low = wideLow + first;
  if (low < first) high++;
  low += second;
  if (low < second) high++;
  fractionHigh = high;
  fractionLow = low;
}

/** The result of what computes with fractions of 2^128. */
export let fractionHigh: u64 = 0;
export let fractionLow: u64 = 0;

/** r = a * b, both FINITE or zero. */
export function multiplyNumbers(r: usize, a: usize, b: usize): void {
  const sign = load<u32>(a, SIGN) ^ load<u32>(b, SIGN);
  const exponent = load<i32>(a, EXPONENT) + load<i32>(b, EXPONENT) + 1;
  multiplyUpper(load<u64>(a, HIGH), load<u64>(a, LOW), load<u64>(b, HIGH), load<u64>(b, LOW));
  setNormalized(r, sign, exponent, fractionHigh, fractionLow);
}

/** r = a * fraction. */
export function multiplyByFraction(r: usize, a: usize, high: u64, low: u64): void {
  multiplyUpper(load<u64>(a, HIGH), load<u64>(a, LOW), high, low);
  setNormalized(r, load<u32>(a, SIGN), load<i32>(a, EXPONENT), fractionHigh, fractionLow);
}

/** r = a + b, where either may be zero. */
export function addNumbers(r: usize, a: usize, b: usize, subtract: bool): void {
  if (load<u32>(b, KIND) == ZERO) {
    copyNumber(r, a);
  } else if (load<u32>(a, KIND) == ZERO) {
    copyNumber(r, b);
    store<u32>(r, load<u32>(b, SIGN) ^ (subtract ? 1 : 0), SIGN);
  } else {
    addFinite(r, a, b, subtract);
  }
}

/** r = a / b, both FINITE: the quotient by the divisor's upper half, and what is missing from it. */
export function divideNumbers(r: usize, a: usize, b: usize): void {
  copyNumber(DIVISOR, b);
  store<u64>(DIVISOR, 0, LOW);
  copyNumber(REST, a);
  divideFinite(QUOTIENT, REST, DIVISOR);
  for (let i = 0; i < 3; i++) {
    multiplyNumbers(REST, QUOTIENT, b);
    addNumbers(REST, a, REST, true);
    if (load<u32>(REST, KIND) != FINITE) break;
    divideFinite(REST, REST, DIVISOR);
    addNumbers(QUOTIENT, QUOTIENT, REST, false);
  }
  copyNumber(r, QUOTIENT);
}

/** The fraction that a number below 1 is, without its sign. */
export function toFraction(a: usize): void {
  if (load<u32>(a, KIND) == ZERO) {
    fractionHigh = 0;
    fractionLow = 0;
    return;
  }
  const shift = -1 - load<i32>(a, EXPONENT);
  shiftRightSticky(load<u64>(a, HIGH), load<u64>(a, LOW), shift as u32);
  fractionHigh = wideHigh;
  fractionLow = wideLow;
}

/** The fraction that the square of a number below 1 is. */
export function squareToFraction(a: usize): void {
  const high = load<u64>(a, HIGH);
  const low = load<u64>(a, LOW);
  multiplyUpper(high, low, high, low);
  const shift = (-1 - load<i32>(a, EXPONENT)) << 1;
  shiftRightSticky(fractionHigh, fractionLow, shift as u32);
  fractionHigh = wideHigh;
  fractionLow = wideLow;
}

/**
 * The sum of coefficient[first + i * step] * (+-x)^i for i from 0 to `count` - 1, by Horner's rule; all
 * is below 1.
 */
export function series(
  coefficients: StaticArray<u64>,
  first: u32,
  step: u32,
  count: u32,
  alternating: bool,
  xHigh: u64,
  xLow: u64,
): void {
  let high: u64 = 0;
  let low: u64 = 0;
  for (let i: i32 = (count - 1) as i32; i >= 0; i--) {
    const at = (first + (i as u32) * step) << 1;
    multiplyUpper(high, low, xHigh, xLow);
    const nextHigh = unchecked(coefficients[at]);
    const nextLow = unchecked(coefficients[at + 1]);
    if (alternating) {
      low = nextLow - fractionLow;
      high = nextHigh - fractionHigh - (nextLow < fractionLow ? 1 : 0);
    } else {
      low = nextLow + fractionLow;
      high = nextHigh + fractionHigh + (low < nextLow ? 1 : 0);
    }
  }
  fractionHigh = high;
  fractionLow = low;
}

/** fraction = fraction * x */
export function multiplyFraction(xHigh: u64, xLow: u64): void {
  multiplyUpper(fractionHigh, fractionLow, xHigh, xLow);
}

/** fraction = 1 - fraction, the largest fraction for 1 itself. */
export function complementFraction(): void {
  if ((fractionHigh | fractionLow) == 0) {
    fractionHigh = ~(0 as u64);
    fractionLow = ~(0 as u64);
    return;
  }
  const low = 0 - fractionLow;
  fractionHigh = 0 - fractionHigh - (fractionLow != 0 ? 1 : 0);
  fractionLow = low;
}

/** r = the fraction as a number. */
export function fromFraction(r: usize): void {
  setNormalized(r, 0, -1, fractionHigh, fractionLow);
}

/** r = a constant. */
export function setConstant(r: usize, exponent: i32, high: u64, low: u64): void {
  setFinite(r, 0, exponent, high, low);
}

/** Marks a number as not exact: no transcendental result is, but for those that are found before. */
export function setInexact(r: usize): void {
  store<u64>(r, load<u64>(r, LOW) | 1, LOW);
}
