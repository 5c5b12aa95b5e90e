// RDMSR and WRMSR (Intel SDM volume 4; AMD APM volume 2, appendix A). What is not here is #GP.
import { RESERVED_ADDRESS } from "./derived";
import { hasFeature } from "./cpuid";
import { requirePrivilege, setEfer } from "./control_registers";
import { raiseGP } from "./fault";
import {
  CSTAR, DE_CFG, DEBUGCTL, EFER, HWCR, KERNEL_GS_BASE, LSTAR, MCE_BANKS, MCG_CAP, MCG_CTL, MCG_STATUS,
  MISC_ENABLE, MISC_FEATURES, MSR_VALUE, MTRR_DEF_TYPE, MTRR_FIXED, MTRR_VARIABLE, PAT, PLATFORM_INFO,
  SFMASK, STAR, SYSENTER_CS, SYSENTER_EIP, SYSENTER_ESP, TSC_ADJUST, TSC_AUX, TSC_OFFSET, UCODE_REV,
} from "./layout";
import { guestTsc } from "./privileged";
import {
  canonical, FS, gpr, GS, RAX, RCX, RDX, segmentBase, setGpr, setSegmentBase,
} from "./registers";

@external("env", "msrRead")
declare function chipRead(index: u32): u32;
@external("env", "msrWrite")
declare function chipWrite(index: u32): u32;

/** Eight pairs of variable MTRRs, and fixed ones, and write combining. */
const MTRR_CAP: u64 = 0x508;
/** MCG_CAP: MCG_CTL is there. */
const MCG_CTL_P: u64 = 1 << 8;
/** DEBUGCTL: last branch records and single step on branches, which are dropped as by KVM. */
const DEBUGCTL_IGNORED: u64 = 3;
const CPUID_FAULTING: u64 = 1;
const PLATFORM_CPUID_FAULT: u64 = 1 << 31;
/** HWCR: what is ignored (FFDIS, MC5 and others), and what is kept (McStatusWrEn, TscFreqSel). */
const HWCR_IGNORED: u64 = 0x148;
const HWCR_KEPT: u64 = (1 << 18) | (1 << 24);
/** DE_CFG: LFENCE serializes. */
const DE_CFG_LFENCE: u64 = 2;

/** Whether an MSR is the chips': local APIC, its timer, kvmclock and its like. */
function isChips(index: u32): bool {
  return index == 0x1b || index == 0x6e0 || (index & 0xffff_ff00) == 0x800 || index == 0x11 ||
    index == 0x12 || (index & 0xffff_ff00) == 0x4b56_4d00;
}

/** Where a register is whose value is kept as it was written, else 0. */
function plain(index: u32): usize {
  switch (index) {
    case 0x8b: return UCODE_REV;
    case 0xce: return PLATFORM_INFO;
    case 0x140: return MISC_FEATURES;
    case 0x174: return SYSENTER_CS;
    case 0x175: return SYSENTER_ESP;
    case 0x176: return SYSENTER_EIP;
    case 0x179: return MCG_CAP;
    case 0x17a: return MCG_STATUS;
    case 0x1a0: return MISC_ENABLE;
    case 0x1d9: return DEBUGCTL;
    case 0x277: return PAT;
    case 0x2ff: return MTRR_DEF_TYPE;
    case 0x3b: return TSC_ADJUST;
    case 0xc000_0081: return STAR;
    case 0xc000_0082: return LSTAR;
    case 0xc000_0083: return CSTAR;
    case 0xc000_0084: return SFMASK;
    case 0xc000_0102: return KERNEL_GS_BASE;
    case 0xc001_0015: return HWCR;
    case 0xc001_1029: return DE_CFG;
  }
  return 0;
}

/** Where a fixed MTRR is, else 0. */
function fixedMtrr(index: u32): usize {
  if (index == 0x250) return MTRR_FIXED;
  if (index == 0x258 || index == 0x259) return MTRR_FIXED + <usize>(index - 0x257) * 8;
  if (index >= 0x268 && index <= 0x26f) return MTRR_FIXED + <usize>(index - 0x265) * 8;
  return 0;
}

