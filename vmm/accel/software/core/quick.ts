// What the dispatch loop's own operations are made of: operands of a known size, and the flags they leave.
import { slowRead, slowWrite } from "./access";
import { CURRENT_OP, TLB } from "./derived";
import {
  AF,
  arithmeticFlags,
  carry,
  CF,
  flagsOfAdd,
  flagsOfLogic,
  flagsOfParts,
  flagsOfStep,
  flagsOfSub,
  KIND_DEC,
  KIND_INC,
  OF,
  setArithmetic,
} from "./flags";
import { linearAt, sum } from "./operand";
import { EA_FLAT64, OP_DST, OP_EA, OP_IMMEDIATE, OP_SRC } from "./record";
import { TLB_ADDEND, TLB_READ, TLB_WRITE, tlbEntryOf } from "./tlb";

/** Sign-extends a value to 64 bits, as the flags are kept. */
// @ts-ignore: decorator
@inline
export function wide<T>(value: T): u64 {
  if (sizeof<T>() == 1) return (value as i8 as i64) as u64;
  if (sizeof<T>() == 2) return (value as i16 as i64) as u64;
  if (sizeof<T>() == 4) return (value as i32 as i64) as u64;
  return value as u64;
}

// @ts-ignore: decorator
@inline
export function dst<T>(op: usize): T {
  return load<T>(load<u16>(op, OP_DST));
}

// @ts-ignore: decorator
@inline
export function src<T>(op: usize): T {
  return load<T>(load<u16>(op, OP_SRC));
}

// @ts-ignore: decorator
@inline
export function imm<T>(op: usize): T {
  return load<T>(op, OP_IMMEDIATE);
}

/** Writes the destination register; four bytes clear its upper half. */
// @ts-ignore: decorator
@inline
export function setDst<T>(op: usize, value: T): void {
  if (sizeof<T>() == 4) store<u64>(load<u16>(op, OP_DST), value as u64);
  else store<T>(load<u16>(op, OP_DST), value);
}

/** The linear address of the memory operand. */
// @ts-ignore: decorator
@inline
export function address<T>(op: usize, write: bool): u64 {
  const offset = sum(op);
  if (load<u8>(op, OP_EA) == EA_FLAT64) return offset;
  return linearAt(op, offset, sizeof<T>() as u32, write);
}

function missedRead(op: usize, linear: u64, size: u32): u64 {
  store<u32>(CURRENT_OP, op as u32);
  return slowRead(linear, size);
}

function missedWrite(op: usize, linear: u64, size: u32, value: u64): void {
  store<u32>(CURRENT_OP, op as u32);
  slowWrite(linear, size, value);
}

// @ts-ignore: decorator
@inline
export function loadAt<T>(op: usize, linear: u64): T {
  const entry = tlbEntryOf(load<u32>(TLB) as usize, linear);
  if (load<u64>(entry, TLB_READ) == ((linear + (sizeof<T>() - 1)) & ~0xfff)) {
    return load<T>(((linear as u32) + load<u32>(entry, TLB_ADDEND)) as usize);
  }
  return missedRead(op, linear, sizeof<T>() as u32) as T;
}

// @ts-ignore: decorator
@inline
export function storeAt<T>(op: usize, linear: u64, value: T): void {
  const entry = tlbEntryOf(load<u32>(TLB) as usize, linear);
  if (load<u64>(entry, TLB_WRITE) == ((linear + (sizeof<T>() - 1)) & ~0xfff)) {
    store<T>(((linear as u32) + load<u32>(entry, TLB_ADDEND)) as usize, value);
  } else {
    missedWrite(op, linear, sizeof<T>() as u32, value as u64);
  }
}

/** Reads the memory operand. */
// @ts-ignore: decorator
@inline
export function mem<T>(op: usize): T {
  return loadAt<T>(op, address<T>(op, false));
}

/** Writes the memory operand. */
// @ts-ignore: decorator
@inline
export function setMem<T>(op: usize, value: T): void {
  storeAt<T>(op, address<T>(op, true), value);
}

