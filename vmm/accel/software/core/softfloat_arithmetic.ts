// Arithmetic of unpacked numbers that are no NaNs: zeros and infinities, then what softfloat.ts does with
// the finite. The results are not rounded.
import {
  addFinite,
  addFlags,
  copyNumber,
  DENORMAL,
  DIVIDE_BY_ZERO,
  divideFinite,
  DOWN,
  FINITE,
  HIGH,
  INFINITE,
  INVALID,
  KIND,
  LOW,
  multiplyFinite,
  QUIET_NAN,
  rounding,
  setInfinite,
  setZero,
  SIGN,
  squareRootFinite,
  ZERO,
} from "./softfloat";

/** The result of an invalid operation: the negative quiet NaN without payload. */
export function setIndefinite(r: usize): void {
  store<u32>(r, 1, SIGN);
  store<u32>(r, QUIET_NAN, KIND);
  store<u32>(r, 0, DENORMAL);
  store<u64>(r, (3 as u64) << 62, HIGH);
  store<u64>(r, 0, LOW);
}

export function invalid(r: usize): void {
  addFlags(INVALID);
  setIndefinite(r);
}

/** r = a + b, or a - b. */
export function add(r: usize, a: usize, b: usize, subtract: bool): void {
  const kindA = load<u32>(a, KIND);
  const kindB = load<u32>(b, KIND);
  if (kindA == FINITE && kindB == FINITE) {
    addFinite(r, a, b, subtract);
    return;
  }
  const signA = load<u32>(a, SIGN);
  const signB = load<u32>(b, SIGN) ^ (subtract ? 1 : 0);
  if (kindA == INFINITE) {
    if (kindB == INFINITE && signA != signB) invalid(r);
    else setInfinite(r, signA);
  } else if (kindB == INFINITE) {
    setInfinite(r, signB);
  } else if (kindB == FINITE) {
    copyNumber(r, b);
    store<u32>(r, signB, SIGN);
  } else if (kindA == FINITE) {
    copyNumber(r, a);
  } else {
    setZero(r, signA == signB ? signA : rounding == DOWN ? 1 : 0);
  }
}

export function multiply(r: usize, a: usize, b: usize): void {
  const kindA = load<u32>(a, KIND);
  const kindB = load<u32>(b, KIND);
  const sign = load<u32>(a, SIGN) ^ load<u32>(b, SIGN);
  if (kindA == FINITE && kindB == FINITE) multiplyFinite(r, a, b);
  else if (kindA == INFINITE || kindB == INFINITE) {
    if (kindA == ZERO || kindB == ZERO) invalid(r);
    else setInfinite(r, sign);
  } else setZero(r, sign);
}

export function divide(r: usize, a: usize, b: usize): void {
  const kindA = load<u32>(a, KIND);
  const kindB = load<u32>(b, KIND);
  const sign = load<u32>(a, SIGN) ^ load<u32>(b, SIGN);
  if (kindA == FINITE && kindB == FINITE) {
    divideFinite(r, a, b);
  } else if (kindA == kindB) {
    invalid(r);
  } else if (kindA == INFINITE) {
    setInfinite(r, sign);
  } else if (kindB == ZERO) {
    addFlags(DIVIDE_BY_ZERO);
    setInfinite(r, sign);
  } else {
    setZero(r, sign);
  }
}

export function squareRoot(r: usize, a: usize): void {
  const kind = load<u32>(a, KIND);
  if (kind == ZERO) setZero(r, load<u32>(a, SIGN));
  else if (load<u32>(a, SIGN) != 0) invalid(r);
  else if (kind == INFINITE) setInfinite(r, 0);
  else squareRootFinite(r, a);
}
