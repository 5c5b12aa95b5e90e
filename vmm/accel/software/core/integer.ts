// Integer arithmetic of every size, as decoded operations that the dispatch loop has no code of its own for.
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
  ZF,
} from "./flags";
import { raiseGP } from "./fault";
import { GPR } from "./layout";
import { commit, commitPair, readForWrite } from "./locked";
import { readSized, writeSized } from "./memory";
import {
  addressOf,
  extend,
  readDestination,
  readRegister,
  readSource,
  sizeOf,
  toMemory,
  writeDestination,
  writeRegister,
} from "./operand";
import {
  OP_ADC,
  OP_ADD,
  OP_AND,
  OP_CMP,
  OP_DEC,
  OP_INC,
  OP_NEG,
  OP_NOT,
  OP_OR,
  OP_SBB,
  OP_SUB,
  OP_TEST,
  OP_XOR,
} from "./ops";
import { lockPairs, unlockPairs } from "./sharing";
import { FLAG_LOCK, OP_DST, OP_FLAGS, OP_SRC } from "./record";

/** Whether an operation has a LOCK prefix. */
// @ts-ignore: decorator
@inline
export function isLocked(op: usize): bool {
  return (load<u8>(op, OP_FLAGS) & FLAG_LOCK) != 0;
}

/** The result of an operation of two operands; bits beyond the size are not meant. */
function resultOf(code: u32, a: u64, b: u64, carryIn: u64): u64 {
  switch (code) {
    case OP_ADD:
      return a + b;
    case OP_ADC:
      return a + b + carryIn;
    case OP_SUB:
    case OP_CMP:
      return a - b;
    case OP_SBB:
      return a - b - carryIn;
    case OP_AND:
    case OP_TEST:
      return a & b;
    case OP_OR:
      return a | b;
    case OP_XOR:
      return a ^ b;
    case OP_INC:
      return a + 1;
    case OP_DEC:
      return a - 1;
    case OP_NEG:
      return 0 - a;
    default:
      return ~a;
  }
}

/** CF, AF and OF of an addition (or subtraction) with carry, by the operands' and result's signs. */
function partsOf(a: u64, b: u64, result: u64, subtract: bool): u32 {
  let parts = ((a ^ b ^ result) as u32) & AF;
  const out = subtract ? (~a & b) | (~(a ^ b) & result) : (a & b) | ((a | b) & ~result);
  const over = subtract ? (a ^ b) & (a ^ result) : (result ^ a) & (result ^ b);
  if ((out as i64) < 0) parts |= CF;
  if ((over as i64) < 0) parts |= OF;
  return parts;
}

function flagsOf(code: u32, first: u64, second: u64, whole: u64, size: u32): void {
  const a = extend(first, size), b = extend(second, size), result = extend(whole, size);
  switch (code) {
    case OP_ADD:
      flagsOfAdd(result, a, b);
      return;
    case OP_SUB:
    case OP_CMP:
      flagsOfSub(result, a, b);
      return;
    case OP_NEG:
      flagsOfSub(result, 0, a);
      return;
    case OP_ADC:
      flagsOfParts(result, partsOf(a, b, result, false));
      return;
    case OP_SBB:
      flagsOfParts(result, partsOf(a, b, result, true));
      return;
    case OP_INC:
      flagsOfStep(result, KIND_INC, size << 3);
      return;
    case OP_DEC:
      flagsOfStep(result, KIND_DEC, size << 3);
      return;
    case OP_NOT:
      return;
    default:
      flagsOfLogic(result);
  }
}

/** ADD, OR, ADC, SBB, AND, SUB, XOR and INC, DEC, NOT, NEG, whose source does not matter. */
export function arithmetic(code: u32, op: usize): void {
  const size = sizeOf(op);
  const b = readSource(op, size);
  const carryIn: u64 = carry() ? 1 : 0;
  if (toMemory(op)) {
    const linear = addressOf(op, size, true);
    const locked = isLocked(op);
    while (true) {
      const a = readForWrite(linear, size);
      const result = resultOf(code, a, b, carryIn);
      if (!commit(linear, size, a, result, locked)) continue;
      flagsOf(code, a, b, result, size);
      return;
    }
  }
  const register = load<u16>(op, OP_DST) as usize;
  const a = readRegister(register, size);
  const result = resultOf(code, a, b, carryIn);
  writeRegister(register, size, result);
  flagsOf(code, a, b, result, size);
}

