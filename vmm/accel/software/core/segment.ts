// Segments: descriptors, segment registers, limits (Intel SDM volume 3, chapters 3 and 5).
import { raise, VECTOR_GP, VECTOR_NP, VECTOR_SS } from "./fault";
import { GDT_BASE, GDT_LIMIT, SEGMENT_BASE, SEGMENT_SELECTOR } from "./layout";
import { modeChanged, read64System, write8System } from "./memory";
import {
  ACCESSED, BIG, canonical, code64, CODE, CONFORMING, cpl, CS, dplOf, ES, EXPAND_DOWN, FS, GRANULAR,
  GS, LDTR, longMode, NOT_SYSTEM, paragraphMode, PRESENT, protectedMode, READABLE, segment,
  segmentAttributes, segmentBase, segmentLimit, segmentSelector, setSegment, SS, virtual8086, WRITABLE,
} from "./registers";
import { beginShadow, SHADOW_SS } from "./debug";

/** No descriptor: the selector is beyond its table. */
export const NOWHERE: u64 = u64.MAX_VALUE;

export function descriptorBase(descriptor: u64): u64 {
  return ((descriptor >> 16) & 0xff_ffff) | ((descriptor >> 32) & 0xff00_0000);
}

export function descriptorLimit(descriptor: u64): u32 {
  const limit = <u32>((descriptor & 0xffff) | ((descriptor >> 32) & 0xf_0000));
  return descriptorAttributes(descriptor) & GRANULAR ? (limit << 12) | 0xfff : limit;
}

export function descriptorAttributes(descriptor: u64): u32 {
  return <u32>(descriptor >> 40) & 0xf0ff;
}

export function isNull(selector: u32): bool {
  return (selector & 0xfffc) == 0;
}

export function isCode(attributes: u32): bool {
  return (attributes & (NOT_SYSTEM | CODE)) == (NOT_SYSTEM | CODE);
}

export function isWritableData(attributes: u32): bool {
  return (attributes & (NOT_SYSTEM | CODE | WRITABLE)) == (NOT_SYSTEM | WRITABLE);
}

/** Linear address of a selector's descriptor of so many bytes, or NOWHERE. */
export function descriptorAddress(selector: u32, bytes: u32): u64 {
  const offset = selector & 0xfff8;
  let base: u64;
  let limit: u32;
  if (selector & 4) {
    if (!(segmentAttributes(LDTR) & PRESENT)) return NOWHERE;
    base = segmentBase(LDTR);
    limit = segmentLimit(LDTR);
  } else {
    base = load<u64>(GDT_BASE);
    limit = load<u32>(GDT_LIMIT);
  }
  if (offset + (bytes - 1) > limit) return NOWHERE;
  const address = base + offset;
  return longMode() ? address : address & 0xffff_ffff;
}

/** Reads a descriptor; one that is not there raises `vector` with the selector. */
export function readDescriptor(selector: u32, vector: u32, ext: u32): u64 {
  const address = descriptorAddress(selector, 8);
  if (address == NOWHERE) raise(vector, (selector & 0xfffc) | ext);
  return read64System(address);
}

/** The upper half of a system descriptor in long mode. */
export function readUpperHalf(selector: u32, vector: u32, ext: u32): u64 {
  const address = descriptorAddress(selector, 16);
  if (address == NOWHERE) raise(vector, (selector & 0xfffc) | ext);
  return read64System(address + 8);
}

/** Stores a descriptor's type byte, where it is another than before. */
export function writeType(selector: u32, descriptor: u64, attributes: u32): u64 {
  const old = descriptorAttributes(descriptor);
  if ((old & 0xff) == (attributes & 0xff)) return descriptor;
  write8System(descriptorAddress(selector, 8) + 5, attributes & 0xff);
  return (descriptor & ~(<u64>0xff << 40)) | (<u64>(attributes & 0xff) << 40);
}

export function markAccessed(selector: u32, descriptor: u64): u64 {
  return writeType(selector, descriptor, descriptorAttributes(descriptor) | ACCESSED);
}

export function loadFrom(seg: u32, selector: u32, descriptor: u64): void {
  setSegment(seg, selector, descriptorBase(descriptor), descriptorLimit(descriptor),
    descriptorAttributes(descriptor));
}

/** Loads a paragraph: limits and rights stay what they were in real mode (SDM volume 3, 20.1.1). */
export function loadParagraph(seg: u32, selector: u32): void {
  if (virtual8086()) return setSegment(seg, selector, <u64>selector << 4, 0xffff, 0xf3);
  const at = segment(seg);
  store<u64>(at + SEGMENT_BASE, <u64>(selector & 0xffff) << 4);
  store<u16>(at + SEGMENT_SELECTOR, <u16>selector);
}

export function loadNull(seg: u32, selector: u32): void {
  setSegment(seg, selector, 0, 0, 0);
}

