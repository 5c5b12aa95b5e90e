// What the system part reads and writes of the state: modes, privilege, segment registers, flags.
import {
  CR0, CR4, EFER, GPR, NEXT_RIP, RFLAGS, RIP, SEGMENTS, SEGMENT_ATTRIBUTES, SEGMENT_BASE,
  SEGMENT_LIMIT, SEGMENT_SELECTOR, SEGMENT_SIZE_OF,
} from "./layout";

export const RAX: u32 = 0;
export const RCX: u32 = 1;
export const RDX: u32 = 2;
export const RBX: u32 = 3;
export const RSP: u32 = 4;
export const RBP: u32 = 5;
export const RSI: u32 = 6;
export const RDI: u32 = 7;
export const R11: u32 = 11;

export const ES: u32 = 0;
export const CS: u32 = 1;
export const SS: u32 = 2;
export const DS: u32 = 3;
export const FS: u32 = 4;
export const GS: u32 = 5;
export const LDTR: u32 = 6;
export const TR: u32 = 7;

// Attributes of a segment: bits 40 to 55 of its descriptor (Intel SDM volume 3, 3.4.5).
export const ACCESSED: u32 = 1;
/** Data: may be written. Code: may be read. */
export const WRITABLE: u32 = 2;
export const READABLE: u32 = 2;
/** Data: grows down. Code: conforming. */
export const EXPAND_DOWN: u32 = 4;
export const CONFORMING: u32 = 4;
export const CODE: u32 = 8;
export const NOT_SYSTEM: u32 = 0x10;
export const PRESENT: u32 = 0x80;
export const LONG: u32 = 0x2000;
export const BIG: u32 = 0x4000;
export const GRANULAR: u32 = 0x8000;

// System segment types (SDM volume 3, table 3-2).
export const TSS16: u32 = 1;
export const LDT: u32 = 2;
export const CALL_GATE16: u32 = 4;
export const TASK_GATE: u32 = 5;
export const INTERRUPT_GATE16: u32 = 6;
export const TRAP_GATE16: u32 = 7;
export const TSS32: u32 = 9;
export const CALL_GATE32: u32 = 12;
export const INTERRUPT_GATE32: u32 = 14;
export const TRAP_GATE32: u32 = 15;
/** The bit that makes a TSS busy. */
export const BUSY: u32 = 2;

export const FLAG_ZF: u64 = 1 << 6;
export const FLAG_TF: u64 = 1 << 8;
export const FLAG_IF: u64 = 1 << 9;
export const FLAG_IOPL: u64 = 3 << 12;
export const FLAG_NT: u64 = 1 << 14;
export const FLAG_RF: u64 = 1 << 16;
export const FLAG_VM: u64 = 1 << 17;
export const FLAG_AC: u64 = 1 << 18;
export const FLAG_VIF: u64 = 1 << 19;
export const FLAG_VIP: u64 = 1 << 20;
export const FLAG_ID: u64 = 1 << 21;
/** CF PF AF ZF SF OF and DF: anyone may change them. */
export const FLAGS_USER: u64 = 0xcd5;
/** Bit 1 is always 1 (SDM volume 1, figure 3-8). */
export const FLAGS_FIXED: u64 = 2;

export const CR0_PE: u64 = 1;
export const CR0_MP: u64 = 2;
export const CR0_EM: u64 = 4;
export const CR0_TS: u64 = 8;
export const CR0_ET: u64 = 0x10;
export const CR0_NE: u64 = 0x20;
export const CR0_WP: u64 = 0x1_0000;
export const CR0_NW: u64 = 0x2000_0000;
export const CR0_CD: u64 = 0x4000_0000;
export const CR0_PG: u64 = 0x8000_0000;

