// Exceptions and interrupts into the guest (Intel SDM volume 3, chapter 6; volume 2, INT n).
import { CURRENT_OP } from "./derived";
import { cancelTrap, DR7_GD, setFlags } from "./debug";
import { raise, raiseGP, VECTOR_DB, VECTOR_DF, VECTOR_GP, VECTOR_NP, VECTOR_PF } from "./fault";
import {
  CR2, DR7, FAULT_ADDRESS, FAULT_DELIVERING, FAULT_ERROR_CODE, FAULT_HAS_ERROR_CODE, FAULT_PREVIOUS,
  FAULT_VECTOR, IDT_BASE, IDT_LIMIT, INTERRUPT_SHADOW, RIP, STOP_BUDGET, STOP_SHUTDOWN,
} from "./layout";
import { modeChanged, read16System, read64System } from "./memory";
import {
  CONFORMING, CS, cpl, dplOf, DS, ES, FLAG_AC, FLAG_IF, FLAG_NT, FLAG_RF, FLAG_TF, FLAG_VM, FS, gpr,
  GS, INTERRUPT_GATE16, INTERRUPT_GATE32, jump, LONG, longMode, nextRip, PRESENT, protectedMode,
  readFlags, RSP, segmentSelector, setSegment, SS, TASK_GATE, TRAP_GATE16, TRAP_GATE32, virtual8086,
  iopl,
} from "./registers";
import {
  checkStack, descriptorAttributes, descriptorBase, descriptorLimit, isCode, isNull, loadFrom,
  loadNull, loadParagraph, markAccessed, readDescriptor,
} from "./segment";
import {
  addToFrame, beginFrame, beginFrame64, beginFrameIn, checkTarget, commitFrame, writeFrame,
} from "./stack";
import { BY_INTERRUPT, pushTaskError, switchTaskFrom } from "./task";
import { VECTOR_TS } from "./fault";
import {
  checkCodePresent, innerPointer, innerSelector, innerStack64, isLongCode, loadCode, readInnerStack,
  stackOfTss64,
} from "./transfer";

/** FAULT_PREVIOUS of an interrupt, which is no exception: what fails meanwhile comes alone. */
const NO_EXCEPTION: u32 = 0xff;
/** #DE, #TS, #NP, #SS and #GP (SDM volume 3, table 6-4). */
const CONTRIBUTORY: u32 = (1 << 0) | (0xf << 10);
/** The exceptions that are traps or aborts: the flags they push have RF as it is. */
const NOT_FAULTS: u32 = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 8) | (1 << 18);

// What is delivered.
let vector: u32 = 0;
let hasErrorCode: bool = false;
let errorCode: u32 = 0;
/** By INT n, INT3 or INTO: the gate's DPL counts, and EXT is 0. */
let isSoft: bool = false;
let returnRip: u64 = 0;
let pushedFlags: u64 = 0;

function ext(): u32 {
  return isSoft ? 0 : 1;
}

/** The error code that names the IDT entry. */
function gateError(): u32 {
  return (vector << 3) | 2 | ext();
}

function isContributory(exception: u32): bool {
  return exception < 32 && ((CONTRIBUTORY >> exception) & 1) != 0;
}

/**
 * Delivers the exception that `raise` has left behind; what fails in this raises again, and the next
 * call makes of both what the processor makes (SDM volume 3, table 6-5).
 *
 * @returns STOP_SHUTDOWN for a triple fault, else STOP_BUDGET
 */
export function deliverFault(): u32 {
  store<u32>(CURRENT_OP, 0);
  let exception = load<u32>(FAULT_VECTOR);
  let code = load<u32>(FAULT_ERROR_CODE);
  let hasCode = load<u32>(FAULT_HAS_ERROR_CODE) != 0;
  if (exception == VECTOR_PF) store<u64>(CR2, load<u64>(FAULT_ADDRESS));
  if (load<u32>(FAULT_DELIVERING)) {
    const first = load<u32>(FAULT_PREVIOUS);
    const serious = isContributory(exception) || exception == VECTOR_PF;
    if (first == VECTOR_DF && serious) {
      store<u32>(FAULT_DELIVERING, 0);
      return STOP_SHUTDOWN;
    }
    if ((isContributory(first) && isContributory(exception)) || (first == VECTOR_PF && serious)) {
      exception = VECTOR_DF;
      code = 0;
      hasCode = true;
    }
  }
  if (exception == VECTOR_DB) store<u64>(DR7, load<u64>(DR7) & ~DR7_GD);
  const isFault = exception >= 32 || !((NOT_FAULTS >> exception) & 1);
  const flags = readFlags() | (isFault ? FLAG_RF : 0);
  deliver(exception, hasCode, code, false, exception, load<u64>(RIP), flags);
  return STOP_BUDGET;
}

