// MMX and SSE: the entry for the dispatch loop, the checks before an operand is touched, and what MMX
// does to the x87 registers that it shares.
import { CR0, CR4 } from "./layout";
import { raise, VECTOR_NM, VECTOR_UD } from "./fault";
import { probeWrite, write8 } from "./memory";
import { simdFloat } from "./simd_float";
import { simdInteger } from "./simd_integer";
import {
  FIRST_FLOAT,
  FORM_HANDLER,
  FORM_MM_DESTINATION,
  FORM_MM_SOURCE,
  FORM_MMX,
  FORM_UNCHECKED,
} from "./simd_table";
import { checkPending, X87_FSW, X87_TAGS } from "./x87_state";

const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;
const CR4_OSFXSR: u64 = 1 << 9;

/** Where an MMX operand is while it is computed with, in 16 bytes like an SSE operand. */
const MM_DESTINATION: usize = memory.data(16, 16);
const MM_SOURCE: usize = memory.data(16, 16);

/** Raises #UD or #NM where the present mode has no SSE (SDM 3A, table 13-1), or MMX (table 12-1). */
export function checkSimd(form: u32): void {
  if ((form & FORM_UNCHECKED) != 0) return;
  const cr0 = load<u64>(CR0);
  if ((cr0 & CR0_EM) != 0) raise(VECTOR_UD, 0);
  if ((form & FORM_MMX) == 0) {
    if ((load<u64>(CR4) & CR4_OSFXSR) == 0) raise(VECTOR_UD, 0);
    if ((cr0 & CR0_TS) != 0) raise(VECTOR_NM, 0);
    return;
  }
  if ((cr0 & CR0_TS) != 0) raise(VECTOR_NM, 0);
  checkPending();
}

/** Like checkSimd() for instructions of SSE that have no form word. */
export function checkSse(): void {
  checkSimd(0);
}

/** The x87 registers become those of MMX: TOP is 0, all are in use (SDM 1, 9.5.1). */
function enterMmx(): void {
  store<u16>(X87_FSW, load<u16>(X87_FSW) & ~0x3800);
  store<u8>(X87_TAGS, 0xff);
}

/** EMMS: all x87 registers are free. */
export function emms(): void {
  checkSimd(FORM_MMX);
  enterMmx();
  store<u8>(X87_TAGS, 0);
}

function execute(form: u32, dst: usize, src: usize, imm: u32): u32 {
  const handler = form & FORM_HANDLER;
  return handler < FIRST_FLOAT
    ? simdInteger(handler, dst, src, imm)
    : simdFloat(handler, dst, src, imm);
}

/** Executes a form; see simd_instructions.ts for the operands' sizes. */
export function simd(form: u32, dst: usize, src: usize, imm: u32): u32 {
  if ((form & FORM_MMX) == 0) return execute(form, dst, src, imm);
  let from = src;
  let to = dst;
  if ((form & FORM_MM_SOURCE) != 0) {
    from = MM_SOURCE;
    v128.store(from, v128.load64_zero(src));
  }
  if ((form & FORM_MM_DESTINATION) != 0) {
    to = MM_DESTINATION;
    v128.store(to, v128.load64_zero(dst));
  }
  // Also where it raises #XM.
  enterMmx();
  const result = execute(form, to, from, imm);
  if ((form & FORM_MM_DESTINATION) != 0) {
    store<u64>(dst, load<u64>(to));
    // Sign and exponent of a register that MMX writes become ones (SDM 1, 9.2.3).
    store<u16>(dst, 0xffff, 8);
  }
  return result;
}

/** MASKMOVQ, MASKMOVDQU: stores the bytes of `src` that `mask` has bit 7 of set for. */
export function maskMove(form: u32, linear: u64, src: usize, mask: usize): void {
  const bytes: u32 = (form & FORM_MMX) != 0 ? 8 : 16;
  for (let i: u32 = 0; i < bytes; i++) {
    if ((load<u8>(mask + i) & 0x80) != 0) probeWrite(linear + i, 1);
  }
  if (bytes == 8) enterMmx();
  for (let i: u32 = 0; i < bytes; i++) {
    if ((load<u8>(mask + i) & 0x80) != 0) write8(linear + i, load<u8>(src + i));
  }
}
