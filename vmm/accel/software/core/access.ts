// Accesses that the TLB does not know: walks, MMIO, pages with code, operands across two pages.
import { CURRENT_OP, TLB } from "./derived";
import { breakpointPage, breakpointsEnabled, dataBreakpoint } from "./debug";
import { raise, VECTOR_AC, VECTOR_GP, VECTOR_SS } from "./fault";
import { CR4, EFER, SEG_CS, SEGMENT_ATTRIBUTES } from "./layout";
import { DIRTY_PAGES } from "./layout";
import { CODE_PAGES } from "./map";
import {
  ACCESS_FETCH,
  ACCESS_READ,
  ACCESS_SMAP_LIFTED,
  ACCESS_USER,
  ACCESS_WRITE,
  walk,
  walkRights,
} from "./paging";
import { pageIndex, physicalRead, physicalWrite, readable, writable } from "./physical";
import { OP_SEGMENT } from "./record";
import { othersHaveCode } from "./sharing";
import {
  fillTlb,
  TLB_ADDEND,
  TLB_ALIGNED,
  TLB_EXECUTE,
  TLB_SMAP_LIFTED,
  TLB_SUPERVISOR,
  TLB_USER,
  TLB_WRITE,
  tlbEntryOf,
} from "./tlb";

const PAGE: u64 = ~0xfff;
const SEGMENT_SS: u32 = 2;

/** The bits of an access by the present privilege. */
function accessOf(tlb: usize): u32 {
  if (tlb >= TLB_USER) return ACCESS_USER;
  return tlb == TLB_SMAP_LIFTED ? ACCESS_SMAP_LIFTED : 0;
}

/** Whether a linear address is canonical, as wide as CR4.LA57 says; only long mode asks. */
export function canonical(linear: u64): bool {
  const unused: i64 = load<u64>(CR4) & (1 << 12) ? 7 : 16;
  return ((((linear as i64) << unused) >> unused) as u64) == linear;
}

/** Raises #GP(0), #SS(0) for the stack segment, unless an address is canonical. */
function checkCanonical(linear: u64): void {
  if (!(load<u64>(EFER) & (1 << 10)) || canonical(linear)) return;
  const op = load<u32>(CURRENT_OP) as usize;
  const stack = op != 0 && (load<u8>(op, OP_SEGMENT) & 7) == SEGMENT_SS;
  raise(stack ? VECTOR_SS : VECTOR_GP, 0);
}

/** The last byte of an operand; outside 64-bit mode addresses wrap at 4 GiB. */
export function lastByte(linear: u64, size: u32): u64 {
  const last = linear + (size - 1);
  if (last >> 32 == 0 || linear >> 32 != 0) return last;
  const cs = load<u16>(SEG_CS, SEGMENT_ATTRIBUTES);
  return load<u64>(EFER) & (1 << 10) && cs & (1 << 13) ? last : last & 0xffff_ffff;
}

function fill(tlb: usize, linear: u64, physical: u64, written: bool): void {
  const address = readable(physical);
  if (address == 0) return;
  let rights = walkRights;
  if (rights & 2) {
    const page = pageIndex(address);
    // Clean pages and pages with code are written the slow way.
    const plain = load<u32>(CODE_PAGES + (page << 2)) == 0 && !othersHaveCode(page) &&
      writable(physical) != 0;
    if (!plain || !(written || load<u8>(DIRTY_PAGES + page))) rights &= ~2;
    else if (written) store<u8>(DIRTY_PAGES + page, 1);
  }
  // So that every access to a page with a breakpoint comes here.
  if (breakpointPage(linear)) rights &= ~3;
  fillTlb(tlb, linear, address, rights);
}

function translate(tlb: usize, linear: u64, access: u32): u64 {
  checkCanonical(linear);
  const physical = walk(linear, access);
  fill(tlb, linear, physical, (access & ACCESS_WRITE) != 0);
  return physical;
}

function readWith(tlb: usize, linear: u64, size: u32): u64 {
  const access = accessOf(tlb) | ACCESS_READ;
  const last = lastByte(linear, size);
  const physical = translate(tlb, linear, access);
  if (breakpointsEnabled()) dataBreakpoint(linear, size, false);
  if (!((last ^ linear) & PAGE)) return physicalRead(physical, size);
  const upper = translate(tlb, last & PAGE, access);
  const low: u32 = 0x1000 - ((linear as u32) & 0xfff);
  let value: u64 = 0;
  for (let i: u32 = 0; i < size; i++) {
    const at = i < low ? physical + i : upper + (i - low);
    value |= physicalRead(at, 1) << (i << 3);
  }
  return value;
}

