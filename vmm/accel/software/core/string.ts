// MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS and their REP prefixes (SDM 2B, REP).
//
// Registers are up to date after every element, so a fault in the middle is restarted where it was. A long
// repetition stops now and then between two elements and goes on as a new execution of the same instruction.
import { keepResumeFlag, tracesIterations } from "./debug";
import { MODE, TLB } from "./derived";
import { DF } from "./flags";
import { compareValues } from "./integer";
import { GPR, NEXT_RIP, RFLAGS, RIP } from "./layout";
import { probeWrite, readSized, writeSized } from "./memory";
import { MODE_64, MODE_FLAT_DATA } from "./mode";
import { addressBytes, linearAt, readRegister, sizeOf, writeRegister } from "./operand";
import { OP_CMPS, OP_INS, OP_LODS, OP_MOVS, OP_OUTS, OP_SCAS, OP_STOS } from "./ops";
import { FLAG_REP, FLAG_REPNE, OP_FLAGS } from "./record";
import { linear } from "./segment";
import { inPort, outPort } from "./port";
import { TLB_ADDEND, TLB_READ, TLB_WRITE, tlbEntryOf } from "./tlb";

const RCX: usize = GPR + 8;
const RDX: usize = GPR + 16;
const RSI: usize = GPR + 48;
const RDI: usize = GPR + 56;

/** How many elements are done before interrupts get their chance. */
const TURN: u32 = 4096;

/** The linear address of an offset in ES, which no prefix changes. */
function destination(op: usize, offset: u64, size: u32, write: bool): u64 {
  const mode = load<u32>(MODE);
  if (mode & MODE_64) return offset;
  if (mode & MODE_FLAT_DATA && addressBytes(op) == 4) return offset & 0xffff_ffff;
  return linear(0, offset, size, write);
}

/** Moves an index register by an element. */
function step(register: usize, bytes: u32, by: u64): void {
  writeRegister(register, bytes, readRegister(register, bytes) + by);
}

/** What CMPS or SCAS has compared last; flags follow at the end, for a fault leaves them alone. */
let compared: u64 = 0;
let comparedWith: u64 = 0;

/** One element. */
function element(code: u32, op: usize, size: u32, bytes: u32, by: u64): void {
  switch (code) {
    case OP_MOVS: {
      const value = readSized(linearAt(op, readRegister(RSI, bytes), size, false), size);
      writeSized(destination(op, readRegister(RDI, bytes), size, true), size, value);
      step(RSI, bytes, by);
      step(RDI, bytes, by);
      return;
    }
    case OP_STOS:
      writeSized(destination(op, readRegister(RDI, bytes), size, true), size, load<u64>(GPR));
      step(RDI, bytes, by);
      return;
    case OP_LODS:
      writeRegister(GPR, size, readSized(linearAt(op, readRegister(RSI, bytes), size, false), size));
      step(RSI, bytes, by);
      return;
    case OP_CMPS: {
      // Processors read ES:RDI first, which shows in which of two faults comes.
      const b = readSized(destination(op, readRegister(RDI, bytes), size, false), size);
      compared = readSized(linearAt(op, readRegister(RSI, bytes), size, false), size);
      comparedWith = b;
      step(RSI, bytes, by);
      step(RDI, bytes, by);
      return;
    }
    case OP_SCAS:
      comparedWith = readSized(destination(op, readRegister(RDI, bytes), size, false), size);
      compared = readRegister(GPR, size);
      step(RDI, bytes, by);
      return;
    case OP_INS: {
      const to = destination(op, readRegister(RDI, bytes), size, true);
      probeWrite(to, size);
      writeSized(to, size, inPort(load<u16>(RDX), size) as u64);
      step(RDI, bytes, by);
      return;
    }
    case OP_OUTS: {
      const value = readSized(linearAt(op, readRegister(RSI, bytes), size, false), size);
      outPort(load<u16>(RDX), size, value as u32);
      step(RSI, bytes, by);
    }
  }
}

/** How many elements fit before an address leaves its page, upwards. */
// @ts-ignore: decorator
@inline
function inPage(address: u64, shift: u32): u32 {
  return (0x1000 - ((address as u32) & 0xfff)) >> shift;
}

