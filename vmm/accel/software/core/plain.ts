// Operations that stay in their block and that the dispatch loop has no code of its own for.
import { adjustPacked, adjustUnpacked, divideAdjust, multiplyAdjust, setAlByCarry } from "./bcd";
import {
  bitScan,
  bitTest,
  byteSwap,
  crc32,
  moveExtended,
  moveSwapped,
  populationCount,
} from "./bits";
import { raise, VECTOR_BR } from "./fault";
import { arithmeticFlags, ARITHMETIC, CF, condition, DF, OF, setArithmetic } from "./flags";
import {
  arithmetic,
  compare,
  compareExchange,
  compareExchangePair,
  exchange,
  exchangeAdd,
} from "./integer";
import { GPR, RFLAGS } from "./layout";
import { readSized } from "./memory";
import { divide, divideInteger, multiply2, multiply3, multiplyWide } from "./multiply";
import {
  addressBytes,
  addressOf,
  extend,
  linearAt,
  offsetOf,
  readRegister,
  readSource,
  sizeOf,
  truncate,
  writeDestination,
  writeRegister,
} from "./operand";
import * as ops from "./ops";
import { enter, leave, popAll, popOperand, pushAll, pushOperand } from "./push";
import { OP_DST } from "./record";
import { shiftCl, shiftDouble, shiftImmediate } from "./shift";
import { plainSystem } from "./plain_system";
import { OP_IMMEDIATE } from "./record";
import { simdOperation } from "./simd_op";
import { fwait } from "./x87";
import { x87Operation } from "./x87_op";

/** CBW, CWDE, CDQE: the accumulator's lower half is extended. */
function extendAccumulator(op: usize): void {
  const size = sizeOf(op);
  const half = extend(readRegister(GPR, size >> 1), size >> 1);
  writeRegister(GPR, size, truncate(half, size));
}

/** CWD, CDQ, CQO: the accumulator's sign fills RDX. */
function extendToPair(op: usize): void {
  const size = sizeOf(op);
  const negative = (extend(readRegister(GPR, size), size) as i64) < 0;
  writeRegister(GPR + 16, size, truncate(negative ? ~0 : 0, size));
}

function moveConditionally(op: usize, code: u32): void {
  const size = sizeOf(op);
  const register = load<u16>(op, OP_DST) as usize;
  // The source is read, and 32-bit destinations are extended, in any case.
  const value = readSource(op, size);
  writeRegister(register, size, condition(code) ? value : readRegister(register, size));
}

/** BOUND: a signed index between two bounds in memory. */
function checkBounds(op: usize): void {
  const size = sizeOf(op);
  const index = extend(readRegister(load<u16>(op, OP_DST), size), size) as i64;
  const linear = addressOf(op, size << 1, false);
  const low = extend(readSized(linear, size), size) as i64;
  const high = extend(readSized(linear + size, size), size) as i64;
  if (index < low || index > high) raise(VECTOR_BR, 0);
}

function translateByte(op: usize): void {
  const offset = readRegister(GPR + 24, addressBytes(op)) + load<u8>(GPR);
  store<u8>(GPR, readSized(linearAt(op, offset, 1, false), 1) as u8);
}

function setDirection(down: bool): void {
  const flags = load<u64>(RFLAGS);
  store<u64>(RFLAGS, down ? flags | DF : flags & ~(DF as u64));
}

