// Task switches (Intel SDM volume 3, chapter 8): by JMP, CALL, IRET and through task gates.
import { raise, VECTOR_GP, VECTOR_NP, VECTOR_TS } from "./fault";
import { CURRENT_OP } from "./derived";
import { CR0, CR3, CR4, DR7 } from "./layout";
import {
  flushTlb, modeChanged, probeReadFor, probeWriteFor, read16System, read32System, write16System,
  write32System,
} from "./memory";
import {
  BUSY, CONFORMING, CR0_PG, CR0_TS, CR4_PAE, CS, dplOf, DS, ES, FLAG_NT, FLAG_VM, FLAGS_FIXED, FS,
  gpr, GS, jump, LDT, LDTR, nextRip, PRESENT, readFlags, segmentAttributes, segmentBase,
  segmentLimit, segmentSelector, setGpr, setSegment, SS, TR, TSS16, TSS32,
} from "./registers";
import {
  checkData, checkStack, descriptorAddress, descriptorAttributes, descriptorLimit, isCode, isNull,
  loadFrom, loadNull, markAccessed, NOWHERE, readDescriptor, writeType,
} from "./segment";
import { addToFrame, beginFrame, checkTarget, commitFrame, writeFrame } from "./stack";
import { debugRegistersChanged, setFlags, trapAfterTaskSwitch } from "./debug";
import { loadPdptrs } from "./control_registers";

// Why tasks are switched.
export const BY_JUMP: u32 = 0;
export const BY_CALL: u32 = 1;
export const BY_IRET: u32 = 2;
export const BY_INTERRUPT: u32 = 3;

// Offsets in a 32-bit TSS (SDM volume 3, figure 8-2), and in a 16-bit one (figure 8-10).
const CR3_32: u32 = 0x1c;
const EIP_32: u32 = 0x20;
const IP_16: u32 = 0x0e;
const TRAP_32: u32 = 0x64;
const SIZE_32: u32 = 0x68;
const SIZE_16: u32 = 0x2c;
/** Flags that a TSS can set. */
const FLAGS: u64 = 0x3f_7fd5;
/** DR7's local enables and LE, which end with a task. */
const LOCAL_ENABLES: u64 = 0x155;

/** The new task's registers, as its TSS has them: EIP, EFLAGS, 8 registers, 6 selectors, LDT. */
const LOADED = memory.data(17 * 8);
const LOADED_FLAGS: u32 = 1;
const LOADED_GPR: u32 = 2;
const LOADED_SEGMENTS: u32 = 10;
const LOADED_LDT: u32 = 16;

function loaded(index: u32): u32 {
  return load<u32>(LOADED + (<usize>index << 3));
}

/**
 * Switches to a TSS.
 *
 * @param rip where the old task goes on
 * @param ext EXT of the errors' codes
 */
export function switchTaskFrom(selector: u32, reason: u32, ext: u32, rip: u64): void {
  const descriptor = checkTss(selector, reason, ext);
  const wide = (descriptorAttributes(descriptor) & 8) != 0;
  const base = baseOf(descriptor);
  readTss(base, wide, reason);
  saveTask(rip, reason);
  moveBusy(selector, descriptor, reason, base);
  const newCr3 = wide && (load<u64>(CR0) & CR0_PG) ? read32System(base + CR3_32) : 0;
  const trap = wide && (read16System(base + TRAP_32) & 1) != 0;

  setSegment(TR, selector & 0xfffc, base, descriptorLimit(descriptor),
    (descriptorAttributes(descriptor) | BUSY));
  store<u64>(CR0, load<u64>(CR0) | CR0_TS);
  store<u64>(DR7, load<u64>(DR7) & ~LOCAL_ENABLES);
  debugRegistersChanged();
  if (wide && (load<u64>(CR0) & CR0_PG)) loadPageTables(newCr3);
  loadTask(reason, wide);
  // The switch is done: what faults from here on does so in the new task.
  store<u32>(CURRENT_OP, 0);
  loadTaskSegments(ext);
  modeChanged();
  if (trap) trapAfterTaskSwitch();
}

