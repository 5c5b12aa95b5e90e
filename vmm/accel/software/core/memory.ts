// Guest memory by linear address: what all parts of the CPU read and write with.
//
// Each access looks into the TLB of the present privilege; only what is not there, MMIO, pages with code,
// and operands that cross a page take the slow way. All of them return only if the access succeeded.
import { readFor, slowRead, slowWrite, writeFor } from "./access";
import { TLB } from "./derived";
import { TLB_ADDEND, TLB_READ, TLB_WRITE, tlbEntryOf } from "./tlb";

export { probeRead, probeReadFor, probeWrite, probeWriteFor, readFor, writeFor } from "./access";
export { flushPage, flushTlb } from "./tlb";
export { modeChanged } from "./mode";

/** The page of a linear address. */
const PAGE: u64 = ~0xfff;

// @ts-ignore: decorator
@inline
function read<T>(linear: u64): T {
  const entry = tlbEntryOf(load<u32>(TLB) as usize, linear);
  // An operand that crosses a page has its last byte in a page that this entry cannot hold.
  if (load<u64>(entry, TLB_READ) == ((linear + (sizeof<T>() - 1)) & PAGE)) {
    return load<T>(((linear as u32) + load<u32>(entry, TLB_ADDEND)) as usize);
  }
  return slowRead(linear, sizeof<T>() as u32) as T;
}

// @ts-ignore: decorator
@inline
function write<T>(linear: u64, value: T): void {
  const entry = tlbEntryOf(load<u32>(TLB) as usize, linear);
  if (load<u64>(entry, TLB_WRITE) == ((linear + (sizeof<T>() - 1)) & PAGE)) {
    store<T>(((linear as u32) + load<u32>(entry, TLB_ADDEND)) as usize, value);
  } else {
    slowWrite(linear, sizeof<T>() as u32, value as u64);
  }
}

export function read8(linear: u64): u32 {
  return read<u8>(linear) as u32;
}
export function read16(linear: u64): u32 {
  return read<u16>(linear) as u32;
}
export function read32(linear: u64): u32 {
  return read<u32>(linear);
}
export function read64(linear: u64): u64 {
  return read<u64>(linear);
}
export function write8(linear: u64, value: u32): void {
  write<u8>(linear, value as u8);
}
export function write16(linear: u64, value: u32): void {
  write<u16>(linear, value as u16);
}
export function write32(linear: u64, value: u32): void {
  write<u32>(linear, value);
}
export function write64(linear: u64, value: u64): void {
  write<u64>(linear, value);
}

/** Reads `size` bytes (1, 2, 4, 8). */
export function readSized(linear: u64, size: u32): u64 {
  switch (size) {
    case 1:
      return read<u8>(linear) as u64;
    case 2:
      return read<u16>(linear) as u64;
    case 4:
      return read<u32>(linear) as u64;
    default:
      return read<u64>(linear);
  }
}

/** Writes the low `size` bytes (1, 2, 4, 8) of a value. */
export function writeSized(linear: u64, size: u32, value: u64): void {
  switch (size) {
    case 1:
      write<u8>(linear, value as u8);
      break;
    case 2:
      write<u16>(linear, value as u16);
      break;
    case 4:
      write<u32>(linear, value as u32);
      break;
    default:
      write<u64>(linear, value);
  }
}

// Implicit accesses of the supervisor (descriptor tables, TSS, IDT), whatever the privilege is.
export function read8System(linear: u64): u32 {
  return readFor(linear, 1, false) as u32;
}
export function read16System(linear: u64): u32 {
  return readFor(linear, 2, false) as u32;
}
export function read32System(linear: u64): u32 {
  return readFor(linear, 4, false) as u32;
}
export function read64System(linear: u64): u64 {
  return readFor(linear, 8, false);
}
export function write8System(linear: u64, value: u32): void {
  writeFor(linear, 1, value, false);
}
export function write16System(linear: u64, value: u32): void {
  writeFor(linear, 2, value, false);
}
export function write32System(linear: u64, value: u32): void {
  writeFor(linear, 4, value, false);
}
export function write64System(linear: u64, value: u64): void {
  writeFor(linear, 8, value, false);
}
