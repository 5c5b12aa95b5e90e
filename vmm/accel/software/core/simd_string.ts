// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM 1, section 12.11; SDM 2, section 4.1).
import { FXSAVE, GPR } from "./layout";
import { Simd } from "./simd_table";

const RAX: usize = GPR;
const RCX: usize = GPR + 8;
const RDX: usize = GPR + 16;
const XMM0: usize = FXSAVE + 160;

const CF: u32 = 1;
const ZF: u32 = 0x40;
const SF: u32 = 0x80;
const OF: u32 = 0x800;

// Bits of the immediate.
const WORDS: u32 = 1;
const SIGNED: u32 = 2;
const MOST_SIGNIFICANT: u32 = 0x40;
const EXPAND: u32 = 0x40;

/** Copies of the operands: XMM0 may be one of them. */
const A: usize = memory.data(16, 16);
const B: usize = memory.data(16, 16);

function element(at: usize, i: u32, imm: u32): i32 {
  if ((imm & WORDS) != 0) {
    return (imm & SIGNED) != 0 ? (load<i16>(at + (i << 1)) as i32) : (load<u16>(at + (i << 1)) as i32);
  }
  return (imm & SIGNED) != 0 ? (load<i8>(at + i) as i32) : (load<u8>(at + i) as i32);
}

/** How many elements come before the first that is 0. */
function implicitLength(at: usize, imm: u32, count: u32): u32 {
  for (let i: u32 = 0; i < count; i++) {
    if (element(at, i, imm) == 0) return i;
  }
  return count;
}

/** The absolute value of a length in a register, not more than `count`. */
function explicitLength(register: usize, wide: bool, count: u32): u32 {
  const value = wide ? load<i64>(register) : (load<i32>(register) as i64);
  const magnitude = (value < 0 ? 0 - value : value) as u64;
  return magnitude > (count as u64) ? count : (magnitude as u32);
}

/** Whether element j of B is one of A's, or in one of A's ranges. */
function isAnyOf(value: i32, lengthA: u32, imm: u32): bool {
  if ((imm & 4) == 0) {
    for (let i: u32 = 0; i < lengthA; i++) {
      if (element(A, i, imm) == value) return true;
    }
    return false;
  }
  for (let i: u32 = 0; i + 1 < lengthA; i += 2) {
    if (element(A, i, imm) <= value && value <= element(A, i + 1, imm)) return true;
  }
  return false;
}

/** Whether A is found in B from element j on, as far as the register goes. */
function isFoundAt(j: u32, lengthA: u32, lengthB: u32, imm: u32, count: u32): bool {
  for (let i: u32 = 0; i < lengthA && i + j < count; i++) {
    if (i + j >= lengthB || element(A, i, imm) != element(B, i + j, imm)) return false;
  }
  return true;
}

/** IntRes1: a bit for each element of B. */
function aggregate(lengthA: u32, lengthB: u32, imm: u32, count: u32): u32 {
  const how = (imm >> 2) & 3;
  let result: u32 = 0;
  for (let j: u32 = 0; j < count; j++) {
    let bit = false;
    if (how < 2) {
      bit = j < lengthB && isAnyOf(element(B, j, imm), lengthA, imm);
    } else if (how == 2) {
      if (j < lengthA && j < lengthB) bit = element(A, j, imm) == element(B, j, imm);
      else bit = j >= lengthA && j >= lengthB;
    } else {
      bit = isFoundAt(j, lengthA, lengthB, imm, count);
    }
    if (bit) result |= 1 << j;
  }
  return result;
}

function storeMask(bits: u32, imm: u32, count: u32): void {
  store<u64>(XMM0, 0);
  store<u64>(XMM0, 0, 8);
  if ((imm & EXPAND) == 0) {
    store<u32>(XMM0, bits);
    return;
  }
  const width = 16 / count;
  for (let i: u32 = 0; i < 16; i++) {
    store<u8>(XMM0 + i, ((bits >> (i / width)) & 1) != 0 ? 0xff : 0);
  }
}

/** Executes one of the four (or their REX.W forms); the result is CF, ZF, SF and OF. */
export function compareStrings(handler: u32, dst: usize, src: usize, imm: u32): u32 {
  v128.store(A, v128.load(dst));
  v128.store(B, v128.load(src));
  const count: u32 = (imm & WORDS) != 0 ? 8 : 16;
  const explicit = handler != Simd.pcmpistrm && handler != Simd.pcmpistri;
  const wide = handler == Simd.pcmpestrm_w || handler == Simd.pcmpestri_w;
  const lengthA = explicit ? explicitLength(RAX, wide, count) : implicitLength(A, imm, count);
  const lengthB = explicit ? explicitLength(RDX, wide, count) : implicitLength(B, imm, count);
  let bits = aggregate(lengthA, lengthB, imm, count);
  if ((imm & 0x10) != 0) {
    const covered = (imm & 0x20) != 0 ? lengthB : count;
    bits ^= (1 << covered) - 1;
  }
  if (
    handler == Simd.pcmpestrm || handler == Simd.pcmpestrm_w || handler == Simd.pcmpistrm
  ) {
    storeMask(bits, imm, count);
  } else {
    let index = count;
    if (bits != 0) index = (imm & MOST_SIGNIFICANT) != 0 ? 31 - clz(bits) : ctz(bits);
    store<u64>(RCX, index as u64);
  }
  return (bits != 0 ? CF : 0) | (lengthB < count ? ZF : 0) | (lengthA < count ? SF : 0) |
    ((bits & 1) != 0 ? OF : 0);
}
