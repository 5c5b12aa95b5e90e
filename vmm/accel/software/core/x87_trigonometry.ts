// Sine, cosine, tangent and arc tangent of FINITE numbers. As the processor does, arguments are reduced
// with a pi of 66 bits (SDM 1, 8.3.8), exactly; what is left is computed far beyond 64 bits.
import {
  ARC_TANGENTS,
  HALF_PI_EXPONENT,
  HALF_PI_HIGH,
  HALF_PI_LOW,
  RECIPROCAL_FACTORIALS,
  RECIPROCALS_OF_ODD,
} from "./x87_coefficients";
import {
  copyNumber,
  divideFinite,
  EXPONENT,
  FINITE,
  HIGH,
  KIND,
  LOW,
  setFinite,
  setNormalized,
  SIGN,
} from "./softfloat";
import {
  addNumbers,
  complementFraction,
  divideNumbers,
  fractionHigh,
  fractionLow,
  fromFraction,
  multiplyByFraction,
  multiplyFraction,
  multiplyNumbers,
  series,
  setConstant,
  setInexact,
  squareToFraction,
} from "./softfloat_wide";

/** The reduced argument, and scratch. */
const ARGUMENT: usize = memory.data(32, 16);
const SINE: usize = memory.data(32, 16);
const COSINE: usize = memory.data(32, 16);
const T: usize = memory.data(32, 16);
const U: usize = memory.data(32, 16);
const V: usize = memory.data(32, 16);

/** pi/2 in units of 2^-65: two bits above 64. */
const HALF_PI_66_TOP: u64 = 3;
const HALF_PI_66: u64 = 0x243f6a8885a308d3;

/** The quadrant of the last reduce(). */
let quadrant: u32 = 0;

/** ARGUMENT = what is left of |a| when the nearest multiple of pi/2 is taken away. */
function reduce(a: usize): void {
  copyNumber(ARGUMENT, a);
  store<u32>(ARGUMENT, 0, SIGN);
  quadrant = 0;
  const exponent = load<i32>(a, EXPONENT);
  if (exponent < -1) return;
  // Long division of the argument in units of 2^-65, one bit at a time.
  const significand = load<u64>(a, HIGH);
  let top: u64 = 0;
  let rest: u64 = 0;
  for (let i: i32 = 63 + exponent + 2; i >= 0; i--) {
    const place = i - exponent - 2;
    const bit: u64 = place >= 0 ? (significand >> (place as u64)) & 1 : 0;
    top = (top << 1) | (rest >> 63);
    rest = (rest << 1) | bit;
    quadrant <<= 1;
    if (top > HALF_PI_66_TOP || (top == HALF_PI_66_TOP && rest >= HALF_PI_66)) {
      top -= HALF_PI_66_TOP + (rest < HALF_PI_66 ? 1 : 0);
      rest -= HALF_PI_66;
      quadrant |= 1;
    }
  }
  let sign: u32 = 0;
  const twiceTop = (top << 1) | (rest >> 63);
  const twiceRest = rest << 1;
  if (twiceTop > HALF_PI_66_TOP || (twiceTop == HALF_PI_66_TOP && twiceRest > HALF_PI_66)) {
    top = HALF_PI_66_TOP - top - (HALF_PI_66 < rest ? 1 : 0);
    rest = HALF_PI_66 - rest;
    sign = 1;
    quadrant++;
  }
  setNormalized(ARGUMENT, sign, 127 - 65, top, rest);
}

/** Number of terms that 128 bits need for an argument of up to pi/4. */
const TERMS: u32 = 17;

/** SINE and COSINE of the reduced argument. */
function sineAndCosine(): void {
  squareToFraction(ARGUMENT);
  const high = fractionHigh;
  const low = fractionLow;
  // sin x = x * (1 - x^2/3! + x^4/5! - ...)
  series(RECIPROCAL_FACTORIALS, 1, 2, TERMS, true, high, low);
  multiplyFraction(high, low);
  complementFraction();
  multiplyByFraction(SINE, ARGUMENT, fractionHigh, fractionLow);
  // cos x = 1 - x^2/2! + x^4/4! - ...
  series(RECIPROCAL_FACTORIALS, 0, 2, TERMS, true, high, low);
  multiplyFraction(high, low);
  complementFraction();
  fromFraction(COSINE);
}

