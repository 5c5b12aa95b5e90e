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
