// Instructions on single bits and the order of bytes, POPCNT, CRC32.
import { arithmeticFlags, CF, setArithmetic, ZF } from "./flags";
import { isLocked } from "./integer";
import { commit, readForWrite } from "./locked";
import { readSized } from "./memory";
import {
  extend,
  linearAt,
  readRegister,
  readSource,
  sizeOf,
  sum,
  toMemory,
  truncate,
  writeDestination,
  writeRegister,
} from "./operand";
import { OP_BT, OP_BTC, OP_BTR, OP_BTS } from "./ops";
import { OP_DST, OP_IMMEDIATE, OP_SEGMENT, OP_SRC, OPERAND_IMMEDIATE } from "./record";

function changed(code: u32, value: u64, mask: u64): u64 {
  switch (code) {
    case OP_BTS:
      return value | mask;
    case OP_BTR:
      return value & ~mask;
    case OP_BTC:
      return value ^ mask;
    default:
      return value;
  }
}

function setCarry(set: bool): void {
  const flags = arithmeticFlags() & ~CF;
  setArithmetic(set ? flags | CF : flags);
}

/** BT, BTS, BTR, BTC. A bit number in a register reaches beyond an operand in memory. */
export function bitTest(code: u32, op: usize): void {
  const size = sizeOf(op);
  const bits = (size << 3) as u64;
  const immediate = (load<u8>(op, OP_SEGMENT) & OPERAND_IMMEDIATE) != 0;
  const index = immediate
    ? load<u64>(op, OP_IMMEDIATE)
    : extend(readRegister(load<u16>(op, OP_SRC), size), size);
  const mask = (1 as u64) << (index & (bits - 1));
  if (!toMemory(op)) {
    const register = load<u16>(op, OP_DST) as usize;
    const value = readRegister(register, size);
    if (code != OP_BT) writeRegister(register, size, changed(code, value, mask));
    setCarry((value & mask) != 0);
    return;
  }
  let offset = sum(op);
  if (!immediate) offset += (((index as i64) >> (ctz(bits) as i64)) * (size as i64)) as u64;
  const linear = linearAt(op, offset, size, code != OP_BT);
  if (code == OP_BT) {
    setCarry((readSized(linear, size) & mask) != 0);
    return;
  }
  while (true) {
    const value = readForWrite(linear, size);
    if (!commit(linear, size, value, changed(code, value, mask), isLocked(op))) continue;
    setCarry((value & mask) != 0);
    return;
  }
}

/** BSF and BSR; of zero, ZF is set and the destination stays. */
export function bitScan(op: usize, reverse: bool): void {
  const size = sizeOf(op);
  const value = readSource(op, size);
  const flags = arithmeticFlags() & ~ZF;
  if (value == 0) {
    setArithmetic(flags | ZF);
    return;
  }
  writeRegister(load<u16>(op, OP_DST), size, reverse ? 63 - clz(value) : ctz(value));
  setArithmetic(flags);
}

export function populationCount(op: usize): void {
  const size = sizeOf(op);
  const value = readSource(op, size);
  writeRegister(load<u16>(op, OP_DST), size, popcnt(value));
  setArithmetic(value == 0 ? ZF : 0);
}

function swapped(value: u64, size: u32): u64 {
  let result: u64 = 0;
  for (let i: u32 = 0; i < size; i++) {
    result = (result << 8) | ((value >> ((i << 3) as u64)) & 0xff);
  }
  return result;
}

/** BSWAP; of 16 bits it is undefined, and processors give 0. */
export function byteSwap(op: usize): void {
  const size = sizeOf(op);
  const register = load<u16>(op, OP_DST) as usize;
  writeRegister(register, size, size == 2 ? 0 : swapped(readRegister(register, size), size));
}

export function moveSwapped(op: usize): void {
  const size = sizeOf(op);
  writeDestination(op, size, swapped(readSource(op, size), size));
}

/** The polynomial of CRC-32C, reflected. */
const POLYNOMIAL: u32 = 0x82f6_3b78;

export function crc32(op: usize): void {
  const size = sizeOf(op);
  const register = load<u16>(op, OP_DST) as usize;
  let value = readSource(op, size);
  let crc = load<u32>(register & ~7);
  for (let i: u32 = 0; i < size; i++) {
    crc ^= (value & 0xff) as u32;
    for (let j = 0; j < 8; j++) crc = (crc >> 1) ^ (POLYNOMIAL & (0 - (crc & 1)));
    value >>= 8;
  }
  store<u64>(register & ~7, crc as u64);
}

/** MOVSX and MOVSXD: the source has `from` bytes. */
export function moveExtended(op: usize, from: u32, signed: bool): void {
  const value = readSource(op, from);
  const size = sizeOf(op);
  writeRegister(load<u16>(op, OP_DST), size, truncate(signed ? extend(value, from) : value, size));
}
