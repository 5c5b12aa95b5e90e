// SSE's arithmetic on one element, with its rules for NaNs (SDM 1, 4.8.3.5 and 11.5.2.3) and its flags.
//
// In the state that nearly all programs leave MXCSR in (round to nearest, everything masked, PE set long
// ago) WASM's own operations give the same as long as operands and results are ordinary numbers: then no
// other flag can be set. Everything else is computed by softfloat.ts.
import { add, divide, multiply, squareRoot } from "./softfloat_arithmetic";
import {
  addFlags,
  compareNumbers,
  DENORMAL,
  DENORMAL_OPERAND,
  EXPONENT,
  FINITE,
  flags,
  fromInteger,
  INVALID,
  KIND,
  QUIET_NAN,
  rounding,
  setControl,
  setFlags,
  setRounding,
  setZero,
  SIGN,
  SIGNALLING_NAN,
  toInteger,
  TOWARD_ZERO,
  ZERO,
} from "./softfloat";
import {
  packDouble,
  packSingle,
  roundDouble,
  roundSingle,
  unpackDouble,
  unpackSingle,
} from "./softfloat_formats";

export const ADD: u32 = 0;
export const SUB: u32 = 1;
export const MUL: u32 = 2;
export const DIV: u32 = 3;
export const MIN: u32 = 4;
export const MAX: u32 = 5;
export const SQRT: u32 = 6;

export const UNORDERED: i32 = 2;

const A: usize = memory.data(32, 16);
const B: usize = memory.data(32, 16);
const R: usize = memory.data(32, 16);

/** MXCSR: denormal operands are zeros. */
const DAZ: u32 = 0x40;
const FTZ: u32 = 0x8000;
const UNDERFLOW_MASK: u32 = 0x800;
/** MXCSR without its flags but PE: round to nearest, all masked, no DAZ, no FTZ, inexact before. */
const PLAIN_MASK: u32 = 0xffe0;
const PLAIN: u32 = 0x1fa0;

let denormalsAreZeros: bool = false;
let plain: bool = false;

/** Takes the modes out of MXCSR. */
export function begin(mxcsr: u32): void {
  const flush = (mxcsr & (FTZ | UNDERFLOW_MASK)) == (FTZ | UNDERFLOW_MASK);
  setControl((mxcsr >> 13) & 3, (mxcsr >> 7) & 0x3f, flush);
  denormalsAreZeros = (mxcsr & DAZ) != 0;
  plain = (mxcsr & PLAIN_MASK) == PLAIN;
}

function flushOperand(a: usize): void {
  if (denormalsAreZeros && load<u32>(a, DENORMAL) != 0) setZero(a, load<u32>(a, SIGN));
}

function loadSingle(a: usize, bits: u32): void {
  unpackSingle(a, bits);
  flushOperand(a);
}

function loadDouble(a: usize, bits: u64): void {
  unpackDouble(a, bits);
  flushOperand(a);
}

function isNaN(a: usize): bool {
  return load<u32>(a, KIND) >= QUIET_NAN;
}

/** Whether one operand is a NaN; sets the flag for a signalling one. */
function hasNaN(): bool {
  if (!isNaN(A) && !isNaN(B)) return false;
  if (load<u32>(A, KIND) == SIGNALLING_NAN || load<u32>(B, KIND) == SIGNALLING_NAN) {
    addFlags(INVALID);
  }
  return true;
}

function noteDenormals(): void {
  if ((load<u32>(A, DENORMAL) | load<u32>(B, DENORMAL)) != 0) addFlags(DENORMAL_OPERAND);
}

/** R = A op B, for ADD to DIV and (of B) SQRT. */
function compute(op: u32): void {
  const before = flags;
  setFlags(0);
  if (op <= SUB) add(R, A, B, op == SUB);
  else if (op == MUL) multiply(R, A, B);
  else if (op == DIV) divide(R, A, B);
  else squareRoot(R, B);
  // Invalid and divide-by-zero come before denormal operands (SDM 1, 4.9.2).
  if (flags == 0) noteDenormals();
  addFlags(before);
}

