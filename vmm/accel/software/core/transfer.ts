// Far jumps, calls and returns (Intel SDM volume 2, JMP, CALL, RET; volume 3, 5.8).
import { raise, raiseGP, VECTOR_GP, VECTOR_NP, VECTOR_TS } from "./fault";
import { modeChanged, read16System, read32System, read64System } from "./memory";
import {
  BIG, CALL_GATE16, CALL_GATE32, CONFORMING, cpl, CS, dplOf, gpr, jump, LONG, longMode, nextRip,
  NOT_SYSTEM, paragraphMode, PRESENT, RSP, segmentAttributes, segmentBase, segmentLimit,
  segmentSelector, setSegment, SS, TASK_GATE, TR, TSS16, TSS32,
} from "./registers";
import {
  checkStack, descriptorAttributes, descriptorBase, descriptorLimit, dropPrivilegedSegments, isCode,
  isNull, loadFrom, loadParagraph, markAccessed, readDescriptor, readUpperHalf,
} from "./segment";
import {
  addToFrame, beginFrame, beginFrame64, beginFrameIn, checkTarget, commitFrame, dropFromStack,
  peek, setStackPointer, stackMask, writeFrame,
} from "./stack";
import { BY_CALL, BY_JUMP, switchTask } from "./task";

/** An offset as an operand of so many bytes has it. */
export function truncated(value: u64, size: u32): u64 {
  return size == 2 ? value & 0xffff : size == 4 ? value & 0xffff_ffff : value;
}

export function isLongCode(attributes: u32): bool {
  return longMode() && (attributes & LONG) != 0;
}

/** Puts a checked code segment into CS at a privilege level. */
export function loadCode(selector: u32, descriptor: u64, level: u32): void {
  loadFrom(CS, (selector & 0xfffc) | level, descriptor);
}

/** What every code segment must be to be entered: there, and not both 64-bit and 32-bit. */
export function checkCodePresent(selector: u32, attributes: u32, ext: u32): void {
  const error = (selector & 0xfffc) | ext;
  if (longMode() && (attributes & (LONG | BIG)) == (LONG | BIG)) raise(VECTOR_GP, error);
  if (!(attributes & PRESENT)) raise(VECTOR_NP, error);
}

/** Checks a code segment that is entered directly, without a change of privilege. */
function checkDirectCode(selector: u32, attributes: u32): void {
  const error = selector & 0xfffc;
  const level = cpl();
  const dpl = dplOf(attributes);
  const conforming = (attributes & CONFORMING) != 0;
  if (conforming ? dpl > level : (selector & 3) > level || dpl != level) raiseGP(error);
  checkCodePresent(selector, attributes, 0);
}

/** In real and virtual-8086 mode. */
function jumpParagraph(selector: u32, offset: u64): void {
  if (offset > segmentLimit(CS)) raiseGP(0);
  loadParagraph(CS, selector);
  jump(offset);
  modeChanged();
}

/** JMP ptr16:16, ptr16:32, m16:16, m16:32, m16:64. */
export function opJmpFar(selector: u32, offset: u64, size: u32): void {
  offset = truncated(offset, size);
  selector &= 0xffff;
  if (paragraphMode()) return jumpParagraph(selector, offset);
  if (isNull(selector)) raiseGP(0);
  const descriptor = readDescriptor(selector, VECTOR_GP, 0);
  const attributes = descriptorAttributes(descriptor);
  if (!(attributes & NOT_SYSTEM)) return throughSystem(selector, descriptor, false);
  if (!isCode(attributes)) raiseGP(selector & 0xfffc);
  checkDirectCode(selector, attributes);
  checkTarget(offset, isLongCode(attributes), descriptorLimit(descriptor), 0);
  loadCode(selector, markAccessed(selector, descriptor), cpl());
  jump(offset);
  modeChanged();
}

/** CALL ptr16:16, ptr16:32, m16:16, m16:32, m16:64. */
export function opCallFar(selector: u32, offset: u64, size: u32): void {
  offset = truncated(offset, size);
  selector &= 0xffff;
  if (paragraphMode()) {
    if (offset > segmentLimit(CS)) raiseGP(0);
    pushReturn(size);
    return jumpParagraph(selector, offset);
  }
  if (isNull(selector)) raiseGP(0);
  const descriptor = readDescriptor(selector, VECTOR_GP, 0);
  const attributes = descriptorAttributes(descriptor);
  if (!(attributes & NOT_SYSTEM)) return throughSystem(selector, descriptor, true);
  if (!isCode(attributes)) raiseGP(selector & 0xfffc);
  checkDirectCode(selector, attributes);
  checkTarget(offset, isLongCode(attributes), descriptorLimit(descriptor), 0);
  const accessed = markAccessed(selector, descriptor);
  pushReturn(size);
  loadCode(selector, accessed, cpl());
  jump(offset);
  modeChanged();
}