/** As JMP, CALL and IRET do: the old task goes on at the next instruction. */
export function switchTask(selector: u32, reason: u32, ext: u32): void {
  switchTaskFrom(selector, reason, ext, nextRip());
}

/** Pushes an exception's error code on the new task's stack. */
export function pushTaskError(code: u32): void {
  beginFrame(segmentAttributes(TR) & 8 ? 4 : 2);
  addToFrame(code);
  writeFrame();
  commitFrame();
}

function baseOf(descriptor: u64): u64 {
  return ((descriptor >> 16) & 0xff_ffff) | ((descriptor >> 32) & 0xff00_0000);
}

function checkTss(selector: u32, reason: u32, ext: u32): u64 {
  const vector = reason == BY_IRET ? VECTOR_TS : VECTOR_GP;
  const error = (selector & 0xfffc) | ext;
  if (selector & 4 || isNull(selector)) raise(vector, error);
  const descriptor = readDescriptor(selector, vector, ext);
  const attributes = descriptorAttributes(descriptor);
  const type = attributes & 0x1f;
  const busy = reason == BY_IRET ? BUSY : 0;
  if (type != (TSS16 | busy) && type != (TSS32 | busy)) raise(vector, error);
  if (!(attributes & PRESENT)) raise(VECTOR_NP, error);
  const least = attributes & 8 ? SIZE_32 - 1 : SIZE_16 - 1;
  if (descriptorLimit(descriptor) < least) raise(VECTOR_TS, error);
  return descriptor;
}

function keep(index: u32, value: u32): void {
  store<u32>(LOADED + (<usize>index << 3), value);
}

/** Reads the new task's registers before anything changes. */
function readTss(base: u64, wide: bool, reason: u32): void {
  const size: u32 = wide ? SIZE_32 : SIZE_16;
  probeReadFor(base, size, false);
  if (reason == BY_CALL || reason == BY_INTERRUPT) probeWriteFor(base, 2, false);
  for (let i: u32 = 0; i < 17; i++) {
    if (wide) {
      keep(i, read32System(base + EIP_32 + i * 4));
    } else if (i < LOADED_SEGMENTS + 4) {
      keep(i, read16System(base + IP_16 + i * 2));
    } else {
      keep(i, i == LOADED_LDT ? read16System(base + IP_16 + 14 * 2) : 0);
    }
  }
}

/** Stores the old task's registers into its TSS. */
function saveTask(rip: u64, reason: u32): void {
  const base = segmentBase(TR);
  const wide = (segmentAttributes(TR) & 8) != 0;
  const flags = readFlags() & (reason == BY_IRET ? ~FLAG_NT : u64.MAX_VALUE);
  const start = wide ? EIP_32 : IP_16;
  probeWriteFor(base + start, wide ? 0x40 : 28, false);
  saveSlot(base, wide, 0, <u32>rip);
  saveSlot(base, wide, LOADED_FLAGS, <u32>flags);
  for (let i: u32 = 0; i < 8; i++) saveSlot(base, wide, LOADED_GPR + i, <u32>gpr(i));
  const segments: u32 = wide ? 6 : 4;
  for (let i: u32 = 0; i < segments; i++) {
    if (wide) write16System(base + EIP_32 + (LOADED_SEGMENTS + i) * 4, segmentSelector(i));
    else saveSlot(base, wide, LOADED_SEGMENTS + i, segmentSelector(i));
  }
}

function saveSlot(base: u64, wide: bool, index: u32, value: u32): void {
  if (wide) write32System(base + EIP_32 + index * 4, value);
  else write16System(base + IP_16 + index * 2, value & 0xffff);
}

/** JMP and IRET leave the old TSS free; CALL and interrupts link the new one to it. */
function moveBusy(selector: u32, descriptor: u64, reason: u32, base: u64): void {
  const old = segmentSelector(TR);
  if (reason == BY_JUMP || reason == BY_IRET) {
    if (descriptorAddress(old, 8) != NOWHERE) {
      const oldDescriptor = readDescriptor(old, VECTOR_TS, 0);
      writeType(old, oldDescriptor, descriptorAttributes(oldDescriptor) & ~BUSY);
    }
  } else {
    write16System(base, old);
    keep(LOADED_FLAGS, loaded(LOADED_FLAGS) | <u32>FLAG_NT);
  }
  if (reason != BY_IRET) writeType(selector, descriptor, descriptorAttributes(descriptor) | BUSY);
}

