// Operands of MMX and SSE instructions: what simd() takes as pointers.
import { BOUNCE, TLB } from "./derived";
import { raiseGP } from "./fault";
import { setArithmetic } from "./flags";
import { probeWrite, read16, read32, read64, read8, write16, write32, write64, write8 } from "./memory";
import { addressBytes, addressOf, linearAt, readRegister } from "./operand";
import { OP_DST, OP_IMMEDIATE, OP_SEGMENT, OP_SRC, OPERAND_MEMORY } from "./record";
import { checkSimd, emms, maskMove, simd } from "./simd";
import {
  FORM_ALIGNED,
  FORM_FLAGS,
  FORM_RM_IS_DESTINATION,
  FORM_SIZE_SHIFT,
  FORM_SPECIAL,
} from "./simd_table";
import { GPR } from "./layout";
import { TLB_ADDEND, TLB_READ, tlbEntryOf } from "./tlb";

const RDI: usize = GPR + 56;

/** The form word of EMMS, which has no operands and no form. */
export const FORM_EMMS: u32 = 0xffff_ffff;

/** Where an operand's bytes are: in RAM if the TLB has them in one page, otherwise in the buffer. */
function loadOperand(linear: u64, size: u32): usize {
  const entry = tlbEntryOf(load<u32>(TLB) as usize, linear);
  if (load<u64>(entry, TLB_READ) == ((linear + 15) & ~0xfff)) {
    return ((linear as u32) + load<u32>(entry, TLB_ADDEND)) as usize;
  }
  switch (size) {
    case 1:
      store<u8>(BOUNCE, read8(linear) as u8);
      break;
    case 2:
      store<u16>(BOUNCE, read16(linear) as u16);
      break;
    case 4:
      store<u32>(BOUNCE, read32(linear));
      break;
    case 8:
      store<u64>(BOUNCE, read64(linear));
      break;
    default:
      store<u64>(BOUNCE, read64(linear));
      store<u64>(BOUNCE, read64(linear + 8), 8);
  }
  return BOUNCE;
}

/** Writes what is in the buffer; the operand was probed. */
function storeOperand(linear: u64, size: u32): void {
  switch (size) {
    case 1:
      return write8(linear, load<u8>(BOUNCE));
    case 2:
      return write16(linear, load<u16>(BOUNCE));
    case 4:
      return write32(linear, load<u32>(BOUNCE));
  }
  write64(linear, load<u64>(BOUNCE));
  if (size == 16) write64(linear + 8, load<u64>(BOUNCE, 8));
}

/** An instruction of MMX or SSE: its form and immediate are in the record. */
export function simdOperation(op: usize): void {
  const form = load<u32>(op, OP_IMMEDIATE);
  if (form == FORM_EMMS) return emms();
  checkSimd(form);
  const reg = load<u16>(op, OP_DST) as usize, imm = load<u32>(op, OP_IMMEDIATE + 4);
  let rm = load<u16>(op, OP_SRC) as usize;
  const toRm = (form & FORM_RM_IS_DESTINATION) != 0;
  if (form & FORM_SPECIAL) {
    const offset = readRegister(RDI, addressBytes(op));
    return maskMove(form, linearAt(op, offset, 1, true), reg, rm);
  }
  if (!(load<u8>(op, OP_SEGMENT) & OPERAND_MEMORY)) {
    finish(form, toRm ? simd(form, rm, reg, imm) : simd(form, reg, rm, imm));
    return;
  }
  const size = (1 as u32) << (((form >> FORM_SIZE_SHIFT) & 7) - 1);
  const linear = addressOf(op, size, toRm);
  if (form & FORM_ALIGNED && linear & 15) raiseGP(0);
  if (toRm) {
    probeWrite(linear, size);
    simd(form, BOUNCE, reg, imm);
    storeOperand(linear, size);
    return;
  }
  rm = loadOperand(linear, size);
  finish(form, simd(form, reg, rm, imm));
}

/** COMISS, PTEST, PCMPESTRI and the like set all arithmetic flags. */
function finish(form: u32, result: u32): void {
  if (form & FORM_FLAGS) setArithmetic(result);
}
