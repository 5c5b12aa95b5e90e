// Stacks as the system part uses them: reading from the present one, and frames pushed at once.
import { raise, VECTOR_GP, VECTOR_SS } from "./fault";
import { probeWriteFor, read16, readSized, writeFor } from "./memory";
import {
  BIG, canonical, code64, cpl, gpr, RSP, segmentAttributes, segmentBase, segmentLimit, setGpr, SS,
} from "./registers";
import { linear, loadSegment, opMovSreg, withinLimit } from "./segment";

/** Values of the frame being built: a call gate copies at most 31 parameters. */
const VALUES = memory.data(48 * 8);

let slots: u32 = 0;
let slotBytes: u32 = 0;
let pointer: u64 = 0;
let mask: u64 = 0;
let base: u64 = 0;
let limit: u32 = 0;
let attributes: u32 = 0;
let flat: bool = false;
let user: bool = false;
let error: u32 = 0;

/** Which bits of RSP a stack segment uses. */
export function maskOf(stackAttributes: u32): u64 {
  return stackAttributes & BIG ? 0xffff_ffff : 0xffff;
}

/** Which bits of RSP the present stack uses. */
export function stackMask(): u64 {
  return code64() ? u64.MAX_VALUE : maskOf(segmentAttributes(SS));
}

/** RSP with the bits under a mask replaced; a 32-bit pointer clears the upper half. */
export function setStackPointer(value: u64, stackBits: u64): void {
  setGpr(RSP, stackBits == 0xffff ? (gpr(RSP) & ~stackBits) | (value & stackBits) : value & stackBits);
}

/** Reads what lies so many bytes above the stack pointer. */
export function peek(offset: u32, size: u32): u64 {
  return readSized(linear(SS, (gpr(RSP) + offset) & stackMask(), size, false), size);
}

export function dropFromStack(bytes: u32): void {
  const stackBits = stackMask();
  setStackPointer(gpr(RSP) + bytes, stackBits);
}

/** Begins a frame on the present stack. */
export function beginFrame(size: u32): void {
  slots = 0;
  slotBytes = size;
  pointer = gpr(RSP);
  mask = stackMask();
  base = segmentBase(SS);
  limit = segmentLimit(SS);
  attributes = segmentAttributes(SS);
  flat = code64();
  user = cpl() == 3;
  error = 0;
}

/** Begins a frame on a stack in a segment that is not yet in SS. */
export function beginFrameIn(
  size: u32, sp: u64, stackBase: u64, stackLimit: u32, stackAttributes: u32, level: u32, errorCode: u32,
): void {
  slots = 0;
  slotBytes = size;
  pointer = sp;
  mask = maskOf(stackAttributes);
  base = stackBase;
  limit = stackLimit;
  attributes = stackAttributes;
  flat = false;
  user = level == 3;
  error = errorCode;
}

/** Begins a frame of 8-byte slots at a 64-bit address. */
export function beginFrame64(sp: u64, level: u32, errorCode: u32): void {
  slots = 0;
  slotBytes = 8;
  pointer = sp;
  mask = u64.MAX_VALUE;
  base = 0;
  flat = true;
  user = level == 3;
  error = errorCode;
}

export function addToFrame(value: u64): void {
  store<u64>(VALUES + (<usize>slots << 3), value);
  slots++;
}

function slotAddress(slot: u32): u64 {
  const offset = (pointer - (slot + 1) * slotBytes) & mask;
  if (flat) {
    if (!canonical(offset) || !canonical(offset + slotBytes - 1)) raise(VECTOR_SS, error);
    return offset;
  }
  if (!withinLimit(attributes, limit, offset, slotBytes)) raise(VECTOR_SS, error);
  return (base + offset) & 0xffff_ffff;
}

/** Pushes the frame: all of it, or a fault and nothing. */
export function writeFrame(): void {
  for (let slot: u32 = 0; slot < slots; slot++) probeWriteFor(slotAddress(slot), slotBytes, user);
  for (let slot: u32 = 0; slot < slots; slot++) {
    writeFor(slotAddress(slot), slotBytes, load<u64>(VALUES + (<usize>slot << 3)), user);
  }
}

/** Moves RSP to the frame's end. SS is the frame's segment by now. */
export function commitFrame(): void {
  setStackPointer(pointer - slots * slotBytes, mask);
}

/** Where a jump may go: canonical in 64-bit code, within CS's limit otherwise. */
export function checkTarget(rip: u64, long: bool, codeLimit: u32, ext: u32): void {
  if (long ? !canonical(rip) : rip > codeLimit) raise(VECTOR_GP, ext);
}

/** POP Sreg; ends a block. */
export function opPopSreg(seg: u32, size: u32): void {
  const stackBits = stackMask();
  opMovSreg(seg, <u32>peek(0, size));
  setStackPointer(gpr(RSP) + size, stackBits);
}

/** LDS, LES, LFS, LGS, LSS: a selector after the offset in memory. Gives the offset. */
export function opLoadFar(seg: u32, size: u32, operandSeg: u32, ea: u64): u64 {
  const at = linear(operandSeg, ea, size + 2, false);
  const offset = readSized(at, size);
  loadSegment(seg, read16(at + size));
  return offset;
}
