// The operands of one instruction: ModRM, immediates, and what their record says of them (SDM 2A, 2.1).
import {
  addressSize,
  long,
  opcode,
  operandSize,
  register,
  rex,
  segmentOr,
} from "./decode_prefix";
import { MODE } from "./derived";
import { fetch16, fetch32, fetch64, fetch8, fetchLength } from "./fetch";
import { GPR, ZERO } from "./layout";
import { MODE_FLAT_DATA, MODE_FLAT_STACK } from "./mode";
import * as ops from "./ops";
import {
  EA_BASE32,
  EA_BASE64,
  EA_CHECKED16,
  EA_CHECKED32,
  EA_FLAT32,
  EA_FLAT64,
  OP_BASE,
  OP_DISPLACEMENT,
  OP_DST,
  OP_EA,
  OP_IMMEDIATE,
  OP_INDEX,
  OP_SCALE,
  OP_SEGMENT,
  OP_SRC,
  OPERAND_IMMEDIATE,
  OPERAND_MEMORY,
  OPERAND_MEMORY_SOURCE,
} from "./record";
import * as table from "./table";

/** Where its record goes. */
export let op: usize = 0;
/** The operand size in bytes. */
export let size: u32 = 0;
/** ModRM's parts, register numbers with REX. */
export let modrm: u32 = 0;
export let reg: u32 = 0;
export let rm: u32 = 0;
/** Whether rm is memory. */
export let isMemory: bool = false;
let ripRelative: bool = false;
let ripOfInstruction: u64 = 0;

const NONE: u16 = ZERO as u16;

/**
 * Begins an instruction.
 *
 * @param record where its record goes
 * @param rip its address, an offset in CS
 */
export function beginOperands(record: usize, rip: u64): void {
  op = record;
  ripOfInstruction = rip;
  ripRelative = false;
  store<u16>(op, 0, OP_DST);
  store<u16>(op, 0, OP_SRC);
  store<u64>(op, 0, OP_IMMEDIATE);
  setAddress(NONE, NONE, 0, 0);
}

/** There is no ModRM so far. */
export function beginModrm(): void {
  isMemory = false;
}

export function setSize(bytes: u32): void {
  size = bytes;
}

/** The operand size by the prefixes, where the table has said another. */
export function sizeByPrefix(): void {
  size = operandSize(table.SIZE_V);
}

function nextRip(): u64 {
  return ripOfInstruction + fetchLength();
}

/** Makes a RIP-relative address of the displacement, when the instruction's length is known. */
export function finishAddress(): void {
  if (!ripRelative) return;
  let address = load<u64>(op, OP_DISPLACEMENT) + nextRip();
  if (addressSize() == 4) address &= 0xffff_ffff;
  store<u64>(op, address, OP_DISPLACEMENT);
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
export function readRegisters(): void {
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
