// Floating-point numbers in one unpacked form, whatever format they come from and go to: a sign, an
// exponent, and a significand of 128 bits, of which operands use the upper 64 and results all, the
// lowest bit being sticky. Rounding to a format's precision and range is the last step, with the flags
// as the processor sets them: x87 and SSE share everything but their rules for NaNs.

// A number in memory.
/** u32: 1 is negative. */
export const SIGN: usize = 0;
/** i32: the value is HIGH:LOW / 2^127 * 2^EXPONENT. */
export const EXPONENT: usize = 4;
/** u32: see below. */
export const KIND: usize = 8;
/** u32: 1 if it came from a denormal (or pseudo-denormal). */
export const DENORMAL: usize = 12;
export const LOW: usize = 16;
/** u64: bit 63 is set in every FINITE number that is not the result of a rounding to a denormal. */
export const HIGH: usize = 24;
export const NUMBER_SIZE: usize = 32;

export const ZERO: u32 = 0;
export const FINITE: u32 = 1;
export const INFINITE: u32 = 2;
export const QUIET_NAN: u32 = 3;
export const SIGNALLING_NAN: u32 = 4;
/** An encoding of the 80-bit format that no processor since the 80387 takes for a number. */
export const UNSUPPORTED: u32 = 5;

// Exception flags, as in MXCSR and FSW.
export const INVALID: u32 = 1;
export const DENORMAL_OPERAND: u32 = 2;
export const DIVIDE_BY_ZERO: u32 = 4;
export const OVERFLOW: u32 = 8;
export const UNDERFLOW: u32 = 0x10;
export const INEXACT: u32 = 0x20;

// Rounding modes, as in MXCSR.RC and FCW.RC.
export const NEAREST: u32 = 0;
export const DOWN: u32 = 1;
export const UP: u32 = 2;
export const TOWARD_ZERO: u32 = 3;

/** Exceptions since whoever looks at them cleared them. */
export let flags: u32 = 0;
/** Whether the last rounding went away from zero (FSW.C1). */
export let roundedUp: bool = false;
/** How to round. */
export let rounding: u32 = NEAREST;
/** Exceptions that are masked: an unmasked underflow or overflow gives a result with a biased exponent. */
export let masked: u32 = 0x3f;
/** MXCSR.FTZ: a tiny result is zero where underflow is masked. */
export let flushToZero: bool = false;

/** What an unmasked overflow or underflow adds to the exponent of an x87 result (SDM 1, 8.5.4). */
const BIAS_ADJUST: i32 = 24576;

/** The upper and the lower half of a 128-bit result, and a quotient's remainder. */
export let wideHigh: u64 = 0;
export let wideLow: u64 = 0;
export let remainder: u64 = 0;

export function setControl(mode: u32, mask: u32, flush: bool): void {
  rounding = mode;
  masked = mask;
  flushToZero = flush;
  flags = 0;
  roundedUp = false;
}

export function setRounding(mode: u32): void {
  rounding = mode;
}

export function addFlags(more: u32): void {
  flags |= more;
}

export function setFlags(all: u32): void {
  flags = all;
}

export function clearRoundedUp(): void {
  roundedUp = false;
}

/** wideHigh:wideLow = a * b */
export function multiplyWide(a: u64, b: u64): void {
  const al = a & 0xffffffff;
  const ah = a >> 32;
  const bl = b & 0xffffffff;
  const bh = b >> 32;
  const low = al * bl;
  const middle = ah * bl + (low >> 32);
  const other = al * bh + (middle & 0xffffffff);
  wideLow = (other << 32) | (low & 0xffffffff);
  wideHigh = ah * bh + (middle >> 32) + (other >> 32);
}

/** One digit of 32 bits of a long division: `remainder`:digit / divisor, whose top bit is set. */
function divideDigit(digit: u64, divisor: u64): u64 {
  const top = divisor >> 32;
  const bottom = divisor & 0xffffffff;
  let q = remainder / top;
  let r = remainder % top;
  // The estimate is at most two too large (Knuth, The Art of Computer Programming 2, 4.3.1, theorem B).
  while (q > 0xffffffff || q * bottom > ((r << 32) | digit)) {
    q--;
    r += top;
    if (r > 0xffffffff) break;
  }
  remainder = ((remainder << 32) | digit) - q * divisor;
  return q;
}

/** high:low / divisor, of which the top bit is set and which is more than `high`; sets `remainder`. */
export function divideWide(high: u64, low: u64, divisor: u64): u64 {
  remainder = high;
  const upper = divideDigit(low >> 32, divisor);
  return (upper << 32) | divideDigit(low & 0xffffffff, divisor);
}