/** Pushes CS and the next instruction's address on the present stack. */
function pushReturn(size: u32): void {
  beginFrame(size);
  addToFrame(segmentSelector(CS));
  addToFrame(nextRip());
  writeFrame();
  commitFrame();
}

/** A far jump or call whose selector names a gate or a TSS. */
function throughSystem(selector: u32, descriptor: u64, call: bool): void {
  const attributes = descriptorAttributes(descriptor);
  const type = attributes & 15;
  const error = selector & 0xfffc;
  const level = max<u32>(cpl(), selector & 3);
  const isGate = type == CALL_GATE32 || (!longMode() && (type == CALL_GATE16 || type == TASK_GATE));
  const isTss = !longMode() && (type == TSS16 || type == TSS32);
  if (!isGate && !isTss) raiseGP(error);
  if (dplOf(attributes) < level) raiseGP(error);
  if (!(attributes & PRESENT)) raise(VECTOR_NP, error);
  const reason = call ? BY_CALL : BY_JUMP;
  if (isTss) return switchTask(selector, reason, 0);
  if (type == TASK_GATE) return switchTask(<u32>(descriptor >> 16) & 0xffff, reason, 0);
  throughCallGate(selector, descriptor, call);
}

function throughCallGate(gateSelector: u32, gate: u64, call: bool): void {
  const size: u32 = longMode() ? 8 : (descriptorAttributes(gate) & 15) == CALL_GATE32 ? 4 : 2;
  let offset = (gate & 0xffff) | ((gate >> 32) & 0xffff_0000);
  if (size == 2) offset &= 0xffff;
  if (size == 8) {
    const upper = readUpperHalf(gateSelector, VECTOR_GP, 0);
    if ((upper >> 40) & 0x1f) raiseGP(gateSelector & 0xfffc);
    offset |= upper << 32;
  }
  const selector = <u32>(gate >> 16) & 0xffff;
  if (isNull(selector)) raiseGP(0);
  const descriptor = readDescriptor(selector, VECTOR_GP, 0);
  const attributes = descriptorAttributes(descriptor);
  const error = selector & 0xfffc;
  const level = cpl();
  const dpl = dplOf(attributes);
  if (!isCode(attributes) || dpl > level) raiseGP(error);
  const inward = !(attributes & CONFORMING) && dpl < level;
  if (inward && !call) raiseGP(error);
  if (longMode() && !(attributes & LONG)) raiseGP(error);
  checkCodePresent(selector, attributes, 0);
  checkTarget(offset, isLongCode(attributes), descriptorLimit(descriptor), 0);
  const accessed = markAccessed(selector, descriptor);
  if (inward) return callInward(selector, accessed, offset, size, <u32>(gate >> 32) & 31, dpl);
  if (call) {
    // Long mode's gates lead to 64-bit code, whose stack has neither base nor limit.
    if (size == 8) beginFrame64(gpr(RSP), level, 0);
    else beginFrame(size);
    addToFrame(segmentSelector(CS));
    addToFrame(nextRip());
    writeFrame();
    commitFrame();
  }
  loadCode(selector, accessed, level);
  jump(offset);
  modeChanged();
}

/** A call to more privilege: on that level's stack, with the old one's parameters. */
function callInward(
  selector: u32, descriptor: u64, offset: u64, size: u32, parameters: u32, level: u32,
): void {
  if (size == 8) {
    beginFrame64(innerStack64(level, 0), level, 0);
    addToFrame(segmentSelector(SS));
    addToFrame(gpr(RSP));
    addToFrame(segmentSelector(CS));
    addToFrame(nextRip());
    writeFrame();
    setSegment(SS, level, 0, 0, level << 5);
  } else {
    readInnerStack(level, 0);
    const stack = checkStack(innerSelector, level, VECTOR_TS, 0);
    beginFrameIn(size, innerPointer, descriptorBase(stack), descriptorLimit(stack),
      descriptorAttributes(stack), level, innerSelector & 0xfffc);
    addToFrame(segmentSelector(SS));
    addToFrame(gpr(RSP));
    for (let i = parameters; i > 0; i--) addToFrame(peek((i - 1) * size, size));
    addToFrame(segmentSelector(CS));
    addToFrame(nextRip());
    writeFrame();
    loadFrom(SS, innerSelector, stack);
  }
  commitFrame();
  loadCode(selector, descriptor, level);
  jump(offset);
  modeChanged();
}

