// Instructions whose operation depends on prefixes and operands in ways that the tables do not tell.
import { decodeAs } from "./decode";
import {
  isMemory,
  modrm,
  op,
  readModrm,
  reg,
  rm,
  setDst,
  setImmediate,
  setKind,
  setSize,
  size,
  sizeByPrefix,
} from "./decode_operands";
import { locked, opcode, operand66, repeat, rex } from "./decode_prefix";
import { fetch8 } from "./fetch";
import { FXSAVE, GPR } from "./layout";
import * as ops from "./ops";
import { OP_DST, OP_SRC, OPERAND_MEMORY } from "./record";
import { FORM_EMMS } from "./simd_op";
import { FORM_IMMEDIATE, FORM_REG_SHIFT, FORM_RM_SHIFT, simdForm } from "./simd_table";
import * as table from "./table";
import { X87_UNDEFINED, x87Form } from "./x87_table";

/** What an operation of the tables is in this instruction. */
export function refine(code: u32): u32 {
  switch (code) {
    case ops.OP_NOP:
      return opcode == 0x90 && repeat == 0xf3 ? ops.OP_PAUSE : code;
    case ops.OP_X87: {
      const form = x87Form(opcode - 0xd8, modrm);
      setImmediate(((opcode - 0xd8) | (modrm << 8) | (form << 16)) as u64);
      return form & X87_UNDEFINED ? ops.OP_UD : code;
    }
    case ops.OP_POPCNT:
      return repeat == 0xf3 ? code : ops.OP_UD;
    case ops.OP_CMPXCHG8B:
      return isMemory ? code : ops.OP_UD;
    case ops.OP_RDRAND:
      return random();
    case ops.OP_RET:
    case ops.OP_RET_FAR:
      if (opcode & 1) setImmediate(0);
      return code;
    case ops.OP_IN:
    case ops.OP_OUT:
    case ops.OP_IN_IMMEDIATE:
    case ops.OP_OUT_IMMEDIATE:
    case ops.OP_INS:
    case ops.OP_OUTS:
      // Ports have no quadwords.
      if (size == 8) setSize(4);
      return code;
    case ops.OP_CRC32:
      // The destination is a doubleword, whatever the source is.
      setDst(reg, 4);
      return code;
    case ops.OP_MOV_TO_SEGMENT:
      return reg == 1 || reg > 5 ? ops.OP_UD : code;
    case ops.OP_MOV_FROM_SEGMENT:
      return reg > 5 ? ops.OP_UD : code;
  }
  return code;
}

/** 0F C7 /6, /7: RDRAND, RDSEED, with F3 RDPID; all of registers. */
function random(): u32 {
  if (isMemory || locked()) return ops.OP_UD;
  if (repeat == 0xf3) return (modrm & 0x38) == 0x38 ? ops.OP_RDPID : ops.OP_UD;
  sizeByPrefix();
  return ops.OP_RDRAND;
}

/** 0F 38 F0 and F1: MOVBE, CRC32 with F2. */
function moveSwapped(last: u32): u32 {
  if (repeat == 0xf2) return decodeAs(last == 0xf0 ? table.ENTRY_CRC32_8 : table.ENTRY_CRC32);
  return decodeAs(last == 0xf0 ? table.ENTRY_MOVBE_LOAD : table.ENTRY_MOVBE_STORE);
}

/** Opcodes after 0F that are none of the integer instructions. */
export function decodeOther(): u32 {
  sizeByPrefix();
  const first = opcode & 0xff;
  if (first != 0x38 && first != 0x3a) return decodeSimd(0, first);
  const last = fetch8();
  if (first == 0x38) {
    if (last == 0xf0 || last == 0xf1) return moveSwapped(last);
    if (last == 0x82 && operand66) return decodeAs(table.ENTRY_INVPCID);
  }
  return decodeSimd(first == 0x38 ? 1 : 2, last);
}

/** The prefix that chooses among the instructions of an opcode: F2 and F3 before 66 (SDM 2A, 2.1.2). */
function mandatoryPrefix(): u32 {
  if (repeat) return repeat == 0xf3 ? 2 : 3;
  return operand66 ? 1 : 0;
}

/** Where a register of a file is: 1 XMM, 2 MMX, 3 general. */
function fileRegister(file: u32, number: u32): u16 {
  if (file == 1) return (FXSAVE + 160 + (number << 4)) as u16;
  if (file == 2) return (FXSAVE + 32 + ((number & 7) << 4)) as u16;
  return (GPR + (number << 3)) as u16;
}

/** MMX and SSE, by their table. */
function decodeSimd(map: u32, last: u32): u32 {
  // The operands' sizes are the form's; the record has one that is none of another instruction.
  sizeByPrefix();
  if (map == 0 && last == 0x77 && mandatoryPrefix() == 0) {
    setImmediate(FORM_EMMS as u64);
    return locked() ? ops.OP_UD : ops.OP_SIMD;
  }
  readModrm();
  const form = simdForm(mandatoryPrefix(), map, last, modrm, (rex & 8) != 0);
  if (form == 0 || locked()) return ops.OP_UD;
  store<u16>(op, fileRegister((form >> FORM_REG_SHIFT) & 3, reg), OP_DST);
  store<u16>(op, fileRegister((form >> FORM_RM_SHIFT) & 3, rm), OP_SRC);
  if (isMemory) setKind(OPERAND_MEMORY);
  const immediate: u64 = form & FORM_IMMEDIATE ? fetch8() as u64 : 0;
  setImmediate((form as u64) | (immediate << 32));
  return ops.OP_SIMD;
}
