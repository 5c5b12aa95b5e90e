// From the bytes of one instruction to its record (SDM 2A, chapter 2).
import { MODE } from "./derived";
import { fetch16, fetch32, fetch64, fetch8, fetchLength } from "./fetch";
import { GPR, ZERO } from "./layout";
import { MODE_64, MODE_D, MODE_FLAT_DATA, MODE_FLAT_STACK, MODE_PROTECTED } from "./mode";
import {
  EA_BASE32,
  EA_BASE64,
  EA_CHECKED16,
  EA_CHECKED32,
  EA_FLAT32,
  EA_FLAT64,
  FLAG_66,
  FLAG_LOCK,
  FLAG_REP,
  FLAG_REPNE,
  OP_BASE,
  OP_CODE,
  OP_DISPLACEMENT,
  OP_DST,
  OP_EA,
  OP_FLAGS,
  OP_IMMEDIATE,
  OP_INDEX,
  OP_LENGTH,
  OP_SCALE,
  OP_SEGMENT,
  OP_SRC,
  OPERAND_IMMEDIATE,
  OPERAND_MEMORY,
  OPERAND_MEMORY_SOURCE,
} from "./record";
import * as ops from "./ops";
import * as table from "./table";
import { decodeOther, refine } from "./decode_other";

// What is known of the instruction so far.
export let op: usize = 0;
export let rex: u32 = 0;
export let hasRex: bool = false;
/** The last of F2 and F3, or 0. */
export let repeat: u32 = 0;
export let operand66: bool = false;
let address67: bool = false;
let lock: bool = false;
/** The segment of an overriding prefix, or NONE. */
let overriding: u32 = 0;
const NO_SEGMENT: u32 = 0xff;
export let opcode: u32 = 0;
export let size: u32 = 0;
/** ModRM's parts, register numbers with REX; `memory` if rm is memory. */
export let modrm: u32 = 0;
export let reg: u32 = 0;
export let rm: u32 = 0;
export let isMemory: bool = false;
let ripRelative: bool = false;

// @ts-ignore: decorator
@inline
export function long(): bool {
  return (load<u32>(MODE) & MODE_64) != 0;
}

/** Where a general register is; of the first eight byte registers without REX, 4 to 7 are AH to BH. */
export function register(number: u32, bytes: u32): u16 {
  if (bytes == 1 && !hasRex && number >= 4 && number < 8) {
    return (GPR + ((number - 4) << 3) + 1) as u16;
  }
  return (GPR + (number << 3)) as u16;
}

/** Reads prefixes; returns the first byte that is none. */
function prefixes(): u32 {
  rex = 0;
  hasRex = false;
  repeat = 0;
  operand66 = address67 = lock = false;
  overriding = NO_SEGMENT;
  // More prefixes than an instruction may have bytes are refused for its length.
  for (let i = 0; i < 15; i++) {
    const byte = fetch8();
    if (long() && (byte & 0xf0) == 0x40) {
      rex = byte;
      hasRex = true;
      continue;
    }
    if (!isPrefix(byte)) return byte;
    // REX counts only right before the opcode.
    rex = 0;
    hasRex = false;
  }
  return 0x90;
}

function isPrefix(byte: u32): bool {
  switch (byte) {
    case 0x66:
      operand66 = true;
      return true;
    case 0x67:
      address67 = true;
      return true;
    case 0xf0:
      lock = true;
      return true;
    case 0xf2:
    case 0xf3:
      repeat = byte;
      return true;
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
      if (!long()) overriding = (byte >> 3) & 3;
      return true;
    case 0x64:
    case 0x65:
      overriding = byte - 0x60;
      return true;
  }
  return false;
}

/** The operand size in bytes of a size in the table. */
function operandSize(kind: u32): u32 {
  const narrow = operand66 != ((load<u32>(MODE) & MODE_D) == 0);
  switch (kind) {
    case table.SIZE_B:
      return 1;
    case table.SIZE_W:
      return 2;
    case table.SIZE_Y:
      return rex & 8 ? 8 : 4;
    case table.SIZE_F:
      if (long()) return 8;
      break;
    case table.SIZE_Q:
      if (long()) return operand66 && !(rex & 8) ? 2 : 8;
  }
  return rex & 8 ? 8 : narrow ? 2 : 4;
}

/** Address size in bytes. */
export function addressSize(): u32 {
  if (long()) return address67 ? 4 : 8;
  return address67 != ((load<u32>(MODE) & MODE_D) == 0) ? 2 : 4;
}

