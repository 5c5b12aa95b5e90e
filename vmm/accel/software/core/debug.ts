// What happens around single instructions: EFLAGS as a whole, interrupt shadows, single step,
// breakpoints (Intel SDM volume 3, chapter 18).
import { raise, VECTOR_DB } from "./fault";
import { CURRENT_OP } from "./derived";
import {
  CR4, DEBUG_PENDING, DEBUGGER_DR, DEBUGGER_DR6, DEBUGGER_DR7, DR, DR6, DR7, GUEST_DEBUG,
  GUEST_DEBUG_POINTS, GUEST_DEBUG_STEP, INTERRUPT_SHADOW, RIP, STOP_BUDGET, STOP_DEBUG,
} from "./layout";
import { flushTlb, modeChanged } from "./memory";
import {
  code64, CR4_DE, CS, FLAG_RF, FLAG_TF, readFlags, segmentBase, writeFlags,
} from "./registers";

// Why interrupts wait for one instruction; the values are KVM's.
export const SHADOW_SS: u32 = 1;
export const SHADOW_STI: u32 = 2;

// DR6 (SDM volume 3, figure 18-1).
const DR6_BREAKPOINTS: u64 = 0xf;
export const DR6_BD: u64 = 1 << 13;
const DR6_BS: u64 = 1 << 14;
const DR6_BT: u64 = 1 << 15;
export const DR7_GD: u64 = 1 << 13;
/** L0 to L3 and G0 to G3. */
const DR7_ENABLES: u64 = 0xff;
/** The R/W fields of DR7. */
const ON_EXECUTE: u32 = 0;
const ON_WRITE: u32 = 1;
const ON_PORT: u32 = 2;
const ON_ACCESS: u32 = 3;

let trapAfter: bool = false;
let shadowIsNew: bool = false;
/** Whether RF was set before the instruction. */
let resumed: bool = false;

/** Stores EFLAGS as a whole, as POPF, IRET and deliveries do. */
export function setFlags(value: u64): void {
  writeFlags(value);
  modeChanged();
}

/** Holds interrupts back for the next instruction. */
export function beginShadow(reason: u32): void {
  store<u32>(INTERRUPT_SHADOW, reason);
  shadowIsNew = true;
}

/** Whether instructions execute one by one, between `stepBefore` and `stepAfter`. */
export function stepping(): bool {
  return (readFlags() & (FLAG_TF | FLAG_RF)) != 0 || load<u32>(INTERRUPT_SHADOW) != 0 ||
    load<u32>(GUEST_DEBUG) != 0 || load<u64>(DEBUG_PENDING) != 0 ||
    breakpointsEnabled();
}

/** Raises #DB with DR6's reasons. */
export function raiseDebug(reasons: u64): void {
  store<u64>(DEBUG_PENDING, 0);
  store<u64>(DR6, (load<u64>(DR6) & ~DR6_BREAKPOINTS) | reasons);
  raise(VECTOR_DB, 0);
}

/** Whether a debugger has the CPU stop after each instruction. */
export function debuggerSteps(): bool {
  return (load<u32>(GUEST_DEBUG) & GUEST_DEBUG_STEP) != 0;
}

/** Whether the breakpoints are a debugger's; the guest's own then do not count, as on KVM. */
function debuggersPoints(): bool {
  return (load<u32>(GUEST_DEBUG) & GUEST_DEBUG_POINTS) != 0;
}

function dr7(): u64 {
  return load<u64>(debuggersPoints() ? DEBUGGER_DR7 : DR7);
}

function dr(index: u32): u64 {
  return load<u64>((debuggersPoints() ? DEBUGGER_DR : DR) + (<usize>index << 3));
}

/**
 * Before each instruction of a CPU that is `stepping`; rip is that instruction's.
 *
 * @returns what `run` returns, STOP_BUDGET to go on
 */
export function stepBefore(): u32 {
  store<u32>(CURRENT_OP, 0);
  // The instruction after MOV SS is left alone, so that RSP can be loaded (SDM volume 3, 6.8.3).
  if (!(load<u32>(INTERRUPT_SHADOW) & SHADOW_SS)) {
    if (load<u64>(DEBUG_PENDING)) raiseDebug(load<u64>(DEBUG_PENDING));
    const hits = instructionBreakpoints();
    if (hits && debuggersPoints()) {
      noteForDebugger(hits);
      return STOP_DEBUG;
    }
    if (hits) raiseDebug(hits);
  }
  const flags = readFlags();
  trapAfter = (flags & FLAG_TF) != 0;
  shadowIsNew = false;
  resumed = (flags & FLAG_RF) != 0;
  if (resumed) writeFlags(flags & ~FLAG_RF);
  return STOP_BUDGET;
}

