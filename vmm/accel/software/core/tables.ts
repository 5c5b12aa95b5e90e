// Descriptor table registers: LGDT to STR (Intel SDM volume 2).
import { raise, raiseGP, raiseUD, VECTOR_GP, VECTOR_NP } from "./fault";
import { GDT_BASE, GDT_LIMIT, IDT_BASE, IDT_LIMIT } from "./layout";
import { probeWrite, read16, read64, read32, write16, write32, write64 } from "./memory";
import {
  BUSY, canonical, code64, LDT, LDTR, longMode, paragraphMode, PRESENT,
  segmentSelector, setSegment, TR, TSS16, TSS32,
} from "./registers";
import { requirePrivilege, requireUmip } from "./control_registers";
import {
  descriptorAttributes, descriptorBase, descriptorLimit, isNull, linear, loadNull,
  readDescriptor, readUpperHalf, writeType,
} from "./segment";
import { loadLdt } from "./task";

/** The base of a table register's image: 24 bits of it count with 16-bit operands. */
function readBase(seg: u32, ea: u64, size: u32): u64 {
  if (code64()) {
    const base = read64(linear(seg, ea + 2, 8, false));
    if (!canonical(base)) raiseGP(0);
    return base;
  }
  const base = <u64>read32(linear(seg, (ea + 2) & 0xffff_ffff, 4, false));
  return size == 2 ? base & 0xff_ffff : base;
}

export function opLgdt(seg: u32, ea: u64, size: u32): void {
  requirePrivilege();
  const limit = read16(linear(seg, ea, 2, false));
  const base = readBase(seg, ea, size);
  store<u64>(GDT_BASE, base);
  store<u32>(GDT_LIMIT, limit);
}

export function opLidt(seg: u32, ea: u64, size: u32): void {
  requirePrivilege();
  const limit = read16(linear(seg, ea, 2, false));
  const base = readBase(seg, ea, size);
  store<u64>(IDT_BASE, base);
  store<u32>(IDT_LIMIT, limit);
}

function storeTable(seg: u32, ea: u64, limit: u32, base: u64): void {
  requireUmip();
  const bytes: u32 = code64() ? 10 : 6;
  const at = linear(seg, ea, bytes, true);
  probeWrite(at, bytes);
  write16(at, limit);
  if (code64()) write64(at + 2, base);
  else write32(at + 2, <u32>base);
}

export function opSgdt(seg: u32, ea: u64): void {
  storeTable(seg, ea, load<u32>(GDT_LIMIT), load<u64>(GDT_BASE));
}

export function opSidt(seg: u32, ea: u64): void {
  storeTable(seg, ea, load<u32>(IDT_LIMIT), load<u64>(IDT_BASE));
}

export function opSldt(): u32 {
  if (paragraphMode()) raiseUD();
  requireUmip();
  return segmentSelector(LDTR);
}

export function opStr(): u32 {
  if (paragraphMode()) raiseUD();
  requireUmip();
  return segmentSelector(TR);
}

/** Loads a system segment whose descriptor has 16 bytes in long mode. */
function loadSystem(seg: u32, selector: u32, descriptor: u64): void {
  let base = descriptorBase(descriptor);
  if (longMode()) {
    const upper = readUpperHalf(selector, VECTOR_GP, 0);
    base |= upper << 32;
    if ((upper >> 40) & 0x1f || !canonical(base)) raiseGP(selector & 0xfffc);
  }
  if (seg == TR) {
    descriptor = writeType(selector, descriptor, descriptorAttributes(descriptor) | BUSY);
  }
  setSegment(seg, selector, base, descriptorLimit(descriptor), descriptorAttributes(descriptor));
}

export function opLldt(selector: u32): void {
  if (paragraphMode()) raiseUD();
  requirePrivilege();
  selector &= 0xffff;
  if (!longMode()) return loadLdt(selector, VECTOR_GP, 0);
  if (isNull(selector)) return loadNull(LDTR, selector);
  if (selector & 4) raiseGP(selector & 0xfffc);
  const descriptor = readDescriptor(selector, VECTOR_GP, 0);
  const attributes = descriptorAttributes(descriptor);
  if ((attributes & 0x1f) != LDT) raiseGP(selector & 0xfffc);
  if (!(attributes & PRESENT)) raise(VECTOR_NP, selector & 0xfffc);
  loadSystem(LDTR, selector, descriptor);
}

export function opLtr(selector: u32): void {
  if (paragraphMode()) raiseUD();
  requirePrivilege();
  selector &= 0xffff;
  const error = selector & 0xfffc;
  if (isNull(selector)) raiseGP(0);
  if (selector & 4) raiseGP(error);
  const descriptor = readDescriptor(selector, VECTOR_GP, 0);
  const attributes = descriptorAttributes(descriptor);
  const type = attributes & 0x1f;
  if (type != TSS32 && (type != TSS16 || longMode())) raiseGP(error);
  if (!(attributes & PRESENT)) raise(VECTOR_NP, error);
  loadSystem(TR, selector, descriptor);
}