/** Whether an overriding has named a segment, FS and GS in 64-bit mode. */
function segmentOr(segment: u32): u32 {
  return overriding == NO_SEGMENT ? segment : overriding;
}

/** Sets the segment of the memory operand and how its address is made. */
export function setSegment(standard: u32): void {
  const segment = segmentOr(standard);
  const bytes = addressSize();
  let kind: u32;
  if (long()) {
    const based = segment >= 4;
    kind = bytes == 8 ? (based ? EA_BASE64 : EA_FLAT64) : based ? EA_BASE32 : EA_FLAT32;
  } else if (bytes == 2) {
    kind = EA_CHECKED16;
  } else {
    const flat = segment == 2 ? MODE_FLAT_STACK : MODE_FLAT_DATA;
    const data = segment == 0 || segment == 2 || segment == 3;
    kind = data && load<u32>(MODE) & flat ? EA_FLAT32 : EA_CHECKED32;
  }
  store<u8>(op, kind as u8, OP_EA);
  store<u8>(op, segment as u8, OP_SEGMENT);
}

function setAddress(base: u16, index: u16, scale: u32, displacement: u64): void {
  store<u16>(op, base, OP_BASE);
  store<u16>(op, index, OP_INDEX);
  store<u8>(op, scale as u8, OP_SCALE);
  store<u64>(op, displacement, OP_DISPLACEMENT);
}

function signed8(): u64 {
  return (fetch8() as i8 as i64) as u64;
}
function signed16(): u64 {
  return (fetch16() as i16 as i64) as u64;
}
function signed32(): u64 {
  return (fetch32() as i32 as i64) as u64;
}

const NONE: u16 = ZERO as u16;

// @ts-ignore: decorator
@inline
function at(number: u32): u16 {
  return (GPR + (number << 3)) as u16;
}

/** 16-bit addresses: BX+SI, BX+DI, BP+SI, BP+DI, SI, DI, BP, BX (SDM 2A, table 2-1). */
function address16(): void {
  const mod = modrm >> 6, low = modrm & 7;
  if (mod == 0 && low == 6) {
    setAddress(NONE, NONE, 0, fetch16() as u64);
    setSegment(3);
    return;
  }
  const base: u32 = low < 2 || low == 7 ? 3 : low < 4 || low == 6 ? 5 : low == 4 ? 6 : 7;
  const index = low < 4 ? at(6 + (low & 1)) : NONE;
  const displacement = mod == 1 ? signed8() : mod == 2 ? signed16() : 0;
  setAddress(at(base), index, 0, displacement);
  setSegment(base == 5 ? 2 : 3);
}

/** 32- and 64-bit addresses, with SIB (SDM 2A, tables 2-2 and 2-3). */
function address32(): void {
  const mod = modrm >> 6;
  let base = (modrm & 7) | ((rex & 1) << 3);
  let index: u16 = NONE, scale: u32 = 0;
  if ((base & 7) == 4) {
    const sib = fetch8();
    const number = ((sib >> 3) & 7) | ((rex & 2) << 2);
    scale = sib >> 6;
    if (number != 4) index = at(number);
    base = (sib & 7) | ((rex & 1) << 3);
    if (mod == 0 && (base & 7) == 5) {
      setAddress(NONE, index, scale, signed32());
      setSegment(3);
      return;
    }
  } else if (mod == 0 && (base & 7) == 5) {
    setAddress(NONE, NONE, 0, signed32());
    setSegment(3);
    ripRelative = long();
    return;
  }
  const displacement = mod == 1 ? signed8() : mod == 2 ? signed32() : 0;
  setAddress(at(base), index, scale, displacement);
  setSegment(base == 4 || base == 5 ? 2 : 3);
}

/** Reads ModRM and what belongs to its address. */
export function readModrm(): void {
  modrm = fetch8();
  reg = ((modrm >> 3) & 7) | ((rex & 4) << 1);
  rm = (modrm & 7) | ((rex & 1) << 3);
  isMemory = modrm < 0xc0;
  if (!isMemory) setSegment(3);
  else if (addressSize() == 2) address16();
  else address32();
}

/** Has a ModRM whose rm is always a register. */
function readRegisters(): void {
  modrm = fetch8() | 0xc0;
  reg = ((modrm >> 3) & 7) | ((rex & 4) << 1);
  rm = (modrm & 7) | ((rex & 1) << 3);
  isMemory = false;
}

