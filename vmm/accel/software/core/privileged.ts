// Instructions that need a privilege, and the flags, ports and counters that they guard.
import { seesKvm } from "./cpuid";
import { beginShadow, portBreakpoint, setFlags, SHADOW_STI } from "./debug";
import { raiseGP, raiseUD } from "./fault";
import {
  ATTENTION, ATTENTION_STATE, CR4, HOST_TSC, KERNEL_GS_BASE, MP_STATE, TSC_AUX, TSC_OFFSET,
} from "./layout";
import { read16System } from "./memory";
import { requirePrivilege } from "./control_registers";
import { mergedFlags } from "./iret";
import {
  canonical, code64, cpl, CR4_FSGSBASE, CR4_TSD, FLAG_AC, FLAG_ID, FLAG_IF, FLAG_IOPL,
  FLAG_NT, FLAG_RF, FLAG_TF, FLAG_VM, FLAGS_USER, gpr, GS, iopl, PRESENT, protectedMode, RAX, RCX,
  RDX, readFlags, segmentAttributes, segmentBase, segmentLimit, setGpr, setSegmentBase, TR, TSS32,
  virtual8086,
} from "./registers";

@external("env", "readTsc")
declare function readTsc(): void;

/** KVM_MP_STATE_HALTED */
const HALTED: u32 = 3;
/** Where a 32-bit or 64-bit TSS has the offset of its I/O bitmap, and the least limit it has. */
const BITMAP: u32 = 0x66;
const TSS_LIMIT: u32 = 0x67;

/** Whether interrupts may be masked: CLI and STI, and PUSHF and POPF in virtual-8086 mode. */
function requireIopl(): void {
  if (protectedMode() && cpl() > iopl()) raiseGP(0);
}

export function opCli(): void {
  requireIopl();
  setFlags(readFlags() & ~FLAG_IF);
}

/** STI; interrupts come after the next instruction. Ends a block. */
export function opSti(): void {
  requireIopl();
  const flags = readFlags();
  if (!(flags & FLAG_IF)) beginShadow(SHADOW_STI);
  setFlags(flags | FLAG_IF);
}

/** What PUSHF pushes. */
export function opPushf(): u64 {
  if (virtual8086() && iopl() < 3) raiseGP(0);
  return readFlags() & ~(FLAG_VM | FLAG_RF);
}

/** To be called before POPF reads its stack. */
export function checkPopf(): void {
  if (virtual8086() && iopl() < 3) raiseGP(0);
}

/** Takes what POPF popped; ends a block. */
export function opPopf(value: u64, size: u32): void {
  let taken = FLAGS_USER | FLAG_TF | FLAG_NT;
  const level = cpl();
  if (size != 2) taken |= FLAG_AC | FLAG_ID;
  if (level == 0) taken |= FLAG_IOPL;
  if (level <= iopl()) taken |= FLAG_IF;
  setFlags(mergedFlags(value, taken) & ~FLAG_RF);
}

/** HLT: `run` ends after it, until an interrupt comes. */
export function opHlt(): void {
  requirePrivilege();
  store<u32>(MP_STATE, HALTED);
  atomic.or<u32>(ATTENTION, ATTENTION_STATE);
}

/** Whether ports may be accessed: IOPL, or the TSS's bitmap (SDM volume 1, 19.5.2). */
export function ioCheck(port: u32, size: u32): void {
  if (protectedMode() && (cpl() > iopl() || virtual8086())) checkBitmap(port, size);
  portBreakpoint(port, size);
}

function checkBitmap(port: u32, size: u32): void {
  const limit = segmentLimit(TR);
  const usable = (segmentAttributes(TR) & (PRESENT | TSS32)) == (PRESENT | TSS32);
  if (!usable || limit < TSS_LIMIT) raiseGP(0);
  const base = segmentBase(TR);
  const at = read16System(base + BITMAP) + (port >> 3);
  // Two bytes are read always, so the bitmap ends in a byte of ones.
  if (at + 1 > limit) raiseGP(0);
  const bits = read16System(base + at) >> (port & 7);
  if (bits & ((1 << size) - 1)) raiseGP(0);
}

/** The guest's TSC. */
export function guestTsc(): u64 {
  readTsc();
  return load<u64>(HOST_TSC) + load<u64>(TSC_OFFSET);
}

export function opRdtsc(): void {
  if (load<u64>(CR4) & CR4_TSD && cpl() != 0) raiseGP(0);
  const tsc = guestTsc();
  setGpr(RAX, tsc & 0xffff_ffff);
  setGpr(RDX, tsc >> 32);
}

export function opRdtscp(): void {
  opRdtsc();
  setGpr(RCX, load<u64>(TSC_AUX) & 0xffff_ffff);
}

export function opRdpid(): u64 {
  return load<u64>(TSC_AUX) & 0xffff_ffff;
}

/** There are no performance counters. */
export function opRdpmc(): void {
  raiseGP(0);
}

export function opSwapgs(): void {
  if (!code64()) raiseUD();
  requirePrivilege();
  const base = segmentBase(GS);
  setSegmentBase(GS, load<u64>(KERNEL_GS_BASE));
  store<u64>(KERNEL_GS_BASE, base);
}

/** RDFSBASE and RDGSBASE. */
export function opReadBase(seg: u32): u64 {
  if (!code64() || !(load<u64>(CR4) & CR4_FSGSBASE)) raiseUD();
  return segmentBase(seg);
}

/** WRFSBASE and WRGSBASE; with 32-bit operands the value has 32 bits. */
export function opWriteBase(seg: u32, value: u64): void {
  if (!code64() || !(load<u64>(CR4) & CR4_FSGSBASE)) raiseUD();
  if (!canonical(value)) raiseGP(0);
  setSegmentBase(seg, value);
}

// VMCALL and VMMCALL of a guest that sees KVM (Documentation/virt/kvm/x86/hypercalls.rst).
/** KVM_HC_VAPIC_POLL_IRQ: leaves the guest and enters it again. */
const POLL_IRQ: u64 = 1;
const ENOSYS: i64 = -1000;
const EPERM: i64 = -1;

export function opHypercall(): void {
  if (!seesKvm()) raiseUD();
  const known = gpr(RAX) == POLL_IRQ;
  const result = <u64>(cpl() != 0 ? EPERM : known ? 0 : ENOSYS);
  setGpr(RAX, code64() ? result : result & 0xffff_ffff);
}
