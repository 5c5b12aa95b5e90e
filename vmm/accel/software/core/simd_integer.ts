// MMX and SSE without floating point: moves, shuffles, integer arithmetic.
//
// MMX forms come here with their 8 bytes in the low half of 16 (see simd.ts); most need nothing of their
// own. A handler reads both operands before it writes, since they may be the same register.
import { FXSAVE } from "./layout";
import { simdPermute } from "./simd_permute";
import { compareStrings } from "./simd_string";
import { Simd } from "./simd_table";

const CF: u32 = 1;
const ZF: u32 = 0x40;

/** The implicit mask of the variable blends. */
const XMM0: usize = FXSAVE + 160;

const WORD_OVER: v128 = i32x4.splat(0x4000);

/** Per lane 0 where a shift count is the lane's width or more; WASM takes counts modulo the width. */
function shiftWords(a: v128, count: u64, kind: u32): v128 {
  if (count > 15) return kind == 1 ? i16x8.shr_s(a, 15) : i64x2.splat(0);
  if (kind == 0) return i16x8.shr_u(a, count as i32);
  return kind == 1 ? i16x8.shr_s(a, count as i32) : i16x8.shl(a, count as i32);
}

function shiftDwords(a: v128, count: u64, kind: u32): v128 {
  if (count > 31) return kind == 1 ? i32x4.shr_s(a, 31) : i64x2.splat(0);
  if (kind == 0) return i32x4.shr_u(a, count as i32);
  return kind == 1 ? i32x4.shr_s(a, count as i32) : i32x4.shl(a, count as i32);
}

function shiftQwords(a: v128, count: u64, left: bool): v128 {
  if (count > 63) return i64x2.splat(0);
  return left ? i64x2.shl(a, count as i32) : i64x2.shr_u(a, count as i32);
}

/** The high words of the products of words. */
function highWords(low: v128, high: v128): v128 {
  return v128.shuffle<i16>(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
}

function multiplyRounded(a: v128, b: v128): v128 {
  const low = i32x4.add(i32x4.extmul_low_i16x8_s(a, b), WORD_OVER);
  const high = i32x4.add(i32x4.extmul_high_i16x8_s(a, b), WORD_OVER);
  return v128.shuffle<i16>(
    i32x4.shr_u(low, 15),
    i32x4.shr_u(high, 15),
    0,
    2,
    4,
    6,
    8,
    10,
    12,
    14,
  );
}

/** Unsigned bytes of a by signed bytes of b, neighbours added with saturation. */
function multiplyBytes(a: v128, b: v128): v128 {
  const even = i16x8.mul(v128.and(a, i16x8.splat(0xff)), i16x8.shr_s(i16x8.shl(b, 8), 8));
  return i16x8.add_sat_s(even, i16x8.mul(i16x8.shr_u(a, 8), i16x8.shr_s(b, 8)));
}

/** Sums of the absolute differences of eight bytes each. */
function sumDifferences(a: v128, b: v128): v128 {
  const difference = i8x16.sub(i8x16.max_u(a, b), i8x16.min_u(a, b));
  const sums = i32x4.extadd_pairwise_i16x8_u(i16x8.extadd_pairwise_i8x16_u(difference));
  const odd = i64x2.shr_u(sums, 32);
  return i64x2.add(v128.and(sums, i64x2.splat(0xffffffff)), odd);
}

function multiplyEven(a: v128, b: v128): v128 {
  const mask = i64x2.splat(0xffffffff);
  return i64x2.mul(v128.and(a, mask), v128.and(b, mask));
}

function multiplyEvenSigned(a: v128, b: v128): v128 {
  return i64x2.extmul_low_i32x4_s(
    v128.shuffle<i32>(a, a, 0, 2, 0, 2),
    v128.shuffle<i32>(b, b, 0, 2, 0, 2),
  );
}

/** (a ^ m) - m is -a where m is all ones; and 0 where b is. */
function signBytes(a: v128, b: v128): v128 {
  const m = i8x16.shr_s(b, 7);
  return v128.and(i8x16.sub(v128.xor(a, m), m), i8x16.ne(b, i64x2.splat(0)));
}
function signWords(a: v128, b: v128): v128 {
  const m = i16x8.shr_s(b, 15);
  return v128.and(i16x8.sub(v128.xor(a, m), m), i16x8.ne(b, i64x2.splat(0)));
}
function signDwords(a: v128, b: v128): v128 {
  const m = i32x4.shr_s(b, 31);
  return v128.and(i32x4.sub(v128.xor(a, m), m), i32x4.ne(b, i64x2.splat(0)));
}

/** Places of eight neighbours' first and second for the horizontal operations. */
function evenWords(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
}
function oddWords(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}
function evenWordsMmx(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 0, 2, 8, 10, 0, 2, 8, 10);
}
function oddWordsMmx(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 1, 3, 9, 11, 1, 3, 9, 11);
}
function evenDwords(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 0, 2, 4, 6);
}
function oddDwords(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 1, 3, 5, 7);
}
function evenDwordsMmx(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 0, 4, 0, 4);
}
function oddDwordsMmx(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 1, 5, 1, 5);
}