/** CMP and TEST. */
export function compare(code: u32, op: usize): void {
  const size = sizeOf(op);
  const a = readDestination(op, size), b = readSource(op, size);
  flagsOf(code, a, b, resultOf(code, a, b, 0), size);
}

export function exchange(op: usize): void {
  const size = sizeOf(op);
  const source = load<u16>(op, OP_SRC) as usize;
  const b = readRegister(source, size);
  if (toMemory(op)) {
    const linear = addressOf(op, size, true);
    while (true) {
      const a = readForWrite(linear, size);
      // XCHG with memory is locked with or without the prefix.
      if (!commit(linear, size, a, b, true)) continue;
      writeRegister(source, size, a);
      return;
    }
  }
  const destination = load<u16>(op, OP_DST) as usize;
  const a = readRegister(destination, size);
  writeRegister(destination, size, b);
  writeRegister(source, size, a);
}

export function exchangeAdd(op: usize): void {
  const size = sizeOf(op);
  const source = load<u16>(op, OP_SRC) as usize;
  const b = readRegister(source, size);
  if (toMemory(op)) {
    const linear = addressOf(op, size, true);
    while (true) {
      const a = readForWrite(linear, size);
      if (!commit(linear, size, a, a + b, isLocked(op))) continue;
      writeRegister(source, size, a);
      flagsOf(OP_ADD, a, b, a + b, size);
      return;
    }
  }
  const destination = load<u16>(op, OP_DST) as usize;
  const a = readRegister(destination, size);
  writeRegister(source, size, a);
  writeRegister(destination, size, a + b);
  flagsOf(OP_ADD, a, b, a + b, size);
}

export function compareExchange(op: usize): void {
  const size = sizeOf(op);
  const value = readRegister(load<u16>(op, OP_SRC), size);
  const expected = readRegister(GPR, size);
  if (toMemory(op)) {
    const linear = addressOf(op, size, true);
    while (true) {
      const a = readForWrite(linear, size);
      // The operand is written in any case.
      if (!commit(linear, size, a, a == expected ? value : a, isLocked(op))) continue;
      if (a != expected) writeRegister(GPR, size, a);
      flagsOf(OP_CMP, expected, a, expected - a, size);
      return;
    }
  }
  const a = readDestination(op, size);
  if (a == expected) writeDestination(op, size, value);
  else writeRegister(GPR, size, a);
  flagsOf(OP_CMP, expected, a, expected - a, size);
}

/** CMPXCHG8B, and 16B if the operand size says so. */
export function compareExchangePair(op: usize): void {
  const half: u32 = sizeOf(op);
  if (half == 8) compareExchange16(op);
  else compareExchange8(op);
}

function setZero(equal: bool): void {
  const flags = arithmeticFlags();
  setArithmetic(equal ? flags | ZF : flags & ~ZF);
}

function compareExchange8(op: usize): void {
  const linear = addressOf(op, 8, true);
  const expected = (load<u32>(GPR) as u64) | ((load<u32>(GPR + 16) as u64) << 32);
  const value = (load<u32>(GPR + 24) as u64) | ((load<u32>(GPR + 8) as u64) << 32);
  while (true) {
    const a = readForWrite(linear, 8);
    if (!commit(linear, 8, a, a == expected ? value : a, isLocked(op))) continue;
    if (a != expected) {
      store<u64>(GPR, a & 0xffff_ffff);
      store<u64>(GPR + 16, a >> 32);
    }
    setZero(a == expected);
    return;
  }
}

function compareExchange16(op: usize): void {
  const linear = addressOf(op, 16, true);
  if (linear & 15) raiseGP(0);
  // What may fault comes before the lock.
  readForWrite(linear, 8);
  readForWrite(linear + 8, 8);
  lockPairs();
  let low: u64, high: u64, equal: bool;
  do {
    low = readSized(linear, 8);
    high = readSized(linear + 8, 8);
    equal = low == load<u64>(GPR) && high == load<u64>(GPR + 16);
  } while (equal && !commitPair(linear, low, high, load<u64>(GPR + 24), load<u64>(GPR + 8)));
  unlockPairs();
  if (!equal) {
    store<u64>(GPR, low);
    store<u64>(GPR + 16, high);
  }
  setZero(equal);
}

/** Sets the flags of comparing two values. */
export function compareValues(a: u64, b: u64, size: u32): void {
  flagsOf(OP_CMP, a, b, a - b, size);
}
