// From the bytes of one instruction to its record (SDM 2A, chapter 2).
import {
  beginModrm,
  beginOperands,
  finishAddress,
  isMemory,
  modrm,
  op,
  operands,
  readModrm,
  readRegisters,
  setImmediate,
  setSegment,
  setSize,
  size,
} from "./decode_operands";
import { decodeOther, refine } from "./decode_other";
import {
  locked,
  long,
  opcode,
  operand66,
  operandSize,
  readOpcode,
  repeat,
  rex,
} from "./decode_prefix";
import { MODE } from "./derived";
import { fetchLength } from "./fetch";
import { MODE_PROTECTED } from "./mode";
import * as ops from "./ops";
import {
  FLAG_66,
  FLAG_LOCK,
  FLAG_REP,
  FLAG_REPNE,
  OP_CODE,
  OP_FLAGS,
  OP_LENGTH,
  OP_SEGMENT,
  OPERAND_IMMEDIATE,
  OPERAND_MEMORY,
  OPERAND_MEMORY_SOURCE,
} from "./record";
import * as table from "./table";

/** Whether an instruction may be locked as it is: its destination is memory. */
function lockable(entry: u32): bool {
  return (entry & table.ENTRY_L) != 0 && isMemory;
}

/** Real or virtual-8086 mode lack some instructions. */
function present(entry: u32): bool {
  if (entry & table.ENTRY_X && long()) return false;
  if (entry & table.ENTRY_P && !(load<u32>(MODE) & MODE_PROTECTED)) return false;
  return true;
}

/** A group's entry, with the form and size of its opcode where it has none. */
function groupEntry(entry: u32): u32 {
  const index = ((entry & 0x1ff) << 3) | ((modrm >> 3) & 7);
  let member = load<u32>(table.GROUPS + (index << 2));
  if (member & table.ENTRY_INHERIT_FORM) member |= entry & (0x1f << 9);
  if (member & table.ENTRY_INHERIT_SIZE) member |= entry & (7 << 14);
  return member | (entry & (table.ENTRY_X | table.ENTRY_P | table.ENTRY_L));
}

/** Decodes what the table of an opcode says; returns the operation. */
function decodeEntry(first: u32): u32 {
  let entry = first, modrmRead = false;
  beginModrm();
  if (entry & table.ENTRY_GROUP) {
    readModrm();
    modrmRead = true;
    entry = groupEntry(entry);
  }
  let code = entry & 0x1ff;
  const form = (entry >> 9) & 0x1f;
  setSize(operandSize((entry >> 14) & 7));
  if (code == ops.OP_MOV_FROM_CONTROL || code == ops.OP_MOV_TO_CONTROL || code == ops.OP_MOV_FROM_DEBUG || code == ops.OP_MOV_TO_DEBUG) {
    readRegisters();
    setSegment(3);
    modrmRead = true;
  }
  operands(form, code, modrmRead);
  if (!present(entry)) return ops.OP_UD;
  if (!isMemory && (form == table.FORM_GM || form == table.FORM_MG || entry & table.ENTRY_M)) {
    return ops.OP_UD;
  }
  if (locked() && !lockable(entry)) return ops.OP_UD;
  const extra = (entry >> 24) & 0x1f;
  if (code == ops.OP_LOAD_FAR) setImmediate(extra as u64);
  else code += extra;
  return code;
}

function oneByteEntry(): u32 {
  if (opcode == 0x63 && !long()) return table.ENTRY_ARPL;
  // 90 is NOP only for RAX.
  const row = opcode == 0x90 && rex & 1 ? 0x91 : opcode;
  return load<u32>(table.ONE_BYTE + (row << 2));
}

/**
 * Decodes one instruction.
 *
 * @param record where its record goes
 * @param rip its address, an offset in CS
 * @returns its operation
 */
export function decode(record: usize, rip: u64): u32 {
  beginOperands(record, rip);
  readOpcode();
  if (opcode >= 0x0f00) {
    const entry = load<u32>(table.TWO_BYTE + ((opcode & 0xff) << 2));
    finish(entry ? refine(decodeEntry(entry)) : decodeOther());
  } else {
    finish(refine(decodeEntry(oneByteEntry())));
  }
  return load<u16>(op, OP_CODE);
}

/** Decodes an entry of the tables by its value. */
export function decodeAs(entry: u32): u32 {
  return refine(decodeEntry(entry));
}

function finish(code: u32): void {
  let flags = size;
  if (locked()) flags |= FLAG_LOCK;
  if (repeat) flags |= repeat == 0xf3 ? FLAG_REP : FLAG_REPNE;
  if (operand66) flags |= FLAG_66;
  store<u8>(op, flags as u8, OP_FLAGS);
  const length = fetchLength();
  store<u8>(op, length as u8, OP_LENGTH);
  finishAddress();
  store<u16>(op, (length > 15 ? ops.OP_TOO_LONG : quickly(code)) as u16, OP_CODE);
}

/** The operation of the dispatch loop for a plain one, if there is one for its operands. */
function quickly(code: u32): u32 {
  if (locked()) return code;
  const kind = load<u8>(op, OP_SEGMENT) as u32;
  let operandClass: u32;
  switch (kind & (OPERAND_MEMORY | OPERAND_MEMORY_SOURCE | OPERAND_IMMEDIATE)) {
    case 0:
      operandClass = 0;
      break;
    case OPERAND_IMMEDIATE:
      operandClass = 1;
      break;
    case OPERAND_MEMORY | OPERAND_MEMORY_SOURCE:
      operandClass = 2;
      break;
    case OPERAND_MEMORY:
      operandClass = 3;
      break;
    case OPERAND_MEMORY | OPERAND_IMMEDIATE:
      operandClass = 4;
      break;
    default:
      return code;
  }
  const index = (code << 5) | (operandClass << 2) | (31 - clz(size));
  const quick = load<u16>(table.QUICK + (index << 1)) as u32;
  return quick ? quick : code;
}