/** After it; rip is the next one's. Returns what `run` returns, STOP_BUDGET to go on. */
export function stepAfter(): u32 {
  store<u32>(CURRENT_OP, 0);
  resumed = false;
  if (!shadowIsNew) store<u32>(INTERRUPT_SHADOW, 0);
  // After MOV SS there is no trap, and none later in its stead.
  if (trapAfter && !(load<u32>(INTERRUPT_SHADOW) & SHADOW_SS)) noteDebug(DR6_BS);
  modeChanged();
  const pending = load<u64>(DEBUG_PENDING);
  if (pending && !(load<u32>(INTERRUPT_SHADOW) & SHADOW_SS)) raiseDebug(pending);
  if (debuggerSteps()) noteForDebugger(DR6_BS);
  return load<u64>(DEBUGGER_DR6) ? STOP_DEBUG : STOP_BUDGET;
}

/** A #DB will come as a trap, when the instruction is done. */
export function noteDebug(reasons: u64): void {
  store<u64>(DEBUG_PENDING, load<u64>(DEBUG_PENDING) | reasons);
}

function noteForDebugger(reasons: u64): void {
  store<u64>(DEBUGGER_DR6, load<u64>(DEBUGGER_DR6) | reasons);
}

/** Breakpoints that an access has hit: they tell when the instruction is done. */
function noteHits(hits: u64): void {
  if (debuggersPoints()) noteForDebugger(hits);
  else noteDebug(hits);
}

/** Whether each iteration of a string instruction is a step of its own (SDM volume 3, 18.3.1.4). */
export function tracesIterations(): bool {
  return (readFlags() & FLAG_TF) != 0 || debuggerSteps() || breakpointsEnabled();
}

/** A string instruction is not at its end: RF, which was for all of it, stays. */
export function keepResumeFlag(): void {
  if (resumed) writeFlags(readFlags() | FLAG_RF);
}

/** INT n, SYSCALL and the like: a single step does not end in the handler. */
export function cancelTrap(): void {
  trapAfter = false;
}

/** SYSRET with TF: as if the system call were the instruction that was stepped over. */
export function trapAfterReturn(): void {
  trapAfter = false;
  if (readFlags() & FLAG_TF) noteDebug(DR6_BS);
  modeChanged();
}

/** A TSS with its T bit set. */
export function trapAfterTaskSwitch(): void {
  noteDebug(DR6_BT);
  modeChanged();
}

/** After a change of DR0 to DR3 or DR7: pages with breakpoints lose their quick way. */
export function debugRegistersChanged(): void {
  flushTlb(true);
  modeChanged();
}

export function breakpointsEnabled(): bool {
  return (dr7() & DR7_ENABLES) != 0;
}

function isEnabled(index: u32): bool {
  return (dr7() >> (index * 2) & 3) != 0;
}

function kindOf(index: u32): u32 {
  return <u32>(dr7() >> (16 + index * 4)) & 3;
}

function lengthOf(index: u32): u32 {
  const code = <u32>(dr7() >> (18 + index * 4)) & 3;
  return code == 2 ? 8 : code + 1;
}

/** Where a breakpoint is; low bits that its length covers do not count. */
function addressOf(index: u32): u64 {
  return dr(index) & ~(<u64>lengthOf(index) - 1);
}

function overlaps(index: u32, start: u64, bytes: u32): bool {
  const at = addressOf(index);
  return start < at + lengthOf(index) && at < start + bytes;
}

/** The breakpoints that rip hits. */
function instructionBreakpoints(): u64 {
  if (!breakpointsEnabled() || readFlags() & FLAG_RF) return 0;
  const rip = load<u64>(RIP);
  const address = code64() ? rip : (segmentBase(CS) + rip) & 0xffff_ffff;
  let hits: u64 = 0;
  for (let i: u32 = 0; i < 4; i++) {
    const here = isEnabled(i) && kindOf(i) == ON_EXECUTE;
    if (here && dr(i) == address) hits |= 1 << i;
  }
  return hits;
}

/** Notes the breakpoints that a data access hits. */
export function dataBreakpoint(address: u64, bytes: u32, write: bool): void {
  let hits: u64 = 0;
  for (let i: u32 = 0; i < 4; i++) {
    if (!isEnabled(i)) continue;
    const kind = kindOf(i);
    const wanted = kind == ON_ACCESS || (kind == ON_WRITE && write);
    if (wanted && overlaps(i, address, bytes)) hits |= 1 << i;
  }
  if (hits) noteHits(hits);
}

/** Notes the breakpoints that a port access hits. */
export function portBreakpoint(port: u32, bytes: u32): void {
  if (!(load<u64>(CR4) & CR4_DE) || !breakpointsEnabled()) return;
  let hits: u64 = 0;
  for (let i: u32 = 0; i < 4; i++) {
    if (isEnabled(i) && kindOf(i) == ON_PORT && overlaps(i, port, bytes)) hits |= 1 << i;
  }
  if (hits) noteHits(hits);
}

/** Whether a page has a data breakpoint, so that accesses to it must ask `dataBreakpoint`. */
export function breakpointPage(address: u64): bool {
  if (!breakpointsEnabled()) return false;
  const page = address & ~0xfff;
  for (let i: u32 = 0; i < 4; i++) {
    if (isEnabled(i) && kindOf(i) & 1 && overlaps(i, page, 4096)) return true;
  }
  return false;
}