/** Executes a handler; the result is RFLAGS' bits for those that give them. */
export function simdInteger(handler: u32, dst: usize, src: usize, imm: u32): u32 {
  // The moves of fewer bytes than 16, and those to general registers and memory.
  switch (handler) {
    case Simd.mov4:
      store<u32>(dst, load<u32>(src));
      return 0;
    case Simd.mov8:
      store<u64>(dst, load<u64>(src));
      return 0;
    case Simd.movhlps:
    case Simd.storehigh:
      store<u64>(dst, load<u64>(src, 8));
      return 0;
    case Simd.storedword:
      store<u64>(dst, load<u32>(src));
      return 0;
    case Simd.movmskps:
      store<u64>(dst, i32x4.bitmask(v128.load(src)) as u64);
      return 0;
    case Simd.movmskpd:
      store<u64>(dst, i64x2.bitmask(v128.load(src)) as u64);
      return 0;
    case Simd.pmovmskb:
      store<u64>(dst, i8x16.bitmask(v128.load(src)) as u64);
      return 0;
    case Simd.pextrw_mmx:
      store<u64>(dst, load<u16>(src + ((imm & 3) << 1)));
      return 0;
    case Simd.pextrw:
      store<u64>(dst, load<u16>(src + ((imm & 7) << 1)));
      return 0;
    case Simd.pextrb:
      store<u64>(dst, load<u8>(src + (imm & 15)));
      return 0;
    case Simd.pextrd:
      store<u64>(dst, load<u32>(src + ((imm & 3) << 2)));
      return 0;
    case Simd.pextrq:
      store<u64>(dst, load<u64>(src + ((imm & 1) << 3)));
      return 0;
    case Simd.ptest: {
      const a = v128.load(dst);
      const b = v128.load(src);
      const zero: u32 = v128.any_true(v128.and(a, b)) ? 0 : ZF;
      return zero | (v128.any_true(v128.andnot(b, a)) ? 0 : CF);
    }
    case Simd.pcmpestrm:
    case Simd.pcmpestrm_w:
    case Simd.pcmpestri:
    case Simd.pcmpestri_w:
    case Simd.pcmpistrm:
    case Simd.pcmpistri:
      return compareStrings(handler, dst, src, imm);
    default:
      v128.store(dst, value(handler, dst, src, imm));
      return 0;
  }
}