/**
 * REP MOVS and REP STOS upwards within pages that the TLB knows, in one go.
 *
 * @returns how many elements were done
 */
function bulk(code: u32, op: usize, size: u32, bytes: u32, count: u64): u32 {
  const shift = ctz(size);
  const to = destination(op, readRegister(RDI, bytes), size, true);
  const tlb = load<u32>(TLB) as usize;
  const entry = tlbEntryOf(tlb, to);
  if (load<u64>(entry, TLB_WRITE) != (to & ~0xfff)) return 0;
  let n = inPage(to, shift);
  if (count < n) n = count as u32;
  const target = ((to as u32) + load<u32>(entry, TLB_ADDEND)) as usize;
  if (code == OP_STOS) {
    if (n == 0) return 0;
    fill(target, n, size);
  } else {
    const from = linearAt(op, readRegister(RSI, bytes), size, false);
    const source = tlbEntryOf(tlb, from);
    if (load<u64>(source, TLB_READ) != (from & ~0xfff)) return 0;
    n = min(n, inPage(from, shift));
    if (n == 0) return 0;
    copy(target, ((from as u32) + load<u32>(source, TLB_ADDEND)) as usize, n << shift, size);
    step(RSI, bytes, (n << shift) as u64);
  }
  step(RDI, bytes, (n << shift) as u64);
  return n;
}

/** Copies upwards, element by element where the destination overlaps what is still to be read. */
function copy(to: usize, from: usize, length: u32, size: u32): void {
  if (to <= from || to >= from + length) {
    memory.copy(to, from, length);
    return;
  }
  for (let i: usize = 0; i < length; i += size) {
    switch (size) {
      case 1:
        store<u8>(to + i, load<u8>(from + i));
        break;
      case 2:
        store<u16>(to + i, load<u16>(from + i));
        break;
      case 4:
        store<u32>(to + i, load<u32>(from + i));
        break;
      default:
        store<u64>(to + i, load<u64>(from + i));
    }
  }
}

function fill(to: usize, count: u32, size: u32): void {
  const value = load<u64>(GPR);
  if (size == 1) {
    memory.fill(to, value as u8, count);
    return;
  }
  for (let i: u32 = 0; i < count; i++, to += size) {
    if (size == 2) store<u16>(to, value as u16);
    else if (size == 4) store<u32>(to, value as u32);
    else store<u64>(to, value);
  }
}

/** Whether elements can be done in bulk: upwards, addresses that do not wrap in a segment. */
function plain(code: u32, op: usize, bytes: u32): bool {
  if (code != OP_MOVS && code != OP_STOS) return false;
  if (load<u64>(RFLAGS) & DF) return false;
  return bytes == 8 || (bytes == 4 && (load<u32>(MODE) & (MODE_64 | MODE_FLAT_DATA)) != 0);
}

/** A string instruction, with its prefix; RIP is its own, NEXT_RIP that after it. */
export function stringOperation(code: u32, op: usize): void {
  const size = sizeOf(op), bytes = addressBytes(op);
  const by: u64 = load<u64>(RFLAGS) & DF ? 0 - (size as u64) : size as u64;
  const prefix = load<u8>(op, OP_FLAGS) & (FLAG_REP | FLAG_REPNE);
  const compares = code == OP_CMPS || code == OP_SCAS;
  if (!prefix) {
    element(code, op, size, bytes, by);
    if (compares) compareValues(compared, comparedWith, size);
    return;
  }
  const once = tracesIterations();
  const inBulk = !once && plain(code, op, bytes);
  const most: u32 = once ? 1 : TURN;
  let turn: u32 = 0;
  while (true) {
    const count = readRegister(RCX, bytes);
    if (count == 0) {
      if (compares && turn) compareValues(compared, comparedWith, size);
      return;
    }
    if (turn >= most) break;
    let done = inBulk ? bulk(code, op, size, bytes, count) : 0;
    if (done == 0) {
      element(code, op, size, bytes, by);
      done = 1;
    }
    turn += done;
    writeRegister(RCX, bytes, count - done);
    if (compares && (compared == comparedWith) != ((prefix & FLAG_REP) != 0)) {
      compareValues(compared, comparedWith, size);
      return;
    }
  }
  store<u64>(NEXT_RIP, load<u64>(RIP));
  keepResumeFlag();
}