/** Whether MIN or MAX gives its first operand. */
function selectsFirst(op: u32): bool {
  if (isNaN(A) || isNaN(B)) {
    addFlags(INVALID);
    return false;
  }
  noteDenormals();
  return compareNumbers(A, B) == (op == MIN ? -1 : 1);
}

function plainSingle(op: u32, a: f32, b: f32): f32 {
  if (op == ADD) return a + b;
  if (op == SUB) return a - b;
  if (op == MUL) return a * b;
  return op == DIV ? a / b : sqrt<f32>(b);
}

function plainDouble(op: u32, a: f64, b: f64): f64 {
  if (op == ADD) return a + b;
  if (op == SUB) return a - b;
  if (op == MUL) return a * b;
  return op == DIV ? a / b : sqrt<f64>(b);
}

/** An operation on singles; SQRT is of b. */
export function single(op: u32, a: u32, b: u32): u32 {
  if (plain && op != MIN && op != MAX) {
    // Normal operands, a result that is normal and not of the least binade.
    const exponentA = ((a >> 23) & 0xff) - 1;
    const exponentB = ((b >> 23) & 0xff) - 1;
    if ((exponentA < 0xfe || op == SQRT) && exponentB < 0xfe) {
      const result = reinterpret<u32>(
        plainSingle(op, reinterpret<f32>(a), reinterpret<f32>(b)),
      );
      if (((result >> 23) & 0xff) - 2 < 0xfd) return result;
    }
  }
  loadSingle(B, b);
  if (op == SQRT) setZero(A, 0);
  else loadSingle(A, a);
  if (op == MIN || op == MAX) {
    if (selectsFirst(op)) return load<u32>(A, KIND) == ZERO ? load<u32>(A, SIGN) << 31 : a;
    return load<u32>(B, KIND) == ZERO ? load<u32>(B, SIGN) << 31 : b;
  }
  if (hasNaN()) return isNaN(A) ? a | 0x400000 : b | 0x400000;
  compute(op);
  roundSingle(R);
  return packSingle(R);
}

/** An operation on doubles; SQRT is of b. */
export function double(op: u32, a: u64, b: u64): u64 {
  if (plain && op != MIN && op != MAX) {
    const exponentA = (((a >> 52) as u32) & 0x7ff) - 1;
    const exponentB = (((b >> 52) as u32) & 0x7ff) - 1;
    if ((exponentA < 0x7fe || op == SQRT) && exponentB < 0x7fe) {
      const result = reinterpret<u64>(
        plainDouble(op, reinterpret<f64>(a), reinterpret<f64>(b)),
      );
      if ((((result >> 52) as u32) & 0x7ff) - 2 < 0x7fd) return result;
    }
  }
  loadDouble(B, b);
  if (op == SQRT) setZero(A, 0);
  else loadDouble(A, a);
  if (op == MIN || op == MAX) {
    const first = selectsFirst(op);
    const number = first ? A : B;
    if (load<u32>(number, KIND) == ZERO) return (load<u32>(number, SIGN) as u64) << 63;
    return first ? a : b;
  }
  if (hasNaN()) return (isNaN(A) ? a : b) | 0x8000000000000;
  compute(op);
  roundDouble(R);
  return packDouble(R);
}

/** -1, 0, 1 or UNORDERED for what is in A and B. */
function compareLoaded(quiet: bool): i32 {
  if (hasNaN()) {
    if (!quiet) addFlags(INVALID);
    return UNORDERED;
  }
  noteDenormals();
  return compareNumbers(A, B);
}

/** Neither NaN nor denormal nor infinite: a comparison of two such sets no flags in any mode. */
function isOrdinarySingle(bits: u32): bool {
  return ((bits >> 23) & 0xff) - 1 < 0xfe || (bits << 1) == 0;
}