function writeWith(tlb: usize, linear: u64, size: u32, value: u64): void {
  const access = accessOf(tlb) | ACCESS_WRITE;
  const last = lastByte(linear, size);
  const physical = translate(tlb, linear, access);
  if (breakpointsEnabled()) dataBreakpoint(linear, size, true);
  if (!((last ^ linear) & PAGE)) {
    physicalWrite(physical, size, value);
    return;
  }
  const upper = translate(tlb, last & PAGE, access);
  const low: u32 = 0x1000 - ((linear as u32) & 0xfff);
  for (let i: u32 = 0; i < size; i++) {
    const at = i < low ? physical + i : upper + (i - low);
    physicalWrite(at, 1, (value >> (i << 3)) & 0xff);
  }
}

/** Raises #AC(0) for a misaligned operand where the privilege has its accesses checked. */
function checkAlignment(tlb: usize, linear: u64, size: u32): void {
  if (tlb == TLB_ALIGNED && (linear as u32) & (size - 1)) raise(VECTOR_AC, 0);
}

/** Reads an operand of 1, 2, 4, 8 bytes that the TLB does not have. */
export function slowRead(linear: u64, size: u32): u64 {
  const tlb = load<u32>(TLB) as usize;
  checkAlignment(tlb, linear, size);
  return readWith(tlb, linear, size);
}

/** Writes an operand of 1, 2, 4, 8 bytes that the TLB does not have. */
export function slowWrite(linear: u64, size: u32, value: u64): void {
  const tlb = load<u32>(TLB) as usize;
  checkAlignment(tlb, linear, size);
  writeWith(tlb, linear, size, value);
}

// @ts-ignore: decorator
@inline
function tlbFor(user: bool): usize {
  return user ? TLB_USER : TLB_SUPERVISOR;
}

/** Reads with the rights of user or supervisor, whatever the present privilege is. */
export function readFor(linear: u64, size: u32, user: bool): u64 {
  return readWith(tlbFor(user), linear, size);
}

/** Writes with the rights of user or supervisor, whatever the present privilege is. */
export function writeFor(linear: u64, size: u32, value: u64, user: bool): void {
  writeWith(tlbFor(user), linear, size, value);
}

function probe(tlb: usize, linear: u64, size: u32, access: u32): void {
  const last = lastByte(linear, size);
  translate(tlb, linear, access);
  if ((last ^ linear) & PAGE) translate(tlb, last & PAGE, access);
}

/** Faults as a write of `size` bytes (at most a page) by the present privilege would. */
export function probeWrite(linear: u64, size: u32): void {
  const tlb = load<u32>(TLB) as usize;
  const tag = load<u64>(tlbEntryOf(tlb, linear), TLB_WRITE);
  if (tag == ((linear + (size - 1)) & PAGE)) return;
  checkAlignment(tlb, linear, size & (0 - size));
  probe(tlb, linear, size, accessOf(tlb) | ACCESS_WRITE);
}

/** Faults as a read of `size` bytes (at most a page) by the present privilege would. */
export function probeRead(linear: u64, size: u32): void {
  const tlb = load<u32>(TLB) as usize;
  probe(tlb, linear, size, accessOf(tlb));
}

/** As `probeWrite`, with the rights of user or supervisor. */
export function probeWriteFor(linear: u64, size: u32, user: bool): void {
  const tlb = tlbFor(user);
  probe(tlb, linear, size, accessOf(tlb) | ACCESS_WRITE);
}

/** Faults as a read of `size` bytes by user or supervisor would. */
export function probeReadFor(linear: u64, size: u32, user: bool): void {
  const tlb = tlbFor(user);
  probe(tlb, linear, size, accessOf(tlb));
}

/**
 * Where an operand of the present privilege can be written in memory with an atomic instruction.
 *
 * @returns its address; 0 if it is MMIO, ROM, or crosses a page (then it was probed)
 */
export function writableAddress(linear: u64, size: u32): usize {
  const tlb = load<u32>(TLB) as usize;
  checkAlignment(tlb, linear, size);
  const last = lastByte(linear, size);
  const physical = translate(tlb, linear, accessOf(tlb) | ACCESS_WRITE);
  if ((last ^ linear) & PAGE) {
    translate(tlb, last & PAGE, accessOf(tlb) | ACCESS_WRITE);
    return 0;
  }
  return writable(physical);
}

/** Where the code at a linear address is in memory; 0 if it is not RAM. Faults as a fetch does. */
export function codeAddress(linear: u64): usize {
  const tlb = load<u32>(TLB) as usize;
  const entry = tlbEntryOf(tlb, linear);
  if (load<u64>(entry, TLB_EXECUTE) == (linear & PAGE)) {
    return ((linear as u32) + load<u32>(entry, TLB_ADDEND)) as usize;
  }
  return readable(codePhysical(tlb, linear));
}

function codePhysical(tlb: usize, linear: u64): u64 {
  return translate(tlb, linear, (accessOf(tlb) & ACCESS_USER) | ACCESS_FETCH);
}

/** Reads a byte of code that is not in RAM. */
export function fetchUncached(linear: u64): u32 {
  return physicalRead(codePhysical(load<u32>(TLB) as usize, linear), 1) as u32;
}