export function setKind(bits: u32): void {
  store<u8>(op, load<u8>(op, OP_SEGMENT) | (bits as u8), OP_SEGMENT);
}

export function setDst(number: u32, bytes: u32): void {
  store<u16>(op, register(number, bytes), OP_DST);
}

export function setSrc(number: u32, bytes: u32): void {
  store<u16>(op, register(number, bytes), OP_SRC);
}

export function setImmediate(value: u64): void {
  store<u64>(op, value, OP_IMMEDIATE);
}

/** E is the destination: a register, or memory. */
function destinationE(): void {
  if (isMemory) setKind(OPERAND_MEMORY);
  else setDst(rm, size);
}

/** E is the source. */
function sourceE(bytes: u32): void {
  if (isMemory) setKind(OPERAND_MEMORY | OPERAND_MEMORY_SOURCE);
  else setSrc(rm, bytes);
}

/** An immediate of the operand size, of four bytes at most, sign-extended. */
function immediate(): u64 {
  return size == 1 ? signed8() : size == 2 ? signed16() : signed32();
}

/** How many bytes E has where it is not the operand size: MOVZX and the like. */
function sourceSize(code: u32): u32 {
  if (code == ops.OP_MOVZX8 || code == ops.OP_MOVSX8) return 1;
  if (code == ops.OP_MOVZX16 || code == ops.OP_MOVSX16) return 2;
  return code == ops.OP_MOVSXD ? 4 : size;
}

/** Reads the operands of a form. */
export function operands(form: u32, code: u32, modrmRead: bool): void {
  switch (form) {
    case table.FORM_EG:
      if (!modrmRead) readModrm();
      destinationE();
      setSrc(reg, size);
      return;
    case table.FORM_GE:
    case table.FORM_GM:
      if (!modrmRead) readModrm();
      sourceE(sourceSize(code));
      setDst(reg, size);
      return;
    case table.FORM_MG:
      if (!modrmRead) readModrm();
      destinationE();
      setSrc(reg, size);
      return;
    case table.FORM_EI:
      if (!modrmRead) readModrm();
      destinationE();
      setKind(OPERAND_IMMEDIATE);
      setImmediate(immediate());
      return;
    case table.FORM_EIS:
      if (!modrmRead) readModrm();
      destinationE();
      setKind(OPERAND_IMMEDIATE);
      setImmediate(signed8());
      return;
    case table.FORM_E1:
      if (!modrmRead) readModrm();
      destinationE();
      setKind(OPERAND_IMMEDIATE);
      setImmediate(1);
      return;
    case table.FORM_E:
      if (!modrmRead) readModrm();
      if (!isMemory && isStackOperation(code)) store<u8>(op, 2, OP_SEGMENT);
      destinationE();
      return;
    case table.FORM_EGI:
      if (!modrmRead) readModrm();
      destinationE();
      setSrc(reg, size);
      setImmediate(signed8());
      return;
    case table.FORM_GEI:
    case table.FORM_GEIS:
      if (!modrmRead) readModrm();
      sourceE(size);
      setDst(reg, size);
      setImmediate(form == table.FORM_GEIS ? signed8() : immediate());
      return;
    case table.FORM_R:
      if (!modrmRead) readModrm();
      if (isMemory) setKind(OPERAND_MEMORY);
      else setDst(rm, size);
      setSrc(reg, size);
      setImmediate((reg | (rm << 8) | (modrm << 16)) as u64);
      return;
    default:
      setSegment(3);
      // What uses the stack has its faults there, whatever a prefix says.
      if (isStackOperation(code)) store<u8>(op, 2, OP_SEGMENT);
      implied(form);
  }
}

function isStackOperation(code: u32): bool {
  switch (code) {
    case ops.OP_PUSH:
    case ops.OP_POP:
    case ops.OP_CALL:
    case ops.OP_RET:
    case ops.OP_ENTER:
    case ops.OP_LEAVE:
    case ops.OP_PUSHF:
    case ops.OP_POPF:
      return true;
  }
  return false;
}