function isOrdinaryDouble(bits: u64): bool {
  return (((bits >> 52) as u32) & 0x7ff) - 1 < 0x7fe || (bits << 1) == 0;
}

/** Compares; quiet: only a signalling NaN is invalid. */
export function compareSingles(a: u32, b: u32, quiet: bool): i32 {
  if (isOrdinarySingle(a) && isOrdinarySingle(b)) {
    const x = reinterpret<f32>(a);
    const y = reinterpret<f32>(b);
    return x < y ? -1 : x > y ? 1 : 0;
  }
  loadSingle(A, a);
  loadSingle(B, b);
  return compareLoaded(quiet);
}

export function compareDoubles(a: u64, b: u64, quiet: bool): i32 {
  if (isOrdinaryDouble(a) && isOrdinaryDouble(b)) {
    const x = reinterpret<f64>(a);
    const y = reinterpret<f64>(b);
    return x < y ? -1 : x > y ? 1 : 0;
  }
  loadDouble(A, a);
  loadDouble(B, b);
  return compareLoaded(quiet);
}

export function singleToDouble(bits: u32): u64 {
  loadSingle(A, bits);
  setZero(B, 0);
  if (!hasNaN()) noteDenormals();
  return packDouble(A);
}

export function doubleToSingle(bits: u64): u32 {
  loadDouble(A, bits);
  setZero(B, 0);
  if (!hasNaN()) {
    noteDenormals();
    roundSingle(A);
  }
  return packSingle(A);
}

/** The loaded number as a signed integer of 32 or 64 bits; invalid: only the top bit. */
function toSigned(truncate: bool, bits: u32): u64 {
  const indefinite = (1 as u64) << (bits - 1);
  const kind = load<u32>(A, KIND);
  if (kind == ZERO) return 0;
  if (kind == FINITE && load<i32>(A, EXPONENT) < 64) {
    const mode = rounding;
    if (truncate) setRounding(TOWARD_ZERO);
    const before = flags;
    const magnitude = toInteger(A);
    setRounding(mode);
    const negative = load<u32>(A, SIGN) != 0;
    if (magnitude < indefinite || (negative && magnitude == indefinite)) {
      return negative ? 0 - magnitude : magnitude;
    }
    setFlags(before | INVALID);
    return indefinite;
  }
  addFlags(INVALID);
  return indefinite;
}

export function singleToInteger(bits: u32, truncate: bool, width: u32): u64 {
  loadSingle(A, bits);
  return toSigned(truncate, width);
}

export function doubleToInteger(bits: u64, truncate: bool, width: u32): u64 {
  loadDouble(A, bits);
  return toSigned(truncate, width);
}

export function integerToSingle(value: i64): u32 {
  fromInteger(A, value < 0, (value < 0 ? 0 - value : value) as u64);
  roundSingle(A);
  return packSingle(A);
}

export function integerToDouble(value: i64): u64 {
  fromInteger(A, value < 0, (value < 0 ? 0 - value : value) as u64);
  roundDouble(A);
  return packDouble(A);
}

/** ROUNDxx of the loaded number; `control` is the immediate (SDM 2, table 4-21). */
function roundLoaded(control: u32): void {
  const kind = load<u32>(A, KIND);
  if (kind == SIGNALLING_NAN) addFlags(INVALID);
  if (kind != FINITE || load<i32>(A, EXPONENT) > 62) return;
  const mode = rounding;
  const before = flags;
  const sign = load<u32>(A, SIGN);
  if ((control & 4) == 0) setRounding(control & 3);
  fromInteger(A, sign != 0, toInteger(A));
  store<u32>(A, sign, SIGN);
  setRounding(mode);
  if ((control & 8) != 0) setFlags(before);
}

export function roundSingleToWhole(bits: u32, control: u32): u32 {
  loadSingle(A, bits);
  roundLoaded(control);
  return packSingle(A);
}

export function roundDoubleToWhole(bits: u64, control: u32): u64 {
  loadDouble(A, bits);
  roundLoaded(control);
  return packDouble(A);
}
