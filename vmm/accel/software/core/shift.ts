// Shifts and rotates (SDM 2B: RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR, SHLD, SHRD).
import { arithmeticFlags, carry, CF, flagsOfParts, OF, setArithmetic } from "./flags";
import { GPR } from "./layout";
import { readForWrite } from "./locked";
import { writeSized } from "./memory";
import {
  addressOf,
  extend,
  readRegister,
  sizeOf,
  toMemory,
  truncate,
  writeRegister,
} from "./operand";
import { OP_RCL, OP_ROL, OP_ROR, OP_SAR, OP_SHL, OP_SHR } from "./ops";
import { OP_DST, OP_IMMEDIATE, OP_SRC } from "./record";


// @ts-ignore: decorator
@inline
function bit(value: u64, index: u64): u32 {
  return ((value >> index) & 1) as u32;
}

/** CF and OF of a rotate, others as they are. */
function rotateFlags(carryOut: u32, overflow: u32): void {
  const flags = arithmeticFlags() & ~(CF | OF);
  setArithmetic(flags | carryOut | (overflow ? OF : 0));
}

function rotateLeft(value: u64, count: u64, bits: u64): u64 {
  const by = count & (bits - 1);
  return by ? (value << by) | (value >> (bits - by)) : value;
}

/** RCL by `count`, less than bits + 1: a rotate of value and carry together. */
function carryLeft(value: u64, count: u64, bits: u64, carryIn: u64): u64 {
  if (count == 0) return value;
  let result = (count < 64 ? value << count : 0) | (carryIn << (count - 1));
  if (count > 1) result |= value >> (bits + 1 - count);
  return result;
}

/** ROL, ROR, RCL, RCR of a value whose size is `bits`; count is not 0. */
function rotate(code: u32, value: u64, count: u64, bits: u64): u64 {
  const top = bits - 1;
  switch (code) {
    case OP_ROL: {
      const result = truncate(rotateLeft(value, count, bits), (bits >> 3) as u32);
      rotateFlags(bit(result, 0), bit(result, 0) ^ bit(result, top));
      return result;
    }
    case OP_ROR: {
      const by = (bits - (count & (bits - 1))) & (bits - 1);
      const result = truncate(rotateLeft(value, by, bits), (bits >> 3) as u32);
      rotateFlags(bit(result, top), bit(result, top) ^ bit(result, top - 1));
      return result;
    }
  }
  let by = bits < 32 ? count % (bits + 1) : count;
  const carryIn: u64 = carry() ? 1 : 0;
  if (code == OP_RCL) {
    const result = truncate(carryLeft(value, by, bits, carryIn), (bits >> 3) as u32);
    const out = by ? bit(value, bits - by) : carryIn as u32;
    rotateFlags(out, out ^ bit(result, top));
    return result;
  }
  // RCR by n is RCL by bits + 1 - n.
  const left = by ? bits + 1 - by : 0;
  const result = truncate(carryLeft(value, left, bits, carryIn), (bits >> 3) as u32);
  const out = by ? bit(value, by - 1) : carryIn as u32;
  rotateFlags(out, bit(result, top) ^ bit(result, top - 1));
  return result;
}

/** SHL, SHR, SAR; count is not 0 and may exceed the size. */
function shift(code: u32, value: u64, count: u64, bits: u64): u64 {
  const size = (bits >> 3) as u32, top = bits - 1;
  let result: u64, parts: u32;
  if (code == OP_SHL) {
    result = truncate(value << count, size);
    parts = count <= bits ? bit(value, bits - count) : 0;
    if (parts ^ bit(result, top)) parts |= OF;
  } else if (code == OP_SHR) {
    result = value >> count;
    parts = bit(value, count - 1);
    if (bit(value, top)) parts |= OF;
  } else {
    const wide = extend(value, size) as i64;
    result = truncate((wide >> (count as i64)) as u64, size);
    parts = ((wide >> ((count - 1) as i64)) & 1) as u32;
  }
  flagsOfParts(extend(result, size), parts);
  return result;
}

function shiftOrRotate(code: u32, value: u64, count: u64, bits: u64): u64 {
  if (code == OP_SHL || code == OP_SHR || code == OP_SAR) return shift(code, value, count, bits);
  return rotate(code, value, count, bits);
}

/** All of them by a count, as `code` of the form by an immediate. */
export function shiftBy(code: u32, op: usize, by: u64): void {
  const size = sizeOf(op);
  const count = by & (size == 8 ? 63 : 31);
  const bits = (size << 3) as u64;
  if (toMemory(op)) {
    const linear = addressOf(op, size, true);
    const value = readForWrite(linear, size);
    if (count) writeSized(linear, size, shiftOrRotate(code, value, count, bits));
    return;
  }
  const register = load<u16>(op, OP_DST) as usize;
  const value = readRegister(register, size);
  writeRegister(register, size, count ? shiftOrRotate(code, value, count, bits) : value);
}

export function shiftImmediate(code: u32, op: usize): void {
  shiftBy(code, op, load<u64>(op, OP_IMMEDIATE));
}

export function shiftCl(code: u32, op: usize): void {
  shiftBy(code, op, load<u8>(GPR + 8) as u64);
}

/** SHLD and SHRD: bits come in from the source. Counts above 16 of words go on with the first operand. */
function doubleShift(left: bool, value: u64, source: u64, count: u64, size: u32): u64 {
  const bits = (size << 3) as u64, top = bits - 1;
  let result: u64, parts: u32;
  if (count > bits) {
    // Undefined; processors rotate the three words.
    const by = count - bits;
    const wide = left ? (source << by) | (value >> (bits - by)) : (source >> by) | (value << (bits - by));
    result = truncate(wide, size);
    parts = left ? bit(source, bits - by) : bit(source, by - 1);
  } else if (left) {
    result = count == bits ? source : truncate((value << count) | (source >> (bits - count)), size);
    parts = bit(value, bits - count);
  } else {
    result = count == bits ? source : truncate((value >> count) | (source << (bits - count)), size);
    parts = bit(value, count - 1);
  }
  if (bit(result, top) != bit(value, top)) parts |= OF;
  flagsOfParts(extend(result, size), parts);
  return result;
}

/** SHLD or SHRD by a count. */
export function shiftDouble(left: bool, op: usize, by: u64): void {
  const size = sizeOf(op);
  const count = by & (size == 8 ? 63 : 31);
  const source = readRegister(load<u16>(op, OP_SRC), size);
  if (toMemory(op)) {
    const linear = addressOf(op, size, true);
    const value = readForWrite(linear, size);
    if (count) writeSized(linear, size, doubleShift(left, value, source, count, size));
    return;
  }
  const register = load<u16>(op, OP_DST) as usize;
  const value = readRegister(register, size);
  writeRegister(register, size, count ? doubleShift(left, value, source, count, size) : value);
}
