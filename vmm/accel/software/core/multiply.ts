// MUL, IMUL, DIV, IDIV (SDM 2A, 2B), with 128-bit products and dividends.
import { CF, flagsOfParts, OF } from "./flags";
import { raise, VECTOR_DE } from "./fault";
import { GPR } from "./layout";
import {
  extend,
  readDestination,
  readRegister,
  readSource,
  sizeOf,
  truncate,
  writeRegister,
} from "./operand";
import { OP_DST, OP_IMMEDIATE } from "./record";

const RAX: usize = GPR;
const RDX: usize = GPR + 16;

/** The upper half of an unsigned product. */
function upperProduct(a: u64, b: u64): u64 {
  const a0 = a & 0xffff_ffff, a1 = a >> 32, b0 = b & 0xffff_ffff, b1 = b >> 32;
  const middle = a1 * b0 + ((a0 * b0) >> 32);
  const other = a0 * b1 + (middle & 0xffff_ffff);
  return a1 * b1 + (middle >> 32) + (other >> 32);
}

function upperSigned(a: u64, b: u64): u64 {
  let upper = upperProduct(a, b);
  if ((a as i64) < 0) upper -= b;
  if ((b as i64) < 0) upper -= a;
  return upper;
}

/** CF and OF say whether the product needs its upper half; the others follow its lower half. */
function productFlags(low: u64, size: u32, wide: bool): void {
  flagsOfParts(extend(low, size), wide ? CF | OF : 0);
}

/** MUL and IMUL with one operand: the product goes to AX, or DX:AX and wider. */
export function multiplyWide(op: usize, signed: bool): void {
  const size = sizeOf(op);
  let a = readRegister(RAX, size), b = readDestination(op, size);
  if (signed) {
    a = extend(a, size);
    b = extend(b, size);
  }
  const low = a * b;
  if (size == 8) {
    const high = signed ? upperSigned(a, b) : upperProduct(a, b);
    store<u64>(RAX, low);
    store<u64>(RDX, high);
    productFlags(low, 8, high != (signed ? ((low as i64) >> 63) as u64 : 0));
    return;
  }
  const bits = (size << 3) as u64;
  if (size == 1) {
    store<u16>(RAX, low as u16);
  } else {
    writeRegister(RAX, size, truncate(low, size));
    writeRegister(RDX, size, truncate(low >> bits, size));
  }
  const wide = signed ? extend(low, size) != low : low >> bits != 0;
  productFlags(low, size, wide);
}

/** IMUL with two operands, and with three. */
export function multiply(op: usize, a: u64): void {
  const size = sizeOf(op);
  const b = extend(readSource(op, size), size);
  const first = extend(a, size);
  const low = first * b;
  const wide = size == 8
    ? upperSigned(first, b) != (((low as i64) >> 63) as u64)
    : extend(low, size) != low;
  writeRegister(load<u16>(op, OP_DST), size, truncate(low, size));
  productFlags(low, size, wide);
}

export function multiply2(op: usize): void {
  multiply(op, readRegister(load<u16>(op, OP_DST), sizeOf(op)));
}

export function multiply3(op: usize): void {
  multiply(op, load<u64>(op, OP_IMMEDIATE));
}

/** What a division of 128 bits leaves. */
let remainder: u64 = 0;

/** Divides high:low, where high is less than the divisor; leaves the remainder in `remainder`. */
function divide128(high: u64, low: u64, divisor: u64): u64 {
  if (high == 0) {
    remainder = low % divisor;
    return low / divisor;
  }
  let rest = high, quotient: u64 = 0;
  for (let i: u64 = 0; i < 64; i++) {
    const carried = rest >> 63;
    rest = (rest << 1) | ((low >> (63 - i)) & 1);
    quotient <<= 1;
    if (carried || rest >= divisor) {
      rest -= divisor;
      quotient |= 1;
    }
  }
  remainder = rest;
  return quotient;
}

function storeQuotient(size: u32, quotient: u64, rest: u64): void {
  if (size == 1) {
    store<u16>(RAX, ((quotient & 0xff) | ((rest & 0xff) << 8)) as u16);
  } else {
    writeRegister(RAX, size, truncate(quotient, size));
    writeRegister(RDX, size, truncate(rest, size));
  }
}

/** The dividend of less than 64 bits' operands. */
function dividend(size: u32): u64 {
  if (size == 1) return load<u16>(RAX) as u64;
  const bits = (size << 3) as u64;
  return readRegister(RAX, size) | (readRegister(RDX, size) << bits);
}

export function divide(op: usize): void {
  const size = sizeOf(op);
  const divisor = readDestination(op, size);
  if (divisor == 0) raise(VECTOR_DE, 0);
  if (size == 8) {
    const high = load<u64>(RDX);
    if (high >= divisor) raise(VECTOR_DE, 0);
    const quotient = divide128(high, load<u64>(RAX), divisor);
    storeQuotient(8, quotient, remainder);
    return;
  }
  const value = dividend(size);
  const quotient = value / divisor;
  if (quotient >> ((size << 3) as u64)) raise(VECTOR_DE, 0);
  storeQuotient(size, quotient, value % divisor);
}

/** A signed division of a magnitude, whose quotient must fit. */
function divideSigned(op: usize, size: u32, high: u64, low: u64, negative: bool): void {
  const divisor = extend(readDestination(op, size), size);
  if (divisor == 0) raise(VECTOR_DE, 0);
  const negativeDivisor = (divisor as i64) < 0;
  const magnitude = negativeDivisor ? 0 - divisor : divisor;
  if (high >= magnitude) raise(VECTOR_DE, 0);
  const quotient = divide128(high, low, magnitude);
  const rest = negative ? 0 - remainder : remainder;
  const limit = (1 as u64) << ((size << 3) - 1);
  const minus = negative != negativeDivisor;
  if (quotient > (minus ? limit : limit - 1)) raise(VECTOR_DE, 0);
  storeQuotient(size, minus ? 0 - quotient : quotient, rest);
}

export function divideInteger(op: usize): void {
  const size = sizeOf(op);
  if (size == 8) {
    const high = load<u64>(RDX), low = load<u64>(RAX);
    const negative = (high as i64) < 0;
    if (!negative) divideSigned(op, 8, high, low, false);
    else divideSigned(op, 8, low ? ~high : 0 - high, 0 - low, true);
    return;
  }
  const value = dividend(size);
  const wide = extend(value, size << 1);
  const negative = (wide as i64) < 0;
  divideSigned(op, size, 0, negative ? 0 - wide : wide, negative);
}