/** Delivers an interrupt from outside, between two instructions. */
export function deliverInterrupt(number: u32): void {
  store<u32>(CURRENT_OP, 0);
  deliver(number, false, 0, false, NO_EXCEPTION, load<u64>(RIP), readFlags());
}

/** Delivers an exception that was on its way when the state was saved. */
export function deliverException(number: u32, hasCode: bool, code: u32): void {
  store<u32>(FAULT_VECTOR, number);
  store<u32>(FAULT_ERROR_CODE, code);
  store<u32>(FAULT_HAS_ERROR_CODE, hasCode ? 1 : 0);
  store<u64>(FAULT_ADDRESS, load<u64>(CR2));
  deliverFault();
}

/** INT n. */
export function opInt(number: u32): void {
  if (virtual8086() && iopl() < 3) raiseGP(0);
  deliverSoft(number);
}

/** INT3 and INTO, which virtual-8086 mode does not restrict. */
export function opTrap(number: u32): void {
  deliverSoft(number);
}

/** INT1: a #DB that no breakpoint caused. */
export function opInt1(): void {
  cancelTrap();
  deliver(VECTOR_DB, false, 0, false, VECTOR_DB, nextRip(), readFlags());
}

function deliverSoft(number: u32): void {
  cancelTrap();
  deliver(number, false, 0, true, NO_EXCEPTION, nextRip(), readFlags());
}

function deliver(
  number: u32, hasCode: bool, code: u32, soft: bool, exception: u32, rip: u64, flags: u64,
): void {
  vector = number;
  hasErrorCode = hasCode;
  errorCode = code;
  isSoft = soft;
  returnRip = rip;
  pushedFlags = flags;
  store<u32>(FAULT_DELIVERING, 1);
  store<u32>(FAULT_PREVIOUS, exception);
  if (!protectedMode()) deliverReal();
  else if (longMode()) deliverLong();
  else deliverProtected();
  store<u32>(FAULT_DELIVERING, 0);
  store<u32>(INTERRUPT_SHADOW, 0);
  modeChanged();
}

/** Through the interrupt vector table of real mode. */
function deliverReal(): void {
  const entry = vector << 2;
  if (entry + 3 > load<u32>(IDT_LIMIT)) raise(VECTOR_GP, gateError());
  const base = load<u64>(IDT_BASE);
  const offset = read16System(base + entry);
  const selector = read16System(base + entry + 2);
  beginFrame(2);
  addToFrame(pushedFlags & 0xffff);
  addToFrame(segmentSelector(CS));
  addToFrame(returnRip);
  writeFrame();
  commitFrame();
  setFlags(readFlags() & ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF));
  loadParagraph(CS, selector);
  jump(offset);
}

/** Checks a gate's rights. */
function checkGate(attributes: u32): void {
  if (isSoft && dplOf(attributes) < cpl()) raise(VECTOR_GP, gateError());
  if (!(attributes & PRESENT)) raise(VECTOR_NP, gateError());
}

/** The flags that the handler begins with. */
function enterFlags(gateType: u32): void {
  let cleared = FLAG_TF | FLAG_NT | FLAG_VM | FLAG_RF;
  if (gateType == INTERRUPT_GATE16 || gateType == INTERRUPT_GATE32) cleared |= FLAG_IF;
  setFlags(readFlags() & ~cleared);
}

function checkHandler(selector: u32): u64 {
  if (isNull(selector)) raise(VECTOR_GP, ext());
  const descriptor = readDescriptor(selector, VECTOR_GP, ext());
  const attributes = descriptorAttributes(descriptor);
  const error = (selector & 0xfffc) | ext();
  if (!isCode(attributes) || dplOf(attributes) > cpl()) raise(VECTOR_GP, error);
  if (longMode() && !(attributes & LONG)) raise(VECTOR_GP, error);
  checkCodePresent(selector, attributes, ext());
  return descriptor;
}

