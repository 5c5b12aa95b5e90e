// Operands of decoded operations: addresses, registers of every size, memory.
import { CURRENT_OP } from "./derived";
import { SEGMENT_BASE, SEGMENT_SIZE_OF, SEGMENTS } from "./layout";
import { readSized, writeSized } from "./memory";
import {
  EA_BASE64,
  EA_CHECKED16,
  EA_FLAT32,
  EA_FLAT64,
  OP_BASE,
  OP_DISPLACEMENT,
  OP_DST,
  OP_EA,
  OP_FLAGS,
  OP_IMMEDIATE,
  OP_INDEX,
  OP_SCALE,
  OP_SEGMENT,
  OP_SRC,
  OPERAND_IMMEDIATE,
  OPERAND_MEMORY,
  OPERAND_MEMORY_SOURCE,
} from "./record";
import { linear } from "./segment";

/** Base + index * scale + displacement, not masked. */
// @ts-ignore: decorator
@inline
export function sum(op: usize): u64 {
  return load<u64>(load<u16>(op, OP_BASE)) +
    (load<u64>(load<u16>(op, OP_INDEX)) << (load<u8>(op, OP_SCALE) as u64)) +
    load<u64>(op, OP_DISPLACEMENT);
}

/** An offset as wide as the addresses of an operation. */
export function maskOffset(op: usize, offset: u64): u64 {
  switch (load<u8>(op, OP_EA) as u32) {
    case EA_FLAT64:
    case EA_BASE64:
      return offset;
    case EA_CHECKED16:
      return offset & 0xffff;
    default:
      return offset & 0xffff_ffff;
  }
}

/** Address size in bytes. */
export function addressBytes(op: usize): u32 {
  const kind = load<u8>(op, OP_EA) as u32;
  return kind <= EA_BASE64 ? 8 : kind == EA_CHECKED16 ? 2 : 4;
}

/** The offset of the memory operand in its segment. */
export function offsetOf(op: usize): u64 {
  return maskOffset(op, sum(op));
}

/** The segment of the memory operand. */
// @ts-ignore: decorator
@inline
export function segmentOf(op: usize): u32 {
  return load<u8>(op, OP_SEGMENT) & 7;
}

/** The linear address of an offset in the segment of the operation, after the segment's checks. */
export function linearAt(op: usize, offset: u64, size: u32, write: bool): u64 {
  switch (load<u8>(op, OP_EA) as u32) {
    case EA_FLAT64:
      return offset;
    case EA_FLAT32:
      return offset & 0xffff_ffff;
    case EA_BASE64:
      return offset + load<u64>(SEGMENTS + segmentOf(op) * SEGMENT_SIZE_OF, SEGMENT_BASE);
    case EA_CHECKED16:
      store<u32>(CURRENT_OP, op as u32);
      return linear(segmentOf(op), offset & 0xffff, size, write);
    default:
      store<u32>(CURRENT_OP, op as u32);
      return linear(segmentOf(op), offset & 0xffff_ffff, size, write);
  }
}

/** The linear address of the memory operand. */
export function addressOf(op: usize, size: u32, write: bool): u64 {
  return linearAt(op, sum(op), size, write);
}

/** Operand size in bytes. */
// @ts-ignore: decorator
@inline
export function sizeOf(op: usize): u32 {
  return load<u8>(op, OP_FLAGS) & 15;
}

/** Reads `size` bytes of a register. */
export function readRegister(register: usize, size: u32): u64 {
  switch (size) {
    case 1:
      return load<u8>(register) as u64;
    case 2:
      return load<u16>(register) as u64;
    case 4:
      return load<u32>(register) as u64;
    default:
      return load<u64>(register);
  }
}

/** Writes a register: four bytes clear the upper half, fewer leave the rest alone. */
export function writeRegister(register: usize, size: u32, value: u64): void {
  switch (size) {
    case 1:
      store<u8>(register, value as u8);
      break;
    case 2:
      store<u16>(register, value as u16);
      break;
    case 4:
      store<u64>(register, value & 0xffff_ffff);
      break;
    default:
      store<u64>(register, value);
  }
}

/** Whether the destination is memory. */
export function toMemory(op: usize): bool {
  const kind = load<u8>(op, OP_SEGMENT) & (OPERAND_MEMORY | OPERAND_MEMORY_SOURCE);
  return kind == OPERAND_MEMORY;
}

/** Reads the source as `size` bytes, zero-extended. */
export function readSource(op: usize, size: u32): u64 {
  const kind = load<u8>(op, OP_SEGMENT) as u32;
  if (kind & OPERAND_IMMEDIATE) return truncate(load<u64>(op, OP_IMMEDIATE), size);
  if (kind & OPERAND_MEMORY_SOURCE) return readSized(addressOf(op, size, false), size);
  return readRegister(load<u16>(op, OP_SRC), size);
}

/** Reads the destination as `size` bytes, which it does not change. */
export function readDestination(op: usize, size: u32): u64 {
  if (toMemory(op)) return readSized(addressOf(op, size, false), size);
  return readRegister(load<u16>(op, OP_DST), size);
}

export function writeDestination(op: usize, size: u32, value: u64): void {
  if (toMemory(op)) writeSized(addressOf(op, size, true), size, value);
  else writeRegister(load<u16>(op, OP_DST), size, value);
}

export function truncate(value: u64, size: u32): u64 {
  return size == 8 ? value : value & (((1 as u64) << (size << 3)) - 1);
}

/** Sign-extends from `size` bytes. */
export function extend(value: u64, size: u32): u64 {
  const unused: i64 = 64 - (size << 3);
  return (((value as i64) << unused) >> unused) as u64;
}