/** The 16 bytes that a handler writes. */
function value(handler: u32, dst: usize, src: usize, imm: u32): v128 {
  const a = v128.load(dst);
  switch (handler) {
    case Simd.mov16:
      return v128.load(src);
    case Simd.movd:
      return v128.load32_zero(src);
    case Simd.movq:
      return v128.load64_zero(src);
    case Simd.pinsrw_mmx:
      return insertWord(a, imm & 3, load<u16>(src));
    case Simd.psrlw_i:
      return shiftWords(a, imm, 0);
    case Simd.psraw_i:
      return shiftWords(a, imm, 1);
    case Simd.psllw_i:
      return shiftWords(a, imm, 2);
    case Simd.psrld_i:
      return shiftDwords(a, imm, 0);
    case Simd.psrad_i:
      return shiftDwords(a, imm, 1);
    case Simd.pslld_i:
      return shiftDwords(a, imm, 2);
    case Simd.psrlq_i:
      return shiftQwords(a, imm, false);
    case Simd.psllq_i:
      return shiftQwords(a, imm, true);
    case Simd.psrlw:
      return shiftWords(a, load<u64>(src), 0);
    case Simd.psraw:
      return shiftWords(a, load<u64>(src), 1);
    case Simd.psllw:
      return shiftWords(a, load<u64>(src), 2);
    case Simd.psrld:
      return shiftDwords(a, load<u64>(src), 0);
    case Simd.psrad:
      return shiftDwords(a, load<u64>(src), 1);
    case Simd.pslld:
      return shiftDwords(a, load<u64>(src), 2);
    case Simd.psrlq:
      return shiftQwords(a, load<u64>(src), false);
    case Simd.psllq:
      return shiftQwords(a, load<u64>(src), true);
    case Simd.pmovsxbw:
      return i16x8.extend_low_i8x16_s(v128.load64_zero(src));
    case Simd.pmovsxbd:
      return i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(src)));
    case Simd.pmovsxbq:
      return i64x2(load<i8>(src) as i64, load<i8>(src, 1) as i64);
    case Simd.pmovsxwd:
      return i32x4.extend_low_i16x8_s(v128.load64_zero(src));
    case Simd.pmovsxwq:
      return i64x2(load<i16>(src) as i64, load<i16>(src, 2) as i64);
    case Simd.pmovsxdq:
      return i64x2.extend_low_i32x4_s(v128.load64_zero(src));
    case Simd.pmovzxbw:
      return i16x8.extend_low_i8x16_u(v128.load64_zero(src));
    case Simd.pmovzxbd:
      return i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(src)));
    case Simd.pmovzxbq:
      return i64x2(load<u8>(src) as i64, load<u8>(src, 1) as i64);
    case Simd.pmovzxwd:
      return i32x4.extend_low_i16x8_u(v128.load64_zero(src));
    case Simd.pmovzxwq:
      return i64x2(load<u16>(src) as i64, load<u16>(src, 2) as i64);
    case Simd.pmovzxdq:
      return i64x2.extend_low_i32x4_u(v128.load64_zero(src));
    default:
      return arithmetic(handler, a, v128.load(src), dst, src, imm);
  }
}

function insertWord(a: v128, lane: u32, word: u16): v128 {
  const mask = i16x8.eq(i16x8(0, 1, 2, 3, 4, 5, 6, 7), i16x8.splat(lane as i16));
  return v128.bitselect(i16x8.splat(word), a, mask);
}