export function setZero(r: usize, sign: u32): void {
  store<u32>(r, sign, SIGN);
  store<u32>(r, ZERO, KIND);
  store<u32>(r, 0, DENORMAL);
  store<u64>(r, 0, HIGH);
  store<u64>(r, 0, LOW);
}

export function setInfinite(r: usize, sign: u32): void {
  store<u32>(r, sign, SIGN);
  store<u32>(r, INFINITE, KIND);
  store<u32>(r, 0, DENORMAL);
}

export function setFinite(r: usize, sign: u32, exponent: i32, high: u64, low: u64): void {
  store<u32>(r, sign, SIGN);
  store<i32>(r, exponent, EXPONENT);
  store<u32>(r, FINITE, KIND);
  store<u32>(r, 0, DENORMAL);
  store<u64>(r, high, HIGH);
  store<u64>(r, low, LOW);
}

export function copyNumber(r: usize, a: usize): void {
  v128.store(r, v128.load(a));
  v128.store(r, v128.load(a, 16), 16);
}

/** Like setFinite() for any significand: shifts it until its top bit is set, 0 becomes +0. */
export function setNormalized(r: usize, sign: u32, exponent: i32, high: u64, low: u64): void {
  if (high == 0) {
    if (low == 0) {
      setZero(r, 0);
      return;
    }
    high = low;
    low = 0;
    exponent -= 64;
  }
  const shift = clz(high);
  if (shift != 0) {
    high = (high << shift) | (low >> (64 - shift));
    low <<= shift;
    exponent -= shift as i32;
  }
  setFinite(r, sign, exponent, high, low);
}

/** A whole number. */
export function fromInteger(r: usize, negative: bool, magnitude: u64): void {
  if (magnitude == 0) setZero(r, 0);
  else setNormalized(r, negative ? 1 : 0, 63, magnitude, 0);
}

/** wideHigh:wideLow = high:low >> by, all that is lost in the lowest bit. */
export function shiftRightSticky(high: u64, low: u64, by: u32): void {
  if (by == 0) {
    wideHigh = high;
    wideLow = low;
  } else if (by < 64) {
    const lost: u64 = (low << (64 - by)) != 0 ? 1 : 0;
    wideLow = (high << (64 - by)) | (low >> by) | lost;
    wideHigh = high >> by;
  } else if (by < 128) {
    const left: u64 = by == 64 ? 0 : high << (128 - by);
    const lost: u64 = (left | low) != 0 ? 1 : 0;
    wideLow = (high >> (by - 64)) | lost;
    wideHigh = 0;
  } else {
    wideLow = (high | low) != 0 ? 1 : 0;
    wideHigh = 0;
  }
}

/** r = a + b, b negated if `subtract`; both FINITE. An exact 0 has the sign that the rounding mode gives. */
export function addFinite(r: usize, a: usize, b: usize, subtract: bool): void {
  let signA = load<u32>(a, SIGN);
  let signB = load<u32>(b, SIGN) ^ (subtract ? 1 : 0);
  let difference = load<i32>(a, EXPONENT) - load<i32>(b, EXPONENT);
  let exponent = load<i32>(a, EXPONENT);
  let high = load<u64>(a, HIGH);
  let low = load<u64>(a, LOW);
  let otherHigh = load<u64>(b, HIGH);
  let otherLow = load<u64>(b, LOW);
  if (difference < 0 || (difference == 0 && (high < otherHigh || (high == otherHigh && low < otherLow)))) {
    exponent = load<i32>(b, EXPONENT);
    difference = -difference;
    const swapHigh = high;
    const swapLow = low;
    high = otherHigh;
    low = otherLow;
    otherHigh = swapHigh;
    otherLow = swapLow;
    const swapSign = signA;
    signA = signB;
    signB = swapSign;
  }
  shiftRightSticky(otherHigh, otherLow, difference as u32);
  if (signA == signB) {
    const sumLow = low + wideLow;
    const carry: u64 = sumLow < low ? 1 : 0;
    const sumHigh = high + wideHigh + carry;
    if (sumHigh < high || (sumHigh == high && carry != 0)) {
      shiftRightSticky(sumHigh, sumLow, 1);
      setFinite(r, signA, exponent + 1, wideHigh | ((1 as u64) << 63), wideLow);
    } else {
      setFinite(r, signA, exponent, sumHigh, sumLow);
    }
    return;
  }
  const borrow: u64 = low < wideLow ? 1 : 0;
  setNormalized(r, signA, exponent, high - wideHigh - borrow, low - wideLow);
  if (load<u32>(r, KIND) == ZERO) store<u32>(r, rounding == DOWN ? 1 : 0, SIGN);
}