/** Where a variable MTRR is, else 0. */
function variableMtrr(index: u32): usize {
  return index >= 0x200 && index <= 0x20f ? MTRR_VARIABLE + <usize>(index - 0x200) * 8 : 0;
}

/** Where a machine check bank's register is, else 0. */
function machineCheck(index: u32): usize {
  const count = (<u32>load<u64>(MCG_CAP) & 0xff) * 4;
  return index >= 0x400 && index < 0x400 + min<u32>(count, 128)
    ? MCE_BANKS + <usize>(index - 0x400) * 8
    : 0;
}

/** AMD's and older processors' registers that are 0 for every guest of KVM's, and written in vain. */
function isZero(index: u32): bool {
  switch (index) {
    case 0x17: // IA32_PLATFORM_ID
    case 0x2a: // EBL_CR_POWERON
    case 0x34: // SMI_COUNT
    case 0x186: // P6's performance counters
    case 0x187:
    case 0xc1:
    case 0xc2:
    case 0x1db: // last branch and last exception records
    case 0x1dc:
    case 0x1dd:
    case 0x1de:
    case 0xc001_0000: // K7's performance counters
    case 0xc001_0001:
    case 0xc001_0002:
    case 0xc001_0003:
    case 0xc001_0004:
    case 0xc001_0005:
    case 0xc001_0006:
    case 0xc001_0007:
    case 0xc001_0010: // SYSCFG
    case 0xc001_001f: // NB_CFG
    case 0xc001_0020: // PATCH_LOADER
    case 0xc001_0055: // INT_PENDING
    case 0xc001_0058: // MMIO_CONF_BASE
    case 0xc001_0112: // SMM_ADDR
    case 0xc001_0113: // SMM_MASK
    case 0xc001_0117: // VM_HSAVE_PA
    case 0xc001_1022: // DC_CFG
    case 0xc001_102a: // BU_CFG2
    case 0xc001_102c: // EX_CFG
      return true;
  }
  return false;
}

function read(index: u32): u64 {
  const at = plain(index);
  if (at) return load<u64>(at);
  if (isChips(index)) {
    if (!chipRead(index)) raiseGP(0);
    return load<u64>(MSR_VALUE);
  }
  switch (index) {
    case 0x10: return guestTsc();
    case 0xfe: return MTRR_CAP;
    case 0x17b:
      if (!(load<u64>(MCG_CAP) & MCG_CTL_P)) raiseGP(0);
      return load<u64>(MCG_CTL);
    case 0xc000_0080: return load<u64>(EFER);
    case 0xc000_0100: return segmentBase(FS);
    case 0xc000_0101: return segmentBase(GS);
    case 0xc000_0103:
      requireTscAux();
      return load<u64>(TSC_AUX);
  }
  const ranged = rangedAt(index);
  if (ranged) return load<u64>(ranged);
  if (!isZero(index)) raiseGP(0);
  return 0;
}

function rangedAt(index: u32): usize {
  const fixed = fixedMtrr(index);
  if (fixed) return fixed;
  const variable = variableMtrr(index);
  return variable ? variable : machineCheck(index);
}

/** TSC_AUX comes with RDTSCP or RDPID. */
function requireTscAux(): void {
  if (!hasFeature(0x8000_0001, 3, 27) && !hasFeature(7, 2, 22)) raiseGP(0);
}

function requireCanonical(value: u64): void {
  if (!canonical(value)) raiseGP(0);
}

function requireBits(value: u64, bits: u64): void {
  if (value & ~bits) raiseGP(0);
}

/** The types of memory: UC, WC, WT, WP, WB, and for PAT also UC-. */
function isMemoryType(type: u32, forPat: bool): bool {
  return type == 0 || type == 1 || (type >= 4 && type <= 6) || (forPat && type == 7);
}

function requireTypes(value: u64, forPat: bool): void {
  for (let i: u64 = 0; i < 64; i += 8) {
    if (!isMemoryType(<u32>(value >> i) & 0xff, forPat)) raiseGP(0);
  }
}