/** What is computed from two times 16 bytes. */
function arithmetic(h: u32, a: v128, b: v128, dst: usize, src: usize, imm: u32): v128 {
  switch (h) {
    case Simd.pand:
      return v128.and(a, b);
    case Simd.pandn:
      return v128.andnot(b, a);
    case Simd.por:
      return v128.or(a, b);
    case Simd.pxor:
      return v128.xor(a, b);
    case Simd.pcmpeqb:
      return i8x16.eq(a, b);
    case Simd.pcmpeqw:
      return i16x8.eq(a, b);
    case Simd.pcmpeqd:
      return i32x4.eq(a, b);
    case Simd.pcmpeqq:
      return i64x2.eq(a, b);
    case Simd.pcmpgtb:
      return i8x16.gt_s(a, b);
    case Simd.pcmpgtw:
      return i16x8.gt_s(a, b);
    case Simd.pcmpgtd:
      return i32x4.gt_s(a, b);
    case Simd.pcmpgtq:
      return i64x2.gt_s(a, b);
    case Simd.paddb:
      return i8x16.add(a, b);
    case Simd.paddw:
      return i16x8.add(a, b);
    case Simd.paddd:
      return i32x4.add(a, b);
    case Simd.paddq:
      return i64x2.add(a, b);
    case Simd.psubb:
      return i8x16.sub(a, b);
    case Simd.psubw:
      return i16x8.sub(a, b);
    case Simd.psubd:
      return i32x4.sub(a, b);
    case Simd.psubq:
      return i64x2.sub(a, b);
    case Simd.paddsb:
      return i8x16.add_sat_s(a, b);
    case Simd.paddsw:
      return i16x8.add_sat_s(a, b);
    case Simd.paddusb:
      return i8x16.add_sat_u(a, b);
    case Simd.paddusw:
      return i16x8.add_sat_u(a, b);
    case Simd.psubsb:
      return i8x16.sub_sat_s(a, b);
    case Simd.psubsw:
      return i16x8.sub_sat_s(a, b);
    case Simd.psubusb:
      return i8x16.sub_sat_u(a, b);
    case Simd.psubusw:
      return i16x8.sub_sat_u(a, b);
    case Simd.pminub:
      return i8x16.min_u(a, b);
    case Simd.pmaxub:
      return i8x16.max_u(a, b);
    case Simd.pminsb:
      return i8x16.min_s(a, b);
    case Simd.pmaxsb:
      return i8x16.max_s(a, b);
    case Simd.pminsw:
      return i16x8.min_s(a, b);
    case Simd.pmaxsw:
      return i16x8.max_s(a, b);
    case Simd.pminuw:
      return i16x8.min_u(a, b);
    case Simd.pmaxuw:
      return i16x8.max_u(a, b);
    case Simd.pminsd:
      return i32x4.min_s(a, b);
    case Simd.pmaxsd:
      return i32x4.max_s(a, b);
    case Simd.pminud:
      return i32x4.min_u(a, b);
    case Simd.pmaxud:
      return i32x4.max_u(a, b);
    case Simd.pavgb:
      return i8x16.avgr_u(a, b);
    case Simd.pavgw:
      return i16x8.avgr_u(a, b);
    case Simd.pmullw:
      return i16x8.mul(a, b);
    case Simd.pmulld:
      return i32x4.mul(a, b);
    case Simd.pmulhw:
      return highWords(i32x4.extmul_low_i16x8_s(a, b), i32x4.extmul_high_i16x8_s(a, b));
    case Simd.pmulhuw:
      return highWords(i32x4.extmul_low_i16x8_u(a, b), i32x4.extmul_high_i16x8_u(a, b));
    case Simd.pmulhrsw:
      return multiplyRounded(a, b);
    case Simd.pmaddubsw:
      return multiplyBytes(a, b);
    case Simd.pmaddwd:
      return i32x4.dot_i16x8_s(a, b);
    case Simd.pmuludq:
      return multiplyEven(a, b);
    case Simd.pmuldq:
      return multiplyEvenSigned(a, b);
    case Simd.psadbw:
      return sumDifferences(a, b);
    case Simd.phaddw:
      return i16x8.add(evenWords(a, b), oddWords(a, b));
    case Simd.phaddsw:
      return i16x8.add_sat_s(evenWords(a, b), oddWords(a, b));
    case Simd.phsubw:
      return i16x8.sub(evenWords(a, b), oddWords(a, b));
    case Simd.phsubsw:
      return i16x8.sub_sat_s(evenWords(a, b), oddWords(a, b));
    case Simd.phaddd:
      return i32x4.add(evenDwords(a, b), oddDwords(a, b));
    case Simd.phsubd:
      return i32x4.sub(evenDwords(a, b), oddDwords(a, b));
    case Simd.phaddw_mmx:
      return i16x8.add(evenWordsMmx(a, b), oddWordsMmx(a, b));
    case Simd.phaddsw_mmx:
      return i16x8.add_sat_s(evenWordsMmx(a, b), oddWordsMmx(a, b));
    case Simd.phsubw_mmx:
      return i16x8.sub(evenWordsMmx(a, b), oddWordsMmx(a, b));
    case Simd.phsubsw_mmx:
      return i16x8.sub_sat_s(evenWordsMmx(a, b), oddWordsMmx(a, b));
    case Simd.phaddd_mmx:
      return i32x4.add(evenDwordsMmx(a, b), oddDwordsMmx(a, b));
    case Simd.phsubd_mmx:
      return i32x4.sub(evenDwordsMmx(a, b), oddDwordsMmx(a, b));
    case Simd.psignb:
      return signBytes(a, b);
    case Simd.psignw:
      return signWords(a, b);
    case Simd.psignd:
      return signDwords(a, b);
    case Simd.pabsb:
      return i8x16.abs(b);
    case Simd.pabsw:
      return i16x8.abs(b);
    case Simd.pabsd:
      return i32x4.abs(b);
    case Simd.pblendvb:
      return v128.bitselect(b, a, i8x16.shr_s(v128.load(XMM0), 7));
    case Simd.blendvps:
      return v128.bitselect(b, a, i32x4.shr_s(v128.load(XMM0), 31));
    case Simd.blendvpd:
      return v128.bitselect(b, a, i64x2.shr_s(v128.load(XMM0), 63));
    default:
      return simdPermute(h, a, b, src, imm);
  }
}