/** Through the 8-byte gates of protected mode. */
function deliverProtected(): void {
  const entry = vector << 3;
  if (entry + 7 > load<u32>(IDT_LIMIT)) raise(VECTOR_GP, gateError());
  const gate = read64System((load<u64>(IDT_BASE) + entry) & 0xffff_ffff);
  const attributes = descriptorAttributes(gate);
  const type = attributes & 0x1f;
  const wide = type == INTERRUPT_GATE32 || type == TRAP_GATE32;
  if (!wide && type != INTERRUPT_GATE16 && type != TRAP_GATE16 && type != TASK_GATE) {
    raise(VECTOR_GP, gateError());
  }
  checkGate(attributes);
  const selector = <u32>(gate >> 16) & 0xffff;
  if (type == TASK_GATE) return throughTaskGate(selector);
  const offset = (gate & 0xffff) | (wide ? (gate >> 32) & 0xffff_0000 : 0);
  const descriptor = checkHandler(selector);
  const handler = descriptorAttributes(descriptor);
  checkTarget(offset, false, descriptorLimit(descriptor), ext());
  const size: u32 = wide ? 4 : 2;
  const inward = !(handler & CONFORMING) && dplOf(handler) < cpl();
  if (virtual8086() && !(inward && dplOf(handler) == 0)) {
    raise(VECTOR_GP, (selector & 0xfffc) | ext());
  }
  const accessed = markAccessed(selector, descriptor);
  const level = inward ? dplOf(handler) : cpl();
  if (inward) enterInward(size, level);
  else enterSame(size);
  loadCode(selector, accessed, level);
  enterFlags(type);
  jump(offset);
}

function throughTaskGate(selector: u32): void {
  const size = hasErrorCode;
  switchTaskFrom(selector, BY_INTERRUPT, ext(), returnRip);
  if (size) pushTaskError(errorCode);
}

function addReturn(): void {
  addToFrame(pushedFlags);
  addToFrame(segmentSelector(CS));
  addToFrame(returnRip);
  if (hasErrorCode) addToFrame(errorCode);
}

/** On the present stack. */
function enterSame(size: u32): void {
  beginFrame(size);
  addReturn();
  writeFrame();
  commitFrame();
}

/** On the stack that the TSS has for the handler's level. */
function enterInward(size: u32, level: u32): void {
  readInnerStack(level, ext());
  const stack = checkStack(innerSelector, level, VECTOR_TS, ext());
  beginFrameIn(size, innerPointer, descriptorBase(stack), descriptorLimit(stack),
    descriptorAttributes(stack), level, (innerSelector & 0xfffc) | ext());
  const fromVirtual = virtual8086();
  if (fromVirtual) {
    addToFrame(segmentSelector(GS));
    addToFrame(segmentSelector(FS));
    addToFrame(segmentSelector(DS));
    addToFrame(segmentSelector(ES));
  }
  addToFrame(segmentSelector(SS));
  addToFrame(gpr(RSP));
  addReturn();
  writeFrame();
  if (fromVirtual) {
    loadNull(GS, 0);
    loadNull(FS, 0);
    loadNull(DS, 0);
    loadNull(ES, 0);
  }
  loadFrom(SS, innerSelector, stack);
  commitFrame();
}

/** Through the 16-byte gates of long mode. */
function deliverLong(): void {
  const entry = vector << 4;
  if (entry + 15 > load<u32>(IDT_LIMIT)) raise(VECTOR_GP, gateError());
  const base = load<u64>(IDT_BASE);
  const gate = read64System(base + entry);
  const upper = read64System(base + entry + 8);
  const attributes = descriptorAttributes(gate);
  const type = attributes & 0x1f;
  if (type != INTERRUPT_GATE32 && type != TRAP_GATE32) raise(VECTOR_GP, gateError());
  checkGate(attributes);
  const selector = <u32>(gate >> 16) & 0xffff;
  const offset = (gate & 0xffff) | ((gate >> 32) & 0xffff_0000) | (upper << 32);
  const descriptor = checkHandler(selector);
  const handler = descriptorAttributes(descriptor);
  const level = handler & CONFORMING ? cpl() : dplOf(handler);
  const inward = level < cpl();
  checkTarget(offset, isLongCode(handler), descriptorLimit(descriptor), ext());

  const stackTable = <u32>(gate >> 32) & 7;
  let pointer = gpr(RSP);
  if (stackTable) pointer = stackOfTss64(0x1c + stackTable * 8, ext());
  else if (inward) pointer = innerStack64(level, ext());
  // Frames begin at a multiple of 16 (SDM volume 3, 6.14.2).
  beginFrame64(pointer & ~0xf, level, ext());
  addToFrame(segmentSelector(SS));
  addToFrame(gpr(RSP));
  addReturn();
  writeFrame();
  const accessed = markAccessed(selector, descriptor);
  if (inward) setSegment(SS, level, 0, 0, level << 5);
  loadCode(selector, accessed, level);
  commitFrame();
  enterFlags(type);
  jump(offset);
}
