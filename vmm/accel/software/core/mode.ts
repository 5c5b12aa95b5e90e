// What follows from control registers, segments and flags: privilege, mode, which TLB, what interrupts.
import { stepping } from "./debug";
import { ATTENTION_MASK, CODE_BASE, CODE_LIMIT, CPL, MODE, TLB } from "./derived";
import {
  ATTENTION_INTERRUPT,
  ATTENTION_NMI,
  CR0,
  CR4,
  EFER,
  INTERRUPT_SHADOW,
  NMI_MASKED,
  RFLAGS,
  SEG_CS,
  SEG_DS,
  SEG_ES,
  SEG_SS,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BASE,
  SEGMENT_LIMIT,
} from "./layout";
import { newEpoch, TLB_ALIGNED, TLB_SMAP_LIFTED, TLB_SUPERVISOR, TLB_USER } from "./tlb";

// Bits of MODE. Blocks are decoded for one mode.
/** 64-bit mode. */
export const MODE_64: u32 = 1 << 0;
/** Operands and addresses are of 32 bits unless prefixes say otherwise (CS.D). */
export const MODE_D: u32 = 1 << 1;
/** The stack pointer is ESP (SS.B). */
export const MODE_B: u32 = 1 << 2;
/** DS and ES need no checks: base 0, limit 4 GiB, writable. */
export const MODE_FLAT_DATA: u32 = 1 << 3;
/** So does SS. */
export const MODE_FLAT_STACK: u32 = 1 << 4;
/** Protected mode, and not virtual-8086 mode. */
export const MODE_PROTECTED: u32 = 1 << 5;
/** One instruction a block, between stepBefore and stepAfter: debug.ts has the reasons. */
export const MODE_STEP: u32 = 1 << 6;
/** CPL 3: other pages may be executed. */
export const MODE_USER: u32 = 1 << 8;
/** CS has no limit that an instruction could cross. */
export const MODE_FLAT_CODE: u32 = 1 << 7;

const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_VM: u64 = 1 << 17;
const RFLAGS_AC: u64 = 1 << 18;

/** Present, DPL aside, an expand-up writable data segment of the whole address space. */
function flat(segment: usize): bool {
  const attributes = load<u16>(segment, SEGMENT_ATTRIBUTES);
  return load<u64>(segment, SEGMENT_BASE) == 0 &&
    load<u32>(segment, SEGMENT_LIMIT) == 0xffff_ffff && (attributes & 0x9e) == 0x92;
}

function codeMode(long: bool): u32 {
  const attributes = load<u16>(SEG_CS, SEGMENT_ATTRIBUTES);
  if (long && attributes & (1 << 13)) {
    return MODE_64 | MODE_D | MODE_B | MODE_FLAT_DATA | MODE_FLAT_STACK | MODE_FLAT_CODE;
  }
  let mode: u32 = 0;
  if (attributes & (1 << 14)) mode |= MODE_D;
  if (load<u16>(SEG_SS, SEGMENT_ATTRIBUTES) & (1 << 14)) mode |= MODE_B;
  if (flat(SEG_DS) && flat(SEG_ES)) mode |= MODE_FLAT_DATA;
  if (flat(SEG_SS)) mode |= MODE_FLAT_STACK;
  if (load<u32>(SEG_CS, SEGMENT_LIMIT) == 0xffff_ffff) mode |= MODE_FLAT_CODE;
  return mode;
}

function privilege(cr0: u64, rflags: u64): u32 {
  if (!(cr0 & 1)) return 0;
  if (rflags & RFLAGS_VM) return 3;
  // As KVM has it: the DPL of SS is the privilege, whatever is in the selectors.
  return (load<u16>(SEG_SS, SEGMENT_ATTRIBUTES) >> 5) & 3;
}

function tlbOf(cpl: u32, rflags: u64): usize {
  const ac = (rflags & RFLAGS_AC) != 0;
  if (cpl == 3) return ac && load<u64>(CR0) & (1 << 18) ? TLB_ALIGNED : TLB_USER;
  return ac && load<u64>(CR4) & (1 << 21) ? TLB_SMAP_LIFTED : TLB_SUPERVISOR;
}

/** Interrupts and NMIs matter only while the guest takes them. */
export function interruptFlagChanged(): void {
  let mask: u32 = ~0;
  const shadow = load<u32>(INTERRUPT_SHADOW) != 0;
  if (shadow || !(load<u64>(RFLAGS) & RFLAGS_IF)) mask &= ~ATTENTION_INTERRUPT;
  if (shadow || load<u32>(NMI_MASKED)) mask &= ~ATTENTION_NMI;
  store<u32>(ATTENTION_MASK, mask);
}

/** Links between blocks hold for one base and limit of CS. */
function codeMoved(): void {
  const base = load<u64>(SEG_CS, SEGMENT_BASE), limit = load<u32>(SEG_CS, SEGMENT_LIMIT);
  if (load<u64>(CODE_BASE) == base && load<u32>(CODE_LIMIT) == limit) return;
  store<u64>(CODE_BASE, base);
  store<u32>(CODE_LIMIT, limit);
  newEpoch();
}

/** To be called after any change of CR0, CR3, CR4, EFER, CS, SS, DS, ES or RFLAGS.TF, IF, VM, AC. */
export function modeChanged(): void {
  const cr0 = load<u64>(CR0), rflags = load<u64>(RFLAGS);
  const cpl = privilege(cr0, rflags);
  let mode = codeMode((load<u64>(EFER) & (1 << 10)) != 0);
  if (cr0 & 1 && !(rflags & RFLAGS_VM)) mode |= MODE_PROTECTED;
  if (stepping()) mode |= MODE_STEP;
  if (cpl == 3) mode |= MODE_USER;
  codeMoved();
  store<u32>(CPL, cpl);
  store<u32>(MODE, mode);
  store<u32>(TLB, tlbOf(cpl, rflags) as u32);
  interruptFlagChanged();
}
