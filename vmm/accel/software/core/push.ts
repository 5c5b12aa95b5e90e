// The stack: PUSH, POP, CALL's and RET's part of it, PUSHA, POPA, ENTER, LEAVE.
import { canonical } from "./access";
import { raise, VECTOR_SS } from "./fault";
import { probeWrite, readSized, writeSized } from "./memory";
import { MODE } from "./derived";
import { GPR } from "./layout";
import { MODE_64, MODE_B, MODE_FLAT_STACK } from "./mode";
import {
  linearAt,
  readDestination,
  sizeOf,
  sum,
  toMemory,
  truncate,
  writeRegister,
} from "./operand";
import { OP_DST, OP_IMMEDIATE, OP_SEGMENT, OPERAND_IMMEDIATE } from "./record";
import { linear } from "./segment";

const RSP: usize = GPR + 32;
const RBP: usize = GPR + 40;
const SS: u32 = 2;

/** The bits of RSP that the stack uses. */
export function stackMask(): u64 {
  const mode = load<u32>(MODE);
  return mode & MODE_64 ? ~0 : mode & MODE_B ? 0xffff_ffff : 0xffff;
}

export function setStackPointer(value: u64): void {
  const mode = load<u32>(MODE);
  if (mode & MODE_64) store<u64>(RSP, value);
  else if (mode & MODE_B) store<u64>(RSP, value & 0xffff_ffff);
  else store<u16>(RSP, value as u16);
}

/** The linear address of an offset in the stack segment. */
export function stackAddress(offset: u64, size: u32, write: bool): u64 {
  const mode = load<u32>(MODE);
  if (mode & MODE_64) {
    // Beyond what four levels of paging reach it takes a closer look.
    if ((offset + 0x8000_0000_0000) >> 48 && !canonical(offset)) raise(VECTOR_SS, 0);
    return offset;
  }
  if (mode & MODE_FLAT_STACK) return offset & 0xffff_ffff;
  return linear(SS, offset & stackMask(), size, write);
}

export function push(value: u64, size: u32): void {
  const sp = (load<u64>(RSP) - size) & stackMask();
  writeSized(stackAddress(sp, size, true), size, value);
  setStackPointer(sp);
}

/** What POP would pop; the stack pointer stays. */
export function top(size: u32): u64 {
  return readSized(stackAddress(load<u64>(RSP) & stackMask(), size, false), size);
}

export function drop(bytes: u64): void {
  setStackPointer(load<u64>(RSP) + bytes);
}

export function pushOperand(op: usize): void {
  const size = sizeOf(op);
  const immediate = (load<u8>(op, OP_SEGMENT) & OPERAND_IMMEDIATE) != 0;
  push(immediate ? load<u64>(op, OP_IMMEDIATE) : readDestination(op, size), size);
}

/** POP; its memory operand is addressed with the stack pointer as it is after the pop (SDM 2B). */
export function popOperand(op: usize): void {
  const size = sizeOf(op);
  const value = top(size);
  if (!toMemory(op)) {
    drop(size);
    writeRegister(load<u16>(op, OP_DST), size, value);
    return;
  }
  const before = load<u64>(RSP);
  drop(size);
  const offset = sum(op);
  // The destination may fault, and then nothing has happened.
  const after = load<u64>(RSP);
  store<u64>(RSP, before);
  writeSized(linearAt(op, offset, size, true), size, value);
  store<u64>(RSP, after);
}

/** PUSHA: eight registers, SP as it was. */
export function pushAll(op: usize): void {
  const size = sizeOf(op);
  const sp = load<u64>(RSP);
  const mask = stackMask();
  for (let i: u32 = 0; i < 8; i++) {
    probeWrite(stackAddress((sp - (i + 1) * size) & mask, size, true), size);
  }
  for (let i: usize = 0; i < 8; i++) {
    push(i == 4 ? sp : load<u64>(GPR + (i << 3)), size);
  }
}

/** POPA, which leaves SP's place alone. */
export function popAll(op: usize): void {
  const size = sizeOf(op);
  const sp = load<u64>(RSP);
  const mask = stackMask();
  // All are read before any is written, for the last may fault.
  for (let i: u32 = 0; i < 8; i++) {
    store<u64>(POPPED + (i << 3), readSized(stackAddress((sp + i * size) & mask, size, false), size));
  }
  for (let i: usize = 0; i < 8; i++) {
    if (i == 3) continue;
    const register = GPR + ((7 - i) << 3);
    if (size == 2) store<u16>(register, load<u16>(POPPED + (i << 3)));
    else store<u64>(register, load<u64>(POPPED + (i << 3)));
  }
  drop(size << 3);
}

/** Room for POPA's eight registers. */
const POPPED: usize = memory.data(64);

/** ENTER: a frame with copies of the outer frames' pointers (SDM 2A). */
export function enter(op: usize): void {
  const size = sizeOf(op);
  const bytes = load<u16>(op, OP_IMMEDIATE) as u64;
  const level = load<u8>(op, OP_IMMEDIATE + 2) & 31;
  const mask = stackMask();
  const sp = load<u64>(RSP) & mask;
  const frame = (sp - size) & mask;
  let at = frame;
  writeSized(stackAddress(frame, size, true), size, load<u64>(RBP));
  let outer = load<u64>(RBP);
  for (let i: u32 = 1; i < level; i++) {
    outer -= size;
    const pointer = readSized(stackAddress(outer & mask, size, false), size);
    at = (at - size) & mask;
    writeSized(stackAddress(at, size, true), size, pointer);
  }
  if (level) {
    at = (at - size) & mask;
    writeSized(stackAddress(at, size, true), size, frame);
  }
  const last = (at - bytes) & mask;
  // The new top must be writable, though nothing is written there.
  probeWrite(stackAddress(last, size, true), size);
  writeFrame(size, frame);
  setStackPointer(last);
}

function writeFrame(size: u32, frame: u64): void {
  if (size == 2) store<u16>(RBP, frame as u16);
  else store<u64>(RBP, truncate(frame, size));
}

/** LEAVE: the stack pointer goes to the frame, whose first word was the outer frame's pointer. */
export function leave(op: usize): void {
  const size = sizeOf(op);
  const sp = load<u64>(RBP) & stackMask();
  const frame = readSized(stackAddress(sp, size, false), size);
  setStackPointer(sp + size);
  writeFrame(size, frame);
}