/** Where the memory operand can be read and written in memory, or 0. */
// @ts-ignore: decorator
@inline
export function place<T>(op: usize): usize {
  const linear = address<T>(op, true);
  const entry = tlbEntryOf(load<u32>(TLB) as usize, linear);
  if (load<u64>(entry, TLB_WRITE) != ((linear + (sizeof<T>() - 1)) & ~0xfff)) return 0;
  return ((linear as u32) + load<u32>(entry, TLB_ADDEND)) as usize;
}

// @ts-ignore: decorator
@inline
export function add<T>(a: T, b: T): T {
  const result = (a + b) as T;
  flagsOfAdd(wide<T>(result), wide<T>(a), wide<T>(b));
  return result;
}

// @ts-ignore: decorator
@inline
export function sub<T>(a: T, b: T): T {
  const result = (a - b) as T;
  flagsOfSub(wide<T>(result), wide<T>(a), wide<T>(b));
  return result;
}

// @ts-ignore: decorator
@inline
export function logic<T>(result: T): T {
  flagsOfLogic(wide<T>(result));
  return result;
}

function carryParts(a: u64, b: u64, result: u64, out: u64, over: u64): void {
  let parts = ((a ^ b ^ result) as u32) & AF;
  if ((out as i64) < 0) parts |= CF;
  if ((over as i64) < 0) parts |= OF;
  flagsOfParts(result, parts);
}

function adcFlags(a: u64, b: u64, result: u64): void {
  carryParts(a, b, result, (a & b) | ((a | b) & ~result), (result ^ a) & (result ^ b));
}

function sbbFlags(a: u64, b: u64, result: u64): void {
  carryParts(a, b, result, (~a & b) | (~(a ^ b) & result), (a ^ b) & (a ^ result));
}

// @ts-ignore: decorator
@inline
export function adc<T>(a: T, b: T): T {
  const result = (a + b + (carry() ? 1 : 0)) as T;
  adcFlags(wide<T>(a), wide<T>(b), wide<T>(result));
  return result;
}

// @ts-ignore: decorator
@inline
export function sbb<T>(a: T, b: T): T {
  const result = (a - b - (carry() ? 1 : 0)) as T;
  sbbFlags(wide<T>(a), wide<T>(b), wide<T>(result));
  return result;
}

// @ts-ignore: decorator
@inline
export function inc<T>(a: T): T {
  const result = (a + 1) as T;
  flagsOfStep(wide<T>(result), KIND_INC, sizeof<T>() as u32 * 8);
  return result;
}

// @ts-ignore: decorator
@inline
export function dec<T>(a: T): T {
  const result = (a - 1) as T;
  flagsOfStep(wide<T>(result), KIND_DEC, sizeof<T>() as u32 * 8);
  return result;
}

/** SHL, SHR, SAR by a count that is not 0 and less than the size. */
// @ts-ignore: decorator
@inline
export function shl<T>(a: T, count: T): T {
  const result = (a << count) as T;
  const out = ((a >> ((sizeof<T>() * 8 - count) as T)) & 1) as u32;
  const after = wide<T>(result);
  flagsOfParts(after, out | ((out ^ ((after >> 63) as u32)) << 11));
  return result;
}

// @ts-ignore: decorator
@inline
export function shr<T>(a: T, count: T): T {
  const result = (a >> count) as T;
  const out = ((a >> ((count - 1) as T)) & 1) as u32;
  flagsOfParts(wide<T>(result), out | (((wide<T>(a) >> 63) as u32) << 11));
  return result;
}

// @ts-ignore: decorator
@inline
export function sar<T>(a: T, count: T): T {
  const before = wide<T>(a) as i64;
  const result = before >> (count as i64);
  flagsOfParts(result as u64, ((before >> ((count - 1) as i64)) & 1) as u32);
  return result as T;
}

/** ROL and ROR of 32 bits, which change CF and OF alone. */
export function rotate(a: u32, count: u32, left: bool): u32 {
  if (count == 0) return a;
  const result = left ? rotl(a, count) : rotr(a, count);
  const out: u32 = left ? result & 1 : result >> 31;
  const over: u32 = left ? (result >> 31) ^ out : (result >> 30) ^ out;
  setArithmetic((arithmeticFlags() & ~(CF | OF)) | out | ((over & 1) << 11));
  return result;
}
