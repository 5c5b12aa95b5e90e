// The x87 instructions: the entry for the dispatch loop, and the forms without an operand in memory.
import { raise, VECTOR_NM } from "./fault";
import { CR0 } from "./layout";
import {
  arithmetic,
  compare,
  compareToFlags,
  fsqrt,
  ftst,
  hasCompared,
  fxam,
} from "./x87_arithmetic";
import { loadConstant } from "./x87_constants";
import { x87Memory } from "./x87_memory";
import { begin, canPush, storeIndefinite, underflowTo } from "./x87_operands";
import { fprem, frndint, fscale, fxtract } from "./x87_scale";
import { pushRaw } from "./x87_memory";
import {
  C1,
  checkPending,
  isEmpty,
  pop,
  rotate,
  setConditions,
  setEmpty,
  setInUse,
  st,
  stackFault,
  X87_FCW,
  X87_FDP,
  X87_FIP,
  X87_FOP,
  X87_FSW,
  X87_TAGS,
  FSW_ES,
} from "./x87_state";
import { X87_NO_WAIT } from "./x87_table";
import { transcendental } from "./x87_transcendental";

const CR0_MP: u64 = 1 << 1;
const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;

/** #NM and #MF, before the operand is touched; `form` is x87Form()'s. */
export function checkX87(form: u32): void {
  if ((load<u64>(CR0) & (CR0_EM | CR0_TS)) != 0) raise(VECTOR_NM, 0);
  if ((form & X87_NO_WAIT) == 0) checkPending();
}

/** FWAIT. */
export function fwait(): void {
  const both = CR0_MP | CR0_TS;
  if ((load<u64>(CR0) & both) == both) raise(VECTOR_NM, 0);
  checkPending();
}

/** FNINIT. */
export function fninit(): void {
  store<u16>(X87_FCW, 0x37f);
  store<u16>(X87_FSW, 0);
  store<u8>(X87_TAGS, 0);
  store<u16>(X87_FOP, 0);
  store<u64>(X87_FIP, 0);
  store<u64>(X87_FDP, 0);
}

function fxch(i: u32): void {
  begin();
  if (isEmpty(0) || isEmpty(i)) {
    if (stackFault(false)) return;
    if (isEmpty(0)) storeIndefinite(0);
    if (isEmpty(i)) storeIndefinite(i);
  }
  const significand = load<u64>(st(0));
  const exponent = load<u16>(st(0), 8);
  store<u64>(st(0), load<u64>(st(i)));
  store<u16>(st(0), load<u16>(st(i), 8), 8);
  store<u64>(st(i), significand);
  store<u16>(st(i), exponent, 8);
}

/** FLD ST(i). */
function fldSt(i: u32): void {
  begin();
  if (isEmpty(i)) {
    if (stackFault(false)) return;
    rotate(-1);
    storeIndefinite(0);
  } else if (canPush()) {
    pushRaw(load<u64>(st(i)), load<u16>(st(i), 8));
  }
}

/** FST ST(i), FSTP ST(i). */
function fstSt(i: u32, popping: bool): void {
  begin();
  if (isEmpty(0)) {
    if (!underflowTo(i)) return;
  } else {
    copySt(i, 0);
    setInUse(i);
  }
  if (popping) pop();
}

function copySt(to: u32, from: u32): void {
  store<u64>(st(to), load<u64>(st(from)));
  store<u16>(st(to), load<u16>(st(from), 8), 8);
}

/** FSTP ST(i) as D9 D8+i has it: that ST(0) is empty is no exception. */
function fstpUnchecked(i: u32): void {
  if (isEmpty(0)) {
    setConditions(C1, 0);
    pop();
  } else {
    fstSt(i, true);
  }
}

function ffree(i: u32): void {
  setConditions(C1, 0);
  setEmpty(i);
}

/** FCMOVcc: B, E, BE, U by ModRM.reg, negated by DB. */
function fcmov(i: u32, condition: u32, negated: bool, rflags: u32): void {
  if (isEmpty(0) || isEmpty(i)) {
    underflowTo(0);
    return;
  }
  const mask: u32 = condition == 0 ? 1 : condition == 1 ? 0x40 : condition == 2 ? 0x41 : 4;
  if (((rflags & mask) != 0) != negated) copySt(0, i);
}

/** FCHS, FABS. */
function changeSign(clear: bool): void {
  begin();
  if (isEmpty(0)) {
    underflowTo(0);
    return;
  }
  const word = load<u16>(st(0), 8) as u32;
  store<u16>(st(0), clear ? word & 0x7fff : word ^ 0x8000, 8);
}

