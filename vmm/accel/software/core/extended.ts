// The groups 0F 01 and 0F AE: descriptor tables, SWAPGS, XGETBV, the state of x87 and SSE, FS and GS
// bases, fences.
import { probeRead } from "./access";
import { opInvlpg, opXgetbv, opXsetbv } from "./control_registers";
import { hasFeature } from "./cpuid";
import { CPL } from "./derived";
import { raiseUD } from "./fault";
import { RFLAGS } from "./layout";
import { addressOf, offsetOf, readDestination, segmentOf, sizeOf, writeDestination } from "./operand";
import { opHypercall, opRdtscp, opReadBase, opSwapgs, opWriteBase } from "./privileged";
import { FLAG_66, FLAG_REP, OP_FLAGS, OP_IMMEDIATE } from "./record";
import { opLgdt, opLidt, opSgdt, opSidt } from "./tables";
import { fxrstor, fxsave, ldmxcsr, stmxcsr, xrstor, xsave } from "./xsave";

const RFLAGS_AC: u64 = 1 << 18;

/** ModRM of an operation of form R. */
// @ts-ignore: decorator
@inline
function modrmOf(op: usize): u32 {
  return load<u8>(op, OP_IMMEDIATE + 2);
}

/** CLAC and STAC. */
function setAccess(set: bool): void {
  // Their feature bit is SMAP's (SDM 2A, CLAC).
  if (load<u32>(CPL) != 0 || !hasFeature(7, 1, 20)) raiseUD();
  const flags = load<u64>(RFLAGS);
  store<u64>(RFLAGS, set ? flags | RFLAGS_AC : flags & ~RFLAGS_AC);
}

function system1Register(modrm: u32): void {
  switch (modrm) {
    case 0xc1:
    case 0xd9:
      return opHypercall();
    case 0xca:
      return setAccess(false);
    case 0xcb:
      return setAccess(true);
    case 0xd0:
      return opXgetbv();
    case 0xd1:
      return opXsetbv();
    case 0xf8:
      return opSwapgs();
    case 0xf9:
      return opRdtscp();
  }
  raiseUD();
}

/** 0F 01 but SMSW and LMSW. */
export function system1(op: usize): void {
  const modrm = modrmOf(op);
  if (modrm >= 0xc0) return system1Register(modrm);
  const segment = segmentOf(op), offset = offsetOf(op);
  switch ((modrm >> 3) & 7) {
    case 0:
      return opSgdt(segment, offset);
    case 1:
      return opSidt(segment, offset);
    case 2:
      return opLgdt(segment, offset, sizeOf(op));
    case 3:
      return opLidt(segment, offset, sizeOf(op));
    case 7:
      // The address is not checked: one that is not canonical does nothing.
      return opInvlpg(addressOf(op, 1, false));
  }
  raiseUD();
}

/** RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: F3 with a register. */
function segmentBase(op: usize, which: u32): void {
  const segment = 4 + (which & 1);
  if (which < 2) writeDestination(op, sizeOf(op), opReadBase(segment));
  else opWriteBase(segment, readDestination(op, sizeOf(op)));
}

/** The memory operand of 0F AE /0 to /6, if it has so many bytes. */
function stateMemory(op: usize, which: u32): void {
  const wide = sizeOf(op) == 8;
  switch (which) {
    case 0:
      return fxsave(addressOf(op, 512, true), wide);
    case 1:
      return fxrstor(addressOf(op, 512, false), wide);
    case 2:
      return ldmxcsr(addressOf(op, 4, false));
    case 3:
      return stmxcsr(addressOf(op, 4, true));
    case 5:
      return xrstor(addressOf(op, 576, false), wide);
    case 4:
    case 6:
      // XSAVEOPT may save everything, as XSAVE does.
      return xsave(addressOf(op, 576, true), wide);
  }
}

/** 0F AE. */
export function state(op: usize): void {
  const modrm = modrmOf(op);
  const which = (modrm >> 3) & 7;
  const flags = load<u8>(op, OP_FLAGS);
  if (modrm >= 0xc0) {
    if (flags & FLAG_REP && which < 4) return segmentBase(op, which);
    // LFENCE, MFENCE, SFENCE: accesses are in order already.
    if (which > 4) return;
    raiseUD();
  }
  // CLFLUSH checks its operand as a read of a byte.
  if (which == 7) return probeRead(addressOf(op, 1, false), 1);
  // 66 makes CLWB of /6.
  if (which == 6 && flags & FLAG_66) raiseUD();
  stateMemory(op, which);
}