/** Forms without ModRM. */
function implied(form: u32): void {
  const number = (opcode & 7) | ((rex & 1) << 3);
  switch (form) {
    case table.FORM_N:
      setImmediate(opcode as u64);
      return;
    case table.FORM_AI:
      setDst(0, size);
      setKind(OPERAND_IMMEDIATE);
      setImmediate(immediate());
      return;
    case table.FORM_OI:
      setDst(number, size);
      setKind(OPERAND_IMMEDIATE);
      setImmediate(size == 8 ? fetch64() : immediate());
      return;
    case table.FORM_O:
      setDst(number, size);
      return;
    case table.FORM_OA:
      setDst(number, size);
      setSrc(0, size);
      return;
    case table.FORM_J:
      setTarget(size == 2 ? signed16() : signed32());
      return;
    case table.FORM_JB:
      setTarget(signed8());
      return;
    case table.FORM_I:
      setKind(OPERAND_IMMEDIATE);
      setImmediate(immediate());
      return;
    case table.FORM_IS:
      setKind(OPERAND_IMMEDIATE);
      setImmediate(signed8());
      return;
    case table.FORM_IB:
      setImmediate(fetch8() as u64);
      return;
    case table.FORM_IW:
      setImmediate(fetch16() as u64);
      return;
    case table.FORM_EW: {
      const bytes = fetch16();
      setImmediate((bytes | (fetch8() << 16)) as u64);
      return;
    }
    case table.FORM_AP: {
      const offset = size == 2 ? fetch16() : fetch32();
      setImmediate((offset as u64) | ((fetch16() as u64) << 32));
      return;
    }
    case table.FORM_AM:
    case table.FORM_MA: {
      const bytes = addressSize();
      const offset = bytes == 8 ? fetch64() : bytes == 4 ? fetch32() as u64 : fetch16() as u64;
      setAddress(NONE, NONE, 0, offset);
      setKind(form == table.FORM_AM ? OPERAND_MEMORY | OPERAND_MEMORY_SOURCE : OPERAND_MEMORY);
      if (form == table.FORM_AM) setDst(0, size);
      else setSrc(0, size);
    }
  }
}

/** The target of a relative branch, which is not masked by the operand size until it is taken. */
function setTarget(relative: u64): void {
  const target = nextRip() + relative;
  setImmediate(size == 2 ? target & 0xffff : size == 4 ? target & 0xffff_ffff : target);
}

let ripOfInstruction: u64 = 0;

function nextRip(): u64 {
  return ripOfInstruction + fetchLength();
}

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
  isMemory = false;
  if (entry & table.ENTRY_GROUP) {
    readModrm();
    modrmRead = true;
    entry = groupEntry(entry);
  }
  let code = entry & 0x1ff;
  const form = (entry >> 9) & 0x1f;
  size = operandSize((entry >> 14) & 7);
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
  if (lock && !lockable(entry)) return ops.OP_UD;
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

/** The operand size by the prefixes, where the table has said another. */
export function sizeByPrefix(): void {
  size = operandSize(table.SIZE_V);
}

export function setSize(bytes: u32): void {
  size = bytes;
}

/**
 * Decodes one instruction.
 *
 * @param record where its record goes
 * @param rip its address, an offset in CS
 * @returns its operation
 */
export function decode(record: usize, rip: u64): u32 {
  op = record;
  ripOfInstruction = rip;
  ripRelative = false;
  store<u16>(op, 0, OP_DST);
  store<u16>(op, 0, OP_SRC);
  store<u64>(op, 0, OP_IMMEDIATE);
  setAddress(NONE, NONE, 0, 0);
  opcode = prefixes();
  if (opcode == 0x0f) {
    opcode = 0x0f00 | fetch8();
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

export function locked(): bool {
  return lock;
}

function finish(code: u32): void {
  let flags = size;
  if (lock) flags |= FLAG_LOCK;
  if (repeat) flags |= repeat == 0xf3 ? FLAG_REP : FLAG_REPNE;
  if (operand66) flags |= FLAG_66;
  store<u8>(op, flags as u8, OP_FLAGS);
  const length = fetchLength();
  store<u8>(op, length as u8, OP_LENGTH);
  if (ripRelative) {
    let address = load<u64>(op, OP_DISPLACEMENT) + nextRip();
    if (addressSize() == 4) address &= 0xffff_ffff;
    store<u64>(op, address, OP_DISPLACEMENT);
  }
  store<u16>(op, (length > 15 ? ops.OP_TOO_LONG : quickly(code)) as u16, OP_CODE);
}

/** The operation of the dispatch loop for a plain one, if there is one for its operands. */
function quickly(code: u32): u32 {
  if (lock) return code;
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