/** Executes an operation of the numbers from FIRST_PLAIN to FIRST_ENDING. */
export function executePlain(code: u32, op: usize): void {
  switch (code) {
    case ops.OP_ADD:
    case ops.OP_OR:
    case ops.OP_ADC:
    case ops.OP_SBB:
    case ops.OP_AND:
    case ops.OP_SUB:
    case ops.OP_XOR:
    case ops.OP_INC:
    case ops.OP_DEC:
    case ops.OP_NOT:
    case ops.OP_NEG:
      return arithmetic(code, op);
    case ops.OP_CMP:
    case ops.OP_TEST:
      return compare(code, op);
    case ops.OP_MOV: {
      const size = sizeOf(op);
      return writeDestination(op, size, readSource(op, size));
    }
    case ops.OP_LEA:
      return writeRegister(load<u16>(op, OP_DST), sizeOf(op), offsetOf(op));
    case ops.OP_XCHG:
      return exchange(op);
    case ops.OP_XADD:
      return exchangeAdd(op);
    case ops.OP_CMPXCHG:
      return compareExchange(op);
    case ops.OP_CMPXCHG8B:
      return compareExchangePair(op);
    case ops.OP_ROL:
    case ops.OP_ROR:
    case ops.OP_RCL:
    case ops.OP_RCR:
    case ops.OP_SHL:
    case ops.OP_SHR:
    case ops.OP_SAR:
      return shiftImmediate(code, op);
    case ops.OP_ROL_CL:
      return shiftCl(ops.OP_ROL, op);
    case ops.OP_ROR_CL:
      return shiftCl(ops.OP_ROR, op);
    case ops.OP_RCL_CL:
      return shiftCl(ops.OP_RCL, op);
    case ops.OP_RCR_CL:
      return shiftCl(ops.OP_RCR, op);
    case ops.OP_SHL_CL:
      return shiftCl(ops.OP_SHL, op);
    case ops.OP_SHR_CL:
      return shiftCl(ops.OP_SHR, op);
    case ops.OP_SAR_CL:
      return shiftCl(ops.OP_SAR, op);
    case ops.OP_SHLD:
      return shiftDouble(true, op, load<u64>(op, OP_IMMEDIATE));
    case ops.OP_SHRD:
      return shiftDouble(false, op, load<u64>(op, OP_IMMEDIATE));
    case ops.OP_SHLD_CL:
      return shiftDouble(true, op, load<u8>(GPR + 8) as u64);
    case ops.OP_SHRD_CL:
      return shiftDouble(false, op, load<u8>(GPR + 8) as u64);
    case ops.OP_MUL:
      return multiplyWide(op, false);
    case ops.OP_IMUL1:
      return multiplyWide(op, true);
    case ops.OP_IMUL:
      return multiply2(op);
    case ops.OP_IMUL3:
      return multiply3(op);
    case ops.OP_DIV:
      return divide(op);
    case ops.OP_IDIV:
      return divideInteger(op);
    case ops.OP_BT:
    case ops.OP_BTS:
    case ops.OP_BTR:
    case ops.OP_BTC:
      return bitTest(code, op);
    case ops.OP_BSF:
      return bitScan(op, false);
    case ops.OP_BSR:
      return bitScan(op, true);
    case ops.OP_POPCNT:
      return populationCount(op);
    case ops.OP_BSWAP:
      return byteSwap(op);
    case ops.OP_MOVBE:
      return moveSwapped(op);
    case ops.OP_CRC32:
      return crc32(op);
    case ops.OP_MOVZX8:
      return moveExtended(op, 1, false);
    case ops.OP_MOVZX16:
      return moveExtended(op, 2, false);
    case ops.OP_MOVSX8:
      return moveExtended(op, 1, true);
    case ops.OP_MOVSX16:
      return moveExtended(op, 2, true);
    case ops.OP_MOVSXD:
      return moveExtended(op, 4, true);
    case ops.OP_CBW:
      return extendAccumulator(op);
    case ops.OP_CWD:
      return extendToPair(op);
    case ops.OP_PUSH:
      return pushOperand(op);
    case ops.OP_POP:
      return popOperand(op);
    case ops.OP_PUSHA:
      return pushAll(op);
    case ops.OP_POPA:
      return popAll(op);
    case ops.OP_ENTER:
      return enter(op);
    case ops.OP_LEAVE:
      return leave(op);
    case ops.OP_BOUND:
      return checkBounds(op);
    case ops.OP_XLAT:
      return translateByte(op);
    case ops.OP_SAHF:
      return setArithmetic((arithmeticFlags() & OF) | (load<u8>(GPR + 1) & ARITHMETIC));
    case ops.OP_LAHF:
      return store<u8>(GPR + 1, ((arithmeticFlags() & ~OF) | 2) as u8);
    case ops.OP_CLC:
      return setArithmetic(arithmeticFlags() & ~CF);
    case ops.OP_STC:
      return setArithmetic(arithmeticFlags() | CF);
    case ops.OP_CMC:
      return setArithmetic(arithmeticFlags() ^ CF);
    case ops.OP_CLD:
      return setDirection(false);
    case ops.OP_STD:
      return setDirection(true);
    case ops.OP_AAA:
      return adjustUnpacked(6);
    case ops.OP_AAS:
      return adjustUnpacked(-6);
    case ops.OP_DAA:
      return adjustPacked(false);
    case ops.OP_DAS:
      return adjustPacked(true);
    case ops.OP_AAM:
      return multiplyAdjust(op);
    case ops.OP_AAD:
      return divideAdjust(op);
    case ops.OP_SALC:
      return setAlByCarry();
    case ops.OP_X87:
      return x87Operation(op);
    case ops.OP_FWAIT:
      return fwait();
    case ops.OP_SIMD:
      return simdOperation(op);
    case ops.OP_NOP:
      return;
  }
  if (code - ops.OP_CMOV < 16) return moveConditionally(op, code - ops.OP_CMOV);
  if (code - ops.OP_SETCC < 16) {
    return writeDestination(op, 1, condition(code - ops.OP_SETCC) ? 1 : 0);
  }
  plainSystem(code, op);
}
