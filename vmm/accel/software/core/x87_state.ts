// Where the x87 state is: in the FXSAVE image of the CPU's state, but with the registers by their
// physical numbers (R0 to R7), so that a push moves TOP and not 112 bytes. fxsave.ts turns that into the
// order of the stack and back for whoever looks from outside.
import { raise, VECTOR_MF } from "./fault";
import { CR0, FXSAVE } from "./layout";

/** u16: control word. */
export const X87_FCW: usize = FXSAVE;
/** u16: status word, with TOP. */
export const X87_FSW: usize = FXSAVE + 2;
/** u8: a bit for each physical register that is in use. */
export const X87_TAGS: usize = FXSAVE + 4;
/** u16: low 11 bits of the last opcode that had an unmasked exception. */
export const X87_FOP: usize = FXSAVE + 6;
/** u64: address of the last instruction, and of its operand in memory. */
export const X87_FIP: usize = FXSAVE + 8;
export const X87_FDP: usize = FXSAVE + 16;
/** u32 */
export const MXCSR: usize = FXSAVE + 24;
export const X87_REGISTERS: usize = FXSAVE + 32;
export const XMM: usize = FXSAVE + 160;

/** FSW.ES: an unmasked exception is pending. */
export const FSW_ES: u32 = 0x80;
const CR0_NE: u64 = 1 << 5;

@external("env", "fpuError")
declare function fpuError(): void;

/**
 * What a waiting instruction does first: a pending unmasked exception becomes #MF, or with CR0.NE = 0
 * an interrupt by way of the chips; then it goes on as if IGNNE# were asserted.
 */
export function checkPending(): void {
  if ((load<u16>(X87_FSW) & FSW_ES) == 0) return;
  if ((load<u64>(CR0) & CR0_NE) != 0) raise(VECTOR_MF, 0);
  fpuError();
}

// Bits of FSW; the low six are the exceptions as softfloat.ts has them.
const FSW_SF: u32 = 0x40;
export const C0: u32 = 0x100;
export const C1: u32 = 0x200;
export const C2: u32 = 0x400;
export const C3: u32 = 0x4000;
const FSW_BUSY: u32 = 0x8000;
const TOP_UNIT: u32 = 0x800;
const TOP_MASK: u32 = 0x3800;
const INVALID: u32 = 1;

/** Number of the physical register that is ST(i). */
export function physical(i: u32): u32 {
  return ((load<u16>(X87_FSW) as u32) / TOP_UNIT + i) & 7;
}

/** Address of ST(i). */
export function st(i: u32): usize {
  return X87_REGISTERS + (physical(i) << 4);
}

export function isEmpty(i: u32): bool {
  return ((load<u8>(X87_TAGS) as u32) & (1 << physical(i))) == 0;
}

export function setInUse(i: u32): void {
  store<u8>(X87_TAGS, (load<u8>(X87_TAGS) as u32) | (1 << physical(i)));
}

export function setEmpty(i: u32): void {
  store<u8>(X87_TAGS, (load<u8>(X87_TAGS) as u32) & ~(1 << physical(i)));
}

/** Adds to TOP. */
export function rotate(by: i32): void {
  const fsw = load<u16>(X87_FSW) as u32;
  store<u16>(X87_FSW, (fsw & ~TOP_MASK) | ((fsw + ((by as u32) * TOP_UNIT)) & TOP_MASK));
}

export function pop(): void {
  setEmpty(0);
  rotate(1);
}

/** Sets the condition codes of `mask` to those in `bits`. */
export function setConditions(mask: u32, bits: u32): void {
  store<u16>(X87_FSW, ((load<u16>(X87_FSW) as u32) & ~mask) | bits);
}

/** Sets exceptions' flags; true if one of them is not masked, and so pending from now on. */
export function signal(exceptions: u32): bool {
  let fsw = (load<u16>(X87_FSW) as u32) | exceptions;
  const unmasked = (exceptions & ~(load<u16>(X87_FCW) as u32) & 0x3f) != 0;
  if (unmasked) fsw |= FSW_ES | FSW_BUSY;
  store<u16>(X87_FSW, fsw);
  return unmasked;
}

/** Sets or clears ES after the masks or the flags have changed as a whole. */
export function updateSummary(): void {
  const fsw = load<u16>(X87_FSW) as u32;
  const pending = (fsw & ~(load<u16>(X87_FCW) as u32) & 0x3f) != 0;
  const summary = FSW_ES | FSW_BUSY;
  store<u16>(X87_FSW, pending ? fsw | summary : fsw & ~summary);
}

/** An operand is in an empty register, or a push has none; false if the exception is masked. */
export function stackFault(overflow: bool): bool {
  setConditions(C1, overflow ? C1 : 0);
  return signal(INVALID | FSW_SF);
}