/** r = sin a */
export function sine(r: usize, a: usize): void {
  reduce(a);
  sineAndCosine();
  copyNumber(r, (quadrant & 1) != 0 ? COSINE : SINE);
  const flip = load<u32>(a, SIGN) ^ ((quadrant >> 1) & 1);
  store<u32>(r, load<u32>(r, SIGN) ^ flip, SIGN);
  setInexact(r);
}

/** r = cos a */
export function cosine(r: usize, a: usize): void {
  reduce(a);
  sineAndCosine();
  copyNumber(r, (quadrant & 1) != 0 ? SINE : COSINE);
  const flip = ((quadrant + 1) >> 1) & 1;
  store<u32>(r, load<u32>(r, SIGN) ^ flip, SIGN);
  setInexact(r);
}

/** r = tan a */
export function tangent(r: usize, a: usize): void {
  reduce(a);
  sineAndCosine();
  if ((quadrant & 1) != 0) divideNumbers(r, COSINE, SINE);
  else divideNumbers(r, SINE, COSINE);
  const flip = load<u32>(a, SIGN) ^ (quadrant & 1);
  store<u32>(r, load<u32>(r, SIGN) ^ flip, SIGN);
  setInexact(r);
}

/** r = arc tangent of t, FINITE, from 0 to 1. */
function arcTangentBelowOne(r: usize, t: usize): void {
  // atan t = atan c + atan((t - c) / (1 + tc)), c being the nearest sixteenth.
  let sixteenths: u32 = 0;
  const exponent = load<i32>(t, EXPONENT);
  if (exponent >= -5) {
    sixteenths = ((load<u64>(t, HIGH) >> ((63 - 5 - exponent) as u64)) as u32) + 1;
    sixteenths >>= 1;
  }
  if (sixteenths == 0) {
    copyNumber(U, t);
  } else {
    setNormalized(V, 0, 63 - 4, sixteenths as u64, 0);
    addNumbers(U, t, V, true);
    multiplyNumbers(V, V, t);
    setFinite(SINE, 0, 0, (1 as u64) << 63, 0);
    addNumbers(V, V, SINE, false);
    if (load<u32>(U, KIND) == FINITE) divideNumbers(U, U, V);
  }
  if (load<u32>(U, KIND) == FINITE) {
    squareToFraction(U);
    const high = fractionHigh;
    const low = fractionLow;
    series(RECIPROCALS_OF_ODD, 0, 1, 14, true, high, low);
    multiplyFraction(high, low);
    complementFraction();
    multiplyByFraction(U, U, fractionHigh, fractionLow);
  }
  if (sixteenths == 0) {
    copyNumber(r, U);
    return;
  }
  const at = (sixteenths - 1) << 1;
  setNormalized(V, 0, -1, unchecked(ARC_TANGENTS[at]), unchecked(ARC_TANGENTS[at + 1]));
  addNumbers(r, V, U, false);
}

/** r = the angle of the point (x, y), both FINITE. */
export function arcTangent(r: usize, y: usize, x: usize): void {
  const exponentX = load<i32>(x, EXPONENT);
  const exponentY = load<i32>(y, EXPONENT);
  const steep = exponentY > exponentX ||
    (exponentY == exponentX && load<u64>(y, HIGH) > load<u64>(x, HIGH));
  if (steep) divideFinite(T, x, y);
  else divideFinite(T, y, x);
  store<u32>(T, 0, SIGN);
  arcTangentBelowOne(r, T);
  if (steep) {
    setConstant(V, HALF_PI_EXPONENT, HALF_PI_HIGH, HALF_PI_LOW);
    addNumbers(r, V, r, true);
  }
  if (load<u32>(x, SIGN) != 0) {
    setConstant(V, HALF_PI_EXPONENT + 1, HALF_PI_HIGH, HALF_PI_LOW);
    addNumbers(r, V, r, true);
  }
  store<u32>(r, load<u32>(y, SIGN), SIGN);
  setInexact(r);
}