/** D9 with ModRM from E0 on. */
function operateOnTop(modrm: u32): void {
  if (modrm >= 0xe8 && modrm <= 0xee) {
    loadConstant(modrm - 0xe8);
    return;
  }
  switch (modrm) {
    case 0xe0:
    case 0xe1:
      changeSign(modrm == 0xe1);
      break;
    case 0xe4:
      ftst();
      break;
    case 0xe5:
      fxam();
      break;
    case 0xf4:
      fxtract();
      break;
    case 0xf5:
    case 0xf8:
      fprem(modrm == 0xf5);
      break;
    case 0xf6:
    case 0xf7:
      setConditions(C1, 0);
      rotate(modrm == 0xf6 ? -1 : 1);
      break;
    case 0xfa:
      fsqrt();
      break;
    case 0xfc:
      frndint();
      break;
    case 0xfd:
      fscale();
      break;
    default:
      transcendental(modrm);
  }
}

/** DB with mod = 3 and reg = 4: FNENI and FNDISI, the 8087's, and FNSETPM, the 80287's, do nothing. */
function control(modrm: u32): void {
  if (modrm == 0xe2) store<u16>(X87_FSW, (load<u16>(X87_FSW) as u32) & 0x7f00);
  else if (modrm == 0xe3) fninit();
}

/** FCOM, FUCOM and their popping forms. */
function compareAndPop(i: u32, quiet: bool, pops: u32): void {
  if (!compare(i, quiet)) return;
  for (let n: u32 = 0; n < pops; n++) pop();
}

/** The forms with a register; the result is RFLAGS' bits or AX for those that give them. */
function x87Register(opcode: u32, modrm: u32, rflags: u32): u32 {
  const reg = (modrm >> 3) & 7;
  const i = modrm & 7;
  switch (opcode) {
    case 0:
    case 4:
    case 6:
      if (opcode == 6 && reg == 3) compareAndPop(1, false, 2);
      else if (reg == 2 || reg == 3) compareAndPop(i, false, opcode == 6 ? 1 : reg - 2);
      else if (arithmetic(reg, i, opcode == 0 ? 0 : i) && opcode == 6) pop();
      return 0;
    case 1:
      if (reg == 0) fldSt(i);
      else if (reg == 1) fxch(i);
      else if (reg == 3) fstpUnchecked(i);
      else if (reg >= 4) operateOnTop(modrm);
      return 0;
    case 2:
      if (reg < 4) fcmov(i, reg, false, rflags);
      else compareAndPop(1, true, 2);
      return 0;
    case 3:
      if (reg < 4) fcmov(i, reg, true, rflags);
      else if (reg == 4) control(modrm);
      else return compareToFlags(i, reg == 5);
      return 0;
    case 5:
      if (reg == 0) ffree(i);
      else if (reg == 1) fxch(i);
      else if (reg < 4) fstSt(i, reg == 3);
      else compareAndPop(i, true, reg - 4);
      return 0;
    default:
      return lastRegisterForms(reg, i);
  }
}

/** DF: FFREEP, FXCH, FSTP, FNSTSW AX, FUCOMIP, FCOMIP. */
function lastRegisterForms(reg: u32, i: u32): u32 {
  if (reg == 0) {
    ffree(i);
    pop();
  } else if (reg == 1) {
    fxch(i);
  } else if (reg < 4) {
    fstSt(i, true);
  } else if (reg == 4) {
    return load<u16>(X87_FSW);
  } else {
    const result = compareToFlags(i, reg == 5);
    if (hasCompared()) pop();
    return result;
  }
  return 0;
}

/** Whether an instruction only controls, and leaves the address of the last one that computed. */
function isControl(opcode: u32, modrm: u32): bool {
  const reg = (modrm >> 3) & 7;
  if (modrm < 0xc0) return (opcode == 1 && reg >= 4) || (opcode == 5 && reg == 7);
  return (opcode == 3 && reg == 4) || (opcode == 7 && reg == 4);
}

/**
 * Executes an instruction.
 *
 * opcode: D8 to DF minus D8; at: the buffer of an operand in memory; ip: RIP of the instruction; dp:
 * offset of its operand. The result is by x87Form().
 */
export function x87(opcode: u32, modrm: u32, at: usize, rflags: u32, ip: u64, dp: u64): u32 {
  if (isControl(opcode, modrm)) {
    return modrm < 0xc0 ? x87Memory(opcode, (modrm >> 3) & 7, at) : x87Register(opcode, modrm, rflags);
  }
  store<u64>(X87_FIP, ip);
  const result = modrm < 0xc0
    ? x87Memory(opcode, (modrm >> 3) & 7, at)
    : x87Register(opcode, modrm, rflags);
  if ((load<u16>(X87_FSW) & FSW_ES) != 0) {
    store<u16>(X87_FOP, (opcode << 8) | modrm);
    if (modrm < 0xc0) store<u64>(X87_FDP, dp);
  }
  return result;
}