export const CR4_TSD: u64 = 4;
export const CR4_DE: u64 = 8;
export const CR4_PSE: u64 = 0x10;
export const CR4_PAE: u64 = 0x20;
export const CR4_MCE: u64 = 0x40;
export const CR4_PGE: u64 = 0x80;
export const CR4_PCE: u64 = 0x100;
export const CR4_OSFXSR: u64 = 0x200;
export const CR4_OSXMMEXCPT: u64 = 0x400;
export const CR4_UMIP: u64 = 0x800;
export const CR4_LA57: u64 = 0x1000;
export const CR4_FSGSBASE: u64 = 0x1_0000;
export const CR4_PCIDE: u64 = 0x2_0000;
export const CR4_OSXSAVE: u64 = 0x4_0000;
export const CR4_SMEP: u64 = 0x10_0000;
export const CR4_SMAP: u64 = 0x20_0000;

export const EFER_SCE: u64 = 1;
export const EFER_LME: u64 = 0x100;
export const EFER_LMA: u64 = 0x400;
export const EFER_NXE: u64 = 0x800;
export const EFER_FFXSR: u64 = 0x4000;

export function gpr(register: u32): u64 {
  return load<u64>(GPR + (<usize>register << 3));
}

export function setGpr(register: u32, value: u64): void {
  store<u64>(GPR + (<usize>register << 3), value);
}

/** Where a segment register is in the state. */
export function segment(seg: u32): usize {
  return SEGMENTS + <usize>seg * SEGMENT_SIZE_OF;
}

export function segmentBase(seg: u32): u64 {
  return load<u64>(segment(seg) + SEGMENT_BASE);
}

export function segmentLimit(seg: u32): u32 {
  return load<u32>(segment(seg) + SEGMENT_LIMIT);
}

export function segmentSelector(seg: u32): u32 {
  return load<u16>(segment(seg) + SEGMENT_SELECTOR);
}

export function segmentAttributes(seg: u32): u32 {
  return load<u16>(segment(seg) + SEGMENT_ATTRIBUTES);
}

export function setSegment(seg: u32, selector: u32, base: u64, limit: u32, attributes: u32): void {
  const at = segment(seg);
  store<u64>(at + SEGMENT_BASE, base);
  store<u32>(at + SEGMENT_LIMIT, limit);
  store<u16>(at + SEGMENT_SELECTOR, <u16>selector);
  store<u16>(at + SEGMENT_ATTRIBUTES, <u16>attributes);
}

export function setSegmentBase(seg: u32, base: u64): void {
  store<u64>(segment(seg) + SEGMENT_BASE, base);
}

export function readFlags(): u64 {
  return load<u64>(RFLAGS);
}

export function writeFlags(value: u64): void {
  store<u64>(RFLAGS, value);
}

export function protectedMode(): bool {
  return (load<u64>(CR0) & CR0_PE) != 0;
}

export function virtual8086(): bool {
  return protectedMode() && (readFlags() & FLAG_VM) != 0;
}

/** Real or virtual-8086 mode: segments are paragraphs. */
export function paragraphMode(): bool {
  return !protectedMode() || (readFlags() & FLAG_VM) != 0;
}

/** 64-bit or compatibility mode. */
export function longMode(): bool {
  return (load<u64>(EFER) & EFER_LMA) != 0;
}

export function code64(): bool {
  return longMode() && (segmentAttributes(CS) & LONG) != 0;
}

export function dplOf(attributes: u32): u32 {
  return (attributes >> 5) & 3;
}

/** The privilege level is SS's, whatever the stack (SDM volume 3, 5.5); KVM keeps it there too. */
export function cpl(): u32 {
  if (!protectedMode()) return 0;
  if (readFlags() & FLAG_VM) return 3;
  return dplOf(segmentAttributes(SS));
}

export function iopl(): u32 {
  return <u32>(readFlags() >> 12) & 3;
}

/** Whether an address has its upper bits equal to the highest that paging translates. */
export function canonical(address: u64): bool {
  const shift: u64 = load<u64>(CR4) & CR4_LA57 ? 7 : 16;
  return <u64>((<i64>(address << shift)) >> shift) == address;
}

/** Goes on elsewhere, at the end of an instruction or of a delivery between two. */
export function jump(rip: u64): void {
  store<u64>(RIP, rip);
  store<u64>(NEXT_RIP, rip);
}

export function nextRip(): u64 {
  return load<u64>(NEXT_RIP);
}