/** Checks a descriptor for SS at a privilege level, and marks it accessed. */
export function checkStack(selector: u32, level: u32, vector: u32, ext: u32): u64 {
  const error = (selector & 0xfffc) | ext;
  const descriptor = readDescriptor(selector, vector, ext);
  const attributes = descriptorAttributes(descriptor);
  if ((selector & 3) != level || !isWritableData(attributes) || dplOf(attributes) != level) {
    raise(vector, error);
  }
  if (!(attributes & PRESENT)) raise(VECTOR_SS, error);
  return markAccessed(selector, descriptor);
}

/** Checks a descriptor for DS, ES, FS or GS, and marks it accessed. */
export function checkData(selector: u32, level: u32, vector: u32, ext: u32): u64 {
  const error = (selector & 0xfffc) | ext;
  const descriptor = readDescriptor(selector, vector, ext);
  const attributes = descriptorAttributes(descriptor);
  if (!(attributes & NOT_SYSTEM)) raise(vector, error);
  if ((attributes & (CODE | READABLE)) == CODE) raise(vector, error);
  if (!isConformingCode(attributes) && max<u32>(level, selector & 3) > dplOf(attributes)) {
    raise(vector, error);
  }
  if (!(attributes & PRESENT)) raise(VECTOR_NP, error);
  return markAccessed(selector, descriptor);
}

export function isConformingCode(attributes: u32): bool {
  return (attributes & (CODE | CONFORMING)) == (CODE | CONFORMING);
}

/** Loads any segment register but CS, as MOV, POP and LDS do. */
export function loadSegment(seg: u32, selector: u32): void {
  selector &= 0xffff;
  if (paragraphMode()) {
    loadParagraph(seg, selector);
  } else if (seg == SS) {
    loadStack(selector);
  } else if (isNull(selector)) {
    loadNull(seg, selector);
  } else {
    loadFrom(seg, selector, checkData(selector, cpl(), VECTOR_GP, 0));
  }
  modeChanged();
}

/** MOV Sreg; ends a block. */
export function opMovSreg(seg: u32, selector: u32): void {
  loadSegment(seg, selector);
  if (seg == SS) {
    beginShadow(SHADOW_SS);
    modeChanged();
  }
}

function loadStack(selector: u32): void {
  const level = cpl();
  if (isNull(selector)) {
    if (!code64() || level == 3 || selector != level) raise(VECTOR_GP, 0);
    setSegment(SS, selector, 0, 0, level << 5);
  } else {
    loadFrom(SS, selector, checkStack(selector, level, VECTOR_GP, 0));
  }
}

/**
 * After a return to less privilege: what that may not use is nulled (SDM volume 2, RET). FS and GS that
 * are null keep their bases, which the guest has set by MSRs, also where INIT has left them present.
 */
export function dropPrivilegedSegments(level: u32): void {
  for (let seg = ES; seg <= GS; seg++) {
    if (seg == CS || seg == SS) continue;
    if (seg >= FS && isNull(segmentSelector(seg))) continue;
    const attributes = segmentAttributes(seg);
    const guarded = (attributes & NOT_SYSTEM) != 0 && !isConformingCode(attributes);
    if (guarded && dplOf(attributes) < level) loadNull(seg, 0);
  }
}

/** Whether so many bytes lie in a segment (SDM volume 3, 5.3). */
export function withinLimit(attributes: u32, limit: u32, offset: u64, bytes: u32): bool {
  const last = offset + bytes - 1;
  if ((attributes & (CODE | EXPAND_DOWN)) == EXPAND_DOWN) {
    return offset > limit && last <= (attributes & BIG ? <u64>0xffff_ffff : 0xffff);
  }
  // An offset past the end of a flat segment begins again at 0.
  return limit == 0xffff_ffff || last <= limit;
}

/**
 * The linear address of an operand, checked: limit, rights, canonical form. The stack segment's
 * errors are #SS, others' #GP.
 */
export function linear(seg: u32, offset: u64, bytes: u32, write: bool): u64 {
  const vector = seg == SS ? VECTOR_SS : VECTOR_GP;
  if (code64()) {
    const address = seg == FS || seg == GS ? segmentBase(seg) + offset : offset;
    if (!canonical(address) || !canonical(address + bytes - 1)) raise(vector, 0);
    return address;
  }
  offset &= 0xffff_ffff;
  const attributes = segmentAttributes(seg);
  if (protectedMode() && !permits(attributes, write)) raise(vector, 0);
  if (!withinLimit(attributes, segmentLimit(seg), offset, bytes)) raise(vector, 0);
  return (segmentBase(seg) + offset) & 0xffff_ffff;
}

function permits(attributes: u32, write: bool): bool {
  if (!(attributes & PRESENT)) return false;
  if (attributes & CODE) return !write && (attributes & READABLE) != 0;
  return !write || (attributes & WRITABLE) != 0;
}
