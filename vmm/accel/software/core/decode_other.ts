// Instructions whose operation depends on prefixes and operands in ways that the tables do not tell.
import {
  decodeAs,
  isMemory,
  locked,
  modrm,
  opcode,
  reg,
  repeat,
  setDst,
  setImmediate,
  setSize,
  size,
  sizeByPrefix,
} from "./decode";
import { fetch8 } from "./fetch";
import * as ops from "./ops";
import * as table from "./table";

/** What an operation of the tables is in this instruction. */
export function refine(code: u32): u32 {
  switch (code) {
    case ops.OP_NOP:
      return opcode == 0x90 && repeat == 0xf3 ? ops.OP_PAUSE : code;
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
  const map = opcode & 0xff;
  if (map == 0x38) {
    const last = fetch8();
    if (last == 0xf0 || last == 0xf1) return moveSwapped(last);
  }
  return ops.OP_UD;
}