/** r = a * b, both FINITE with 64 bits. */
export function multiplyFinite(r: usize, a: usize, b: usize): void {
  const exponent = load<i32>(a, EXPONENT) + load<i32>(b, EXPONENT) + 1;
  multiplyWide(load<u64>(a, HIGH), load<u64>(b, HIGH));
  setNormalized(r, load<u32>(a, SIGN) ^ load<u32>(b, SIGN), exponent, wideHigh, wideLow);
}

/** r = a / b, both FINITE with 64 bits. */
export function divideFinite(r: usize, a: usize, b: usize): void {
  let exponent = load<i32>(a, EXPONENT) - load<i32>(b, EXPONENT);
  let high = load<u64>(a, HIGH);
  let low: u64 = 0;
  const divisor = load<u64>(b, HIGH);
  if (high >= divisor) {
    low = high << 63;
    high >>= 1;
  } else {
    exponent--;
  }
  const quotient = divideWide(high, low, divisor);
  let rest = divideWide(remainder, 0, divisor);
  if (remainder != 0) rest |= 1;
  setFinite(r, load<u32>(a, SIGN) ^ load<u32>(b, SIGN), exponent, quotient, rest);
}

/** Whether root squared is more than high:low. */
function squareExceeds(root: u64, high: u64, low: u64): bool {
  multiplyWide(root, root);
  return wideHigh > high || (wideHigh == high && wideLow > low);
}

/** r = the square root of a, FINITE and positive with 64 bits. */
export function squareRootFinite(r: usize, a: usize): void {
  const exponent = load<i32>(a, EXPONENT);
  let high = load<u64>(a, HIGH);
  let low: u64 = 0;
  if ((exponent & 1) == 0) {
    low = high << 63;
    high >>= 1;
  }
  // 53 bits from the host, twice as many by a step of Newton's, and the rest by trying.
  const estimate = sqrt<f64>(high as f64) * 4294967296.0;
  let root: u64 = estimate >= 18446744073709549568.0 ? ~(0 as u64) : (estimate as u64);
  root |= (1 as u64) << 63;
  if (high < root) {
    const quotient = divideWide(high, low, root);
    root = (root >> 1) + (quotient >> 1) + (root & quotient & 1);
    root |= (1 as u64) << 63;
  }
  while (squareExceeds(root, high, low)) root--;
  while (root != ~(0 as u64) && !squareExceeds(root + 1, high, low)) root++;
  multiplyWide(root, root);
  const restLow = low - wideLow;
  const restHigh = high - wideHigh - (low < wideLow ? 1 : 0);
  // (root + 1/2)^2 = root^2 + root + 1/4: half an ulp is exceeded if the rest is more than the root.
  let below: u64 = (restHigh | restLow) != 0 ? 1 : 0;
  if (restHigh != 0 || restLow > root) below |= (1 as u64) << 63;
  setFinite(r, 0, exponent >> 1, root, below);
}

let inexact: bool = false;
let carried: bool = false;

/** Rounds a significand to `precision` bits (1 to 64); sets inexact, roundedUp and carried. */
function roundBits(high: u64, low: u64, precision: u32, sign: u32): u64 {
  let lost: u64 = 0;
  let half = false;
  let more = false;
  if (precision == 64) {
    half = (low >> 63) != 0;
    more = (low << 1) != 0;
  } else {
    const unit = (1 as u64) << (64 - precision);
    lost = high & (unit - 1);
    half = (lost & (unit >> 1)) != 0;
    more = ((lost & ((unit >> 1) - 1)) | low) != 0;
  }
  inexact = half || more;
  carried = false;
  roundedUp = false;
  high -= lost;
  if (!inexact) return high;
  const last = (high >> (64 - precision)) & 1;
  if (rounding == NEAREST) roundedUp = half && (more || last != 0);
  else if (rounding == DOWN) roundedUp = sign != 0;
  else if (rounding == UP) roundedUp = sign == 0;
  if (!roundedUp) return high;
  const rounded = high + ((1 as u64) << (64 - precision));
  carried = rounded < high;
  return carried ? (1 as u64) << 63 : rounded;
}

function overflow(r: usize, precision: u32, largest: i32): void {
  flags |= OVERFLOW | INEXACT;
  const sign = load<u32>(r, SIGN);
  const infinite = rounding == NEAREST || rounding == (sign != 0 ? DOWN : UP);
  roundedUp = infinite;
  if (infinite) setInfinite(r, sign);
  else setFinite(r, sign, largest, ~(0 as u64) << (64 - precision), 0);
}

