// SYSCALL, SYSRET, SYSENTER, SYSEXIT (Intel SDM volume 2; AMD APM volume 3 where the vendor is AMD).
import { isIntel } from "./cpuid";
import { cancelTrap, setFlags, trapAfterReturn } from "./debug";
import { raiseGP, raiseUD } from "./fault";
import { CSTAR, EFER, LSTAR, SFMASK, STAR, SYSENTER_CS, SYSENTER_EIP, SYSENTER_ESP } from "./layout";
import { modeChanged } from "./memory";
import {
  canonical, code64, cpl, CS, EFER_SCE, FLAG_IF, FLAG_RF, FLAG_TF, FLAG_VM, FLAGS_FIXED, gpr, jump,
  longMode, nextRip, protectedMode, R11, RCX, RDX, readFlags, RSP, setGpr, setSegment, SS,
} from "./registers";

// Flat segments: present, 4 GiB, accessed.
const CODE_64: u32 = 0xa09b;
const CODE_32: u32 = 0xc09b;
const DATA_32: u32 = 0xc093;
/** Flags that SYSRET takes from R11. */
const RETURN_FLAGS: u64 = 0x3c_7fd7;

function loadFlat(selector: u32, code: u32, level: u32): void {
  setSegment(CS, (selector & 0xfffc) | level, 0, 0xffff_ffff, code | (level << 5));
}

function loadFlatStack(selector: u32, level: u32): void {
  setSegment(SS, (selector & 0xfffc) | level, 0, 0xffff_ffff, DATA_32 | (level << 5));
}

function requireSyscall(): void {
  if (!(load<u64>(EFER) & EFER_SCE)) raiseUD();
}

export function opSyscall(): void {
  requireSyscall();
  if (isIntel() && !code64()) raiseUD();
  if (!protectedMode()) raiseUD();
  const star = load<u64>(STAR);
  const selector = <u32>(star >> 32) & 0xffff;
  if (!longMode()) return syscallLegacy(selector, star & 0xffff_ffff);
  const target = load<u64>(code64() ? LSTAR : CSTAR);
  const flags = readFlags();
  setGpr(RCX, nextRip());
  setGpr(R11, flags & ~FLAG_RF);
  loadFlat(selector, CODE_64, 0);
  loadFlatStack(selector + 8, 0);
  setFlags((flags & ~(load<u64>(SFMASK) | FLAG_RF)) | FLAGS_FIXED);
  if (!(readFlags() & FLAG_TF)) cancelTrap();
  jump(target);
}

/** AMD's, outside of long mode. */
function syscallLegacy(selector: u32, target: u64): void {
  setGpr(RCX, nextRip());
  loadFlat(selector, CODE_32, 0);
  loadFlatStack(selector + 8, 0);
  setFlags(readFlags() & ~(FLAG_IF | FLAG_RF | FLAG_VM));
  jump(target);
}

export function opSysret(size: u32): void {
  requireSyscall();
  if (isIntel() && !code64()) raiseUD();
  if (!protectedMode() || cpl() != 0) raiseGP(0);
  const selector = <u32>(load<u64>(STAR) >> 48);
  const wide = size == 8;
  const target = wide ? gpr(RCX) : gpr(RCX) & 0xffff_ffff;
  // Intel checks here, AMD where the user's instruction is fetched.
  if (wide && isIntel() && !canonical(target)) raiseGP(0);
  const flags = longMode() ? gpr(R11) & RETURN_FLAGS : readFlags() | FLAG_IF;
  loadFlat(wide ? selector + 16 : selector, wide ? CODE_64 : CODE_32, 3);
  loadFlatStack(selector + 8, 3);
  setFlags(flags | FLAGS_FIXED);
  jump(target);
  trapAfterReturn();
}

export function opSysenter(): void {
  if (longMode() && !isIntel()) raiseUD();
  if (!protectedMode()) raiseGP(0);
  const selector = <u32>load<u64>(SYSENTER_CS) & 0xffff;
  if (!(selector & 0xfffc)) raiseGP(0);
  const long = longMode();
  setGpr(RSP, long ? load<u64>(SYSENTER_ESP) : load<u64>(SYSENTER_ESP) & 0xffff_ffff);
  const target = long ? load<u64>(SYSENTER_EIP) : load<u64>(SYSENTER_EIP) & 0xffff_ffff;
  loadFlat(selector, long ? CODE_64 : CODE_32, 0);
  loadFlatStack((selector & 0xfffc) + 8, 0);
  setFlags(readFlags() & ~(FLAG_VM | FLAG_IF | FLAG_RF));
  jump(target);
}

export function opSysexit(size: u32): void {
  if (longMode() && !isIntel()) raiseUD();
  const selector = <u32>load<u64>(SYSENTER_CS) & 0xffff;
  if (!protectedMode() || !(selector & 0xfffc) || cpl() != 0) raiseGP(0);
  const wide = size == 8;
  const target = wide ? gpr(RDX) : gpr(RDX) & 0xffff_ffff;
  const pointer = wide ? gpr(RCX) : gpr(RCX) & 0xffff_ffff;
  if (wide && (!canonical(target) || !canonical(pointer))) raiseGP(0);
  setGpr(RSP, pointer);
  loadFlat((selector & 0xfffc) + (wide ? 32 : 16), wide ? CODE_64 : CODE_32, 3);
  loadFlatStack((selector & 0xfffc) + (wide ? 40 : 24), 3);
  jump(target);
  modeChanged();
}
