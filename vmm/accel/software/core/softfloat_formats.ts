// The formats in memory, from and to the unpacked form of softfloat.ts.
import {
  DENORMAL,
  EXPONENT,
  FINITE,
  HIGH,
  INFINITE,
  KIND,
  LOW,
  QUIET_NAN,
  round,
  setFinite,
  setInfinite,
  setZero,
  SIGN,
  SIGNALLING_NAN,
  UNSUPPORTED,
  ZERO,
} from "./softfloat";

export const SINGLE_PRECISION: u32 = 24;
export const SINGLE_LEAST: i32 = -126;
export const SINGLE_LARGEST: i32 = 127;
export const DOUBLE_PRECISION: u32 = 53;
export const DOUBLE_LEAST: i32 = -1022;
export const DOUBLE_LARGEST: i32 = 1023;
export const EXTENDED_LEAST: i32 = -16382;
export const EXTENDED_LARGEST: i32 = 16383;

/** The NaN that stands for "no result": negative, quiet, no payload. */
export const SINGLE_INDEFINITE: u32 = 0xffc00000;
export const DOUBLE_INDEFINITE: u64 = 0xfff8000000000000;

const TOP: u64 = (1 as u64) << 63;

function setNaN(r: usize, sign: u32, significand: u64): void {
  store<u32>(r, sign, SIGN);
  store<u32>(r, (significand & (TOP >> 1)) != 0 ? QUIET_NAN : SIGNALLING_NAN, KIND);
  store<u32>(r, 0, DENORMAL);
  store<u64>(r, significand | TOP, HIGH);
  store<u64>(r, 0, LOW);
}

/** A number whose significand may have leading zeros: a denormal. */
function setDenormal(r: usize, sign: u32, exponent: i32, significand: u64): void {
  const shift = clz(significand);
  setFinite(r, sign, exponent - (shift as i32), significand << shift, 0);
  store<u32>(r, 1, DENORMAL);
}

export function unpackSingle(r: usize, bits: u32): void {
  const sign = bits >> 31;
  const exponent = (bits >> 23) & 0xff;
  const fraction = (bits as u64) << 40 & ~TOP;
  if (exponent == 0xff) {
    if (fraction == 0) setInfinite(r, sign);
    else setNaN(r, sign, fraction);
  } else if (exponent != 0) {
    setFinite(r, sign, (exponent as i32) - 127, fraction | TOP, 0);
  } else if (fraction == 0) {
    setZero(r, sign);
  } else {
    setDenormal(r, sign, SINGLE_LEAST, fraction);
  }
}

export function unpackDouble(r: usize, bits: u64): void {
  const sign = (bits >> 63) as u32;
  const exponent = ((bits >> 52) as u32) & 0x7ff;
  const fraction = bits << 11 & ~TOP;
  if (exponent == 0x7ff) {
    if (fraction == 0) setInfinite(r, sign);
    else setNaN(r, sign, fraction);
  } else if (exponent != 0) {
    setFinite(r, sign, (exponent as i32) - 1023, fraction | TOP, 0);
  } else if (fraction == 0) {
    setZero(r, sign);
  } else {
    setDenormal(r, sign, DOUBLE_LEAST, fraction);
  }
}

/** From the 10 bytes of the extended format. */
export function unpackExtended(r: usize, at: usize): void {
  const significand = load<u64>(at);
  const sign = (load<u16>(at, 8) as u32) >> 15;
  const exponent = (load<u16>(at, 8) as u32) & 0x7fff;
  if (exponent == 0) {
    if (significand == 0) setZero(r, sign);
    else setDenormal(r, sign, EXTENDED_LEAST, significand);
  } else if ((significand & TOP) == 0) {
    // An unnormal, pseudo-infinity or pseudo-NaN (SDM 1, 8.2.2).
    store<u32>(r, sign, SIGN);
    store<u32>(r, UNSUPPORTED, KIND);
    store<u32>(r, 0, DENORMAL);
  } else if (exponent != 0x7fff) {
    setFinite(r, sign, (exponent as i32) - 16383, significand, 0);
  } else if (significand == TOP) {
    setInfinite(r, sign);
  } else {
    setNaN(r, sign, significand);
  }
}

/** Packs a rounded number (or quiet NaN). */
export function packSingle(a: usize): u32 {
  const sign = load<u32>(a, SIGN) << 31;
  const kind = load<u32>(a, KIND);
  if (kind == ZERO) return sign;
  if (kind == INFINITE) return sign | 0x7f800000;
  const fraction = ((load<u64>(a, HIGH) >> 40) as u32) & 0x7fffff;
  if (kind != FINITE) return sign | 0x7fc00000 | fraction;
  if ((load<u64>(a, HIGH) & TOP) == 0) return sign | fraction;
  return sign | (((load<i32>(a, EXPONENT) + 127) as u32) << 23) | fraction;
}

export function packDouble(a: usize): u64 {
  const sign = (load<u32>(a, SIGN) as u64) << 63;
  const kind = load<u32>(a, KIND);
  if (kind == ZERO) return sign;
  if (kind == INFINITE) return sign | 0x7ff0000000000000;
  const fraction = (load<u64>(a, HIGH) >> 11) & 0xfffffffffffff;
  if (kind != FINITE) return sign | 0x7ff8000000000000 | fraction;
  if ((load<u64>(a, HIGH) & TOP) == 0) return sign | fraction;
  return sign | (((load<i32>(a, EXPONENT) + 1023) as u64) << 52) | fraction;
}

export function packExtended(a: usize, to: usize): void {
  const sign = load<u32>(a, SIGN) << 15;
  const kind = load<u32>(a, KIND);
  let high = load<u64>(a, HIGH);
  let exponent: u32 = 0;
  if (kind == ZERO) {
    high = 0;
  } else if (kind == INFINITE) {
    high = TOP;
    exponent = 0x7fff;
  } else if (kind != FINITE) {
    exponent = 0x7fff;
    high |= TOP | (TOP >> 1);
  } else if ((high & TOP) != 0) {
    exponent = (load<i32>(a, EXPONENT) + 16383) as u32;
  }
  store<u64>(to, high);
  store<u16>(to, (sign | exponent) as u16, 8);
}

export function roundSingle(r: usize): void {
  round(r, SINGLE_PRECISION, SINGLE_LEAST, SINGLE_LARGEST);
}

export function roundDouble(r: usize): void {
  round(r, DOUBLE_PRECISION, DOUBLE_LEAST, DOUBLE_LARGEST);
}