/** A result below the least normal number. */
function roundTiny(r: usize, precision: u32, least: i32): void {
  const sign = load<u32>(r, SIGN);
  const high = load<u64>(r, HIGH);
  const low = load<u64>(r, LOW);
  const exponent = load<i32>(r, EXPONENT);
  // Tiny is what is below the least normal number after rounding as if the exponent had no limit.
  const rounded = roundBits(high, low, precision, sign);
  const tiny = !(exponent == least - 1 && carried);
  if (tiny && (masked & UNDERFLOW) == 0) {
    if (exponent + BIAS_ADJUST < least) {
      // FSCALE can give what is too small even then: 0, however it is rounded.
      flags |= UNDERFLOW | INEXACT;
      roundedUp = false;
      setZero(r, sign);
      return;
    }
    flags |= UNDERFLOW | (inexact ? INEXACT : 0);
    setFinite(r, sign, exponent + (carried ? 1 : 0) + BIAS_ADJUST, rounded, 0);
    return;
  }
  if (tiny && flushToZero) {
    flags |= UNDERFLOW | INEXACT;
    setZero(r, sign);
    return;
  }
  shiftRightSticky(high, low, (least - exponent) as u32);
  const denormal = roundBits(wideHigh, wideLow, precision, sign);
  if (inexact) flags |= INEXACT | (tiny ? UNDERFLOW : 0);
  if (denormal == 0) setZero(r, sign);
  else setFinite(r, sign, least, denormal, 0);
}

/**
 * Rounds a number to `precision` bits and to exponents from `least` to `largest`; sets flags and
 * roundedUp. A denormal result has the exponent `least` and its top bit clear.
 */
export function round(r: usize, precision: u32, least: i32, largest: i32): void {
  if (load<u32>(r, KIND) != FINITE) return;
  if (load<i32>(r, EXPONENT) < least) {
    roundTiny(r, precision, least);
    return;
  }
  const sign = load<u32>(r, SIGN);
  const high = roundBits(load<u64>(r, HIGH), load<u64>(r, LOW), precision, sign);
  const exponent = load<i32>(r, EXPONENT) + (carried ? 1 : 0);
  if (exponent > largest) {
    if ((masked & OVERFLOW) != 0) {
      overflow(r, precision, largest);
      return;
    }
    if (exponent - BIAS_ADJUST > largest) {
      flags |= OVERFLOW | INEXACT;
      roundedUp = true;
      setInfinite(r, sign);
      return;
    }
    flags |= OVERFLOW | (inexact ? INEXACT : 0);
    setFinite(r, sign, exponent - BIAS_ADJUST, high, 0);
    return;
  }
  if (inexact) flags |= INEXACT;
  setFinite(r, sign, exponent, high, 0);
}

/** The whole number that a FINITE number of less than 2^64 rounds to; sets inexact flag and roundedUp. */
export function toInteger(a: usize): u64 {
  const exponent = load<i32>(a, EXPONENT);
  const sign = load<u32>(a, SIGN);
  // What is to the right of the binary point comes to the lower half.
  shiftRightSticky(load<u64>(a, HIGH), load<u64>(a, LOW), (63 - exponent) as u32);
  const whole = wideHigh;
  const half = (wideLow >> 63) != 0;
  const more = (wideLow << 1) != 0;
  roundedUp = false;
  if (!half && !more) return whole;
  flags |= INEXACT;
  if (rounding == NEAREST) roundedUp = half && (more || (whole & 1) != 0);
  else if (rounding == DOWN) roundedUp = sign != 0;
  else if (rounding == UP) roundedUp = sign == 0;
  return whole + (roundedUp ? 1 : 0);
}

/** -1, 0, 1 for a < b, a == b, a > b; neither is a NaN. */
export function compareNumbers(a: usize, b: usize): i32 {
  const kindA = load<u32>(a, KIND);
  const kindB = load<u32>(b, KIND);
  if (kindA == ZERO && kindB == ZERO) return 0;
  const sign = load<u32>(a, SIGN) != 0 ? -1 : 1;
  if (kindA == ZERO) return load<u32>(b, SIGN) != 0 ? 1 : -1;
  if (kindB == ZERO || load<u32>(a, SIGN) != load<u32>(b, SIGN)) return sign;
  if (kindA != kindB) return kindA == INFINITE ? sign : -sign;
  if (kindA == INFINITE) return 0;
  const exponentA = load<i32>(a, EXPONENT);
  const exponentB = load<i32>(b, EXPONENT);
  if (exponentA != exponentB) return exponentA > exponentB ? sign : -sign;
  const highA = load<u64>(a, HIGH);
  const highB = load<u64>(b, HIGH);
  if (highA == highB) return 0;
  return highA > highB ? sign : -sign;
}