/** What `readInnerStack` found in the TSS. */
export let innerSelector: u32 = 0;
export let innerPointer: u64 = 0;

/** Reads SS and ESP of an inner level from the TSS. */
export function readInnerStack(level: u32, ext: u32): void {
  const error = (segmentSelector(TR) & 0xfffc) | ext;
  const base = segmentBase(TR);
  const wide = (segmentAttributes(TR) & 8) != 0;
  const offset: u32 = wide ? level * 8 + 4 : level * 4 + 2;
  if (offset + (wide ? 5 : 3) > segmentLimit(TR)) raise(VECTOR_TS, error);
  if (wide) {
    innerPointer = read32System(base + offset);
    innerSelector = read16System(base + offset + 4);
  } else {
    innerPointer = read16System(base + offset);
    innerSelector = read16System(base + offset + 2);
  }
  if (isNull(innerSelector)) raise(VECTOR_TS, ext);
}

/** RSP0 to RSP2 of a 64-bit TSS. */
export function innerStack64(level: u32, ext: u32): u64 {
  return stackOfTss64(4 + level * 8, ext);
}

/** A stack pointer in a 64-bit TSS (SDM volume 3, figure 8-11). */
export function stackOfTss64(offset: u32, ext: u32): u64 {
  if (offset + 7 > segmentLimit(TR)) raise(VECTOR_TS, (segmentSelector(TR) & 0xfffc) | ext);
  return read64System(segmentBase(TR) + offset);
}

/** RETF, dropping so many bytes of parameters. */
export function opRetFar(size: u32, parameters: u32): void {
  const offset = peek(0, size);
  const selector = <u32>peek(size, size) & 0xffff;
  if (paragraphMode()) {
    if (offset > segmentLimit(CS)) raiseGP(0);
    dropFromStack(2 * size + parameters);
    return jumpParagraph(selector, offset);
  }
  const descriptor = checkReturnCode(selector);
  const attributes = descriptorAttributes(descriptor);
  const level = selector & 3;
  if (level == cpl()) {
    checkTarget(offset, isLongCode(attributes), descriptorLimit(descriptor), 0);
    const accessed = markAccessed(selector, descriptor);
    dropFromStack(2 * size + parameters);
    loadCode(selector, accessed, level);
    jump(offset);
    return modeChanged();
  }
  const pointer = peek(2 * size + parameters, size);
  const stackSelector = <u32>peek(3 * size + parameters, size) & 0xffff;
  const stack = checkReturnStack(stackSelector, level, isLongCode(attributes));
  checkTarget(offset, isLongCode(attributes), descriptorLimit(descriptor), 0);
  const accessed = markAccessed(selector, descriptor);
  returnOutward(selector, accessed, stackSelector, stack, pointer + parameters, size);
  jump(offset);
  modeChanged();
}

/** Checks CS of a far return or IRET to the same or less privilege. */
export function checkReturnCode(selector: u32): u64 {
  if (isNull(selector)) raiseGP(0);
  const descriptor = readDescriptor(selector, VECTOR_GP, 0);
  const attributes = descriptorAttributes(descriptor);
  const level = selector & 3;
  const error = selector & 0xfffc;
  if (!isCode(attributes) || level < cpl()) raiseGP(error);
  const dpl = dplOf(attributes);
  if (attributes & CONFORMING ? dpl > level : dpl != level) raiseGP(error);
  checkCodePresent(selector, attributes, 0);
  return descriptor;
}

/** Checks SS of a return; 64-bit code below level 3 may have none, which gives 0. */
export function checkReturnStack(selector: u32, level: u32, toLongCode: bool): u64 {
  if (!isNull(selector)) return checkStack(selector, level, VECTOR_GP, 0);
  if (!toLongCode || level == 3 || selector != level) raiseGP(0);
  return 0;
}

/** Loads CS, SS and RSP of a return that changes the stack, and drops what it may not keep. */
export function returnOutward(
  selector: u32, descriptor: u64, stackSelector: u32, stack: u64, pointer: u64, size: u32,
): void {
  const level = selector & 3;
  const outward = level > cpl();
  if (isNull(stackSelector)) setSegment(SS, stackSelector, 0, 0, level << 5);
  else loadFrom(SS, stackSelector, stack);
  loadCode(selector, descriptor, level);
  setStackPointer(truncated(pointer, size), stackMask());
  if (outward) dropPrivilegedSegments(level);
}