/** Checks a value for a register that keeps it, and gives what is kept. */
function checked(index: u32, value: u64): u64 {
  switch (index) {
    case 0x8b: return load<u64>(UCODE_REV);
    case 0xce:
    case 0x179:
      raiseGP(0);
      break;
    case 0x140:
      requireBits(value, load<u64>(PLATFORM_INFO) & PLATFORM_CPUID_FAULT ? CPUID_FAULTING : 0);
      break;
    case 0x175:
    case 0x176:
    case 0xc000_0082:
    case 0xc000_0083:
    case 0xc000_0102:
      requireCanonical(value);
      break;
    case 0x1d9:
      requireBits(value, DEBUGCTL_IGNORED);
      return 0;
    case 0x277:
      requireTypes(value, true);
      break;
    case 0x2ff:
      requireBits(value, 0xcff);
      if (!isMemoryType(<u32>value & 0xff, false)) raiseGP(0);
      break;
    case 0x3b:
      store<u64>(TSC_OFFSET, load<u64>(TSC_OFFSET) + value - load<u64>(TSC_ADJUST));
      break;
    case 0xc001_0015:
      value &= ~HWCR_IGNORED;
      requireBits(value, HWCR_KEPT);
      break;
    case 0xc001_1029:
      requireBits(value, DE_CFG_LFENCE);
      break;
  }
  return value;
}

/** Writes the TSC: what it moves by is in TSC_ADJUST too (SDM volume 3, 18.17.3). */
function writeTsc(value: u64): void {
  const moved = value - guestTsc();
  store<u64>(TSC_OFFSET, load<u64>(TSC_OFFSET) + moved);
  store<u64>(TSC_ADJUST, load<u64>(TSC_ADJUST) + moved);
}

function writeVariableMtrr(at: usize, index: u32, value: u64): void {
  const address = load<u64>(RESERVED_ADDRESS) | 0xfff0_0000_0000_0000;
  if (value & address) raiseGP(0);
  if (index & 1) requireBits(value, ~(<u64>0x7ff));
  else if (value & 0xf00 || !isMemoryType(<u32>value & 0xff, false)) raiseGP(0);
  store<u64>(at, value);
}

/** A bank's CTL is all or nothing, but for a bit that old kernels clear; the rest can be cleared. */
function writeMachineCheck(at: usize, index: u32, value: u64): void {
  const isCtl = (index & 3) == 0;
  if (isCtl && value && (value | (1 << 10) | 1) != u64.MAX_VALUE) raiseGP(0);
  const mayWrite = (load<u64>(HWCR) & (1 << 18)) != 0;
  if ((index & 3) == 1 && value && !mayWrite) raiseGP(0);
  store<u64>(at, value);
}

function write(index: u32, value: u64): void {
  const at = plain(index);
  if (at) return store<u64>(at, checked(index, value));
  if (isChips(index)) {
    store<u64>(MSR_VALUE, value);
    if (!chipWrite(index)) raiseGP(0);
    return;
  }
  switch (index) {
    case 0x10: return writeTsc(value);
    case 0x17b:
      if (!(load<u64>(MCG_CAP) & MCG_CTL_P)) raiseGP(0);
      return store<u64>(MCG_CTL, value);
    case 0xc000_0080: return setEfer(value);
    case 0xc000_0100:
      requireCanonical(value);
      return setSegmentBase(FS, value);
    case 0xc000_0101:
      requireCanonical(value);
      return setSegmentBase(GS, value);
    case 0xc000_0103:
      requireTscAux();
      requireBits(value, 0xffff_ffff);
      return store<u64>(TSC_AUX, value);
  }
  writeRanged(index, value);
}

function writeRanged(index: u32, value: u64): void {
  const fixed = fixedMtrr(index);
  if (fixed) {
    requireTypes(value, false);
    return store<u64>(fixed, value);
  }
  const variable = variableMtrr(index);
  if (variable) return writeVariableMtrr(variable, index, value);
  const bank = machineCheck(index);
  if (bank) return writeMachineCheck(bank, index, value);
  if (!isZero(index)) raiseGP(0);
}

export function opRdmsr(): void {
  requirePrivilege();
  const value = read(<u32>gpr(RCX));
  setGpr(RAX, value & 0xffff_ffff);
  setGpr(RDX, value >> 32);
}

/** WRMSR; ends a block. */
export function opWrmsr(): void {
  requirePrivilege();
  write(<u32>gpr(RCX), (gpr(RAX) & 0xffff_ffff) | (gpr(RDX) << 32));
}