function loadPageTables(cr3: u64): void {
  if (load<u64>(CR4) & CR4_PAE) loadPdptrs(cr3);
  store<u64>(CR3, cr3);
  flushTlb(false);
}

/** Loads what needs no descriptor; segments have selectors but nothing behind them yet. */
function loadTask(reason: u32, wide: bool): void {
  setFlags((<u64>loaded(LOADED_FLAGS) & FLAGS) | FLAGS_FIXED);
  for (let i: u32 = 0; i < 8; i++) {
    const value = <u64>loaded(LOADED_GPR + i);
    // A 16-bit TSS leaves the upper halves undefined; they become ones on the 80386 and since.
    setGpr(i, wide ? value : value | 0xffff_0000);
  }
  const level = loaded(LOADED_FLAGS) & <u32>FLAG_VM ? 3 : loaded(LOADED_SEGMENTS + CS) & 3;
  for (let seg = ES; seg <= GS; seg++) {
    setSegment(seg, loaded(LOADED_SEGMENTS + seg) & 0xffff, 0, 0, seg == SS ? level << 5 : 0);
  }
  setSegment(LDTR, loaded(LOADED_LDT) & 0xffff, 0, 0, 0);
  jump(loaded(0));
}

function loadTaskSegments(ext: u32): void {
  loadLdt(loaded(LOADED_LDT) & 0xffff, VECTOR_TS, ext);
  if (readFlags() & FLAG_VM) {
    for (let seg = ES; seg <= GS; seg++) {
      const selector = segmentSelector(seg);
      setSegment(seg, selector, <u64>selector << 4, 0xffff, 0xf3);
    }
    return;
  }
  const selector = segmentSelector(CS);
  const level = selector & 3;
  loadFrom(CS, selector, checkTaskCode(selector, ext));
  const stack = segmentSelector(SS);
  if (isNull(stack)) raise(VECTOR_TS, ext);
  loadFrom(SS, stack, checkStack(stack, level, VECTOR_TS, ext));
  loadTaskData(ES, level, ext);
  loadTaskData(DS, level, ext);
  loadTaskData(FS, level, ext);
  loadTaskData(GS, level, ext);
  checkTarget(loaded(0), false, segmentLimit(CS), 0);
}

function loadTaskData(seg: u32, level: u32, ext: u32): void {
  const selector = segmentSelector(seg);
  if (isNull(selector)) loadNull(seg, selector);
  else loadFrom(seg, selector, checkData(selector, level, VECTOR_TS, ext));
}

function checkTaskCode(selector: u32, ext: u32): u64 {
  const error = (selector & 0xfffc) | ext;
  if (isNull(selector)) raise(VECTOR_TS, error);
  const descriptor = readDescriptor(selector, VECTOR_TS, ext);
  const attributes = descriptorAttributes(descriptor);
  const dpl = dplOf(attributes);
  const level = selector & 3;
  if (!isCode(attributes)) raise(VECTOR_TS, error);
  if (attributes & CONFORMING ? dpl > level : dpl != level) raise(VECTOR_TS, error);
  if (!(attributes & PRESENT)) raise(VECTOR_NP, error);
  return markAccessed(selector, descriptor);
}

/** Loads LDTR outside of long mode; what is wrong raises `vector`. */
export function loadLdt(selector: u32, vector: u32, ext: u32): void {
  if (isNull(selector)) return loadNull(LDTR, selector);
  const error = (selector & 0xfffc) | ext;
  if (selector & 4) raise(vector, error);
  const descriptor = readDescriptor(selector, vector, ext);
  const attributes = descriptorAttributes(descriptor);
  if ((attributes & 0x1f) != LDT) raise(vector, error);
  if (!(attributes & PRESENT)) raise(vector == VECTOR_TS ? VECTOR_TS : VECTOR_NP, error);
  loadFrom(LDTR, selector, descriptor);
}
