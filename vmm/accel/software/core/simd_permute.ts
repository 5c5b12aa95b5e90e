// MMX and SSE: what moves bytes, words and doublewords about.
import { Simd } from "./simd_table";

/** 48 bytes for shuffles by byte addresses. */
const SCRATCH: usize = memory.data(48, 16);

/** 16 bytes out of `low`, `high` and zeros after them, from byte `start` on. */
function window(low: v128, high: v128, start: u32): v128 {
  if (start > 31) return i64x2.splat(0);
  v128.store(SCRATCH, low);
  v128.store(SCRATCH, high, 16);
  v128.store(SCRATCH, i64x2.splat(0), 32);
  return v128.load(SCRATCH + start);
}

/** Four words (from word `first` on) by two bits of `imm` each; the others as they are. */
function shuffleFourWords(b: v128, first: usize, imm: u32): v128 {
  v128.store(SCRATCH, b);
  v128.store(SCRATCH, b, 16);
  for (let i: usize = 0; i < 4; i++) {
    const from = first + ((imm >> ((i as u32) << 1)) & 3);
    store<u16>(SCRATCH + ((first + i) << 1), load<u16>(SCRATCH + (from << 1), 16), 0);
  }
  return v128.load(SCRATCH);
}

/** Doublewords by two bits of `imm` each: the lower two out of a, the others out of b. */
function shuffleDwords(a: v128, b: v128, imm: u32): v128 {
  v128.store(SCRATCH, a);
  v128.store(SCRATCH, b, 16);
  return i32x4(
    load<i32>(SCRATCH + ((imm & 3) << 2)),
    load<i32>(SCRATCH + (((imm >> 2) & 3) << 2)),
    load<i32>(SCRATCH + (((imm >> 4) & 3) << 2), 16),
    load<i32>(SCRATCH + (((imm >> 6) & 3) << 2), 16),
  );
}

/** A mask with all ones in the lanes of `width` bytes whose bit of `imm` is set. */
function laneMask(imm: u32, width: u32): v128 {
  for (let i: u32 = 0; i < 16; i++) {
    store<u8>(SCRATCH + i, ((imm >> (i / width)) & 1) != 0 ? 0xff : 0);
  }
  return v128.load(SCRATCH);
}

/** One lane of `width` bytes (a power of two) replaced by what is at `src`. */
function insertLane(a: v128, lane: u32, width: u32, src: usize): v128 {
  v128.store(SCRATCH, a);
  memory.copy(SCRATCH + lane * width, src, width);
  return v128.load(SCRATCH);
}

/** INSERTPS: imm has the destination in bits 4 and 5 and which lanes become zero in bits 0 to 3. */
function insertSingle(a: v128, src: usize, imm: u32): v128 {
  const inserted = insertLane(a, (imm >> 4) & 3, 4, src);
  return v128.andnot(inserted, laneMask(imm, 4));
}

/** PHMINPOSUW: the least word and its place. */
function leastWord(b: v128): v128 {
  v128.store(SCRATCH, b);
  let place: u32 = 0;
  for (let i: u32 = 1; i < 8; i++) {
    if (load<u16>(SCRATCH + (i << 1)) < load<u16>(SCRATCH + (place << 1))) place = i;
  }
  return i64x2((load<u16>(SCRATCH + (place << 1)) as i64) | ((place as i64) << 16), 0);
}

/** MPSADBW: four bytes of b against eight windows of a. */
function sumsOfFour(a: v128, b: v128, imm: u32): v128 {
  v128.store(SCRATCH, a);
  v128.store(SCRATCH, b, 16);
  const left = SCRATCH + (imm & 4);
  const right = SCRATCH + 16 + ((imm & 3) << 2);
  const four = v128.load32_splat(right);
  let sums = i64x2.splat(0);
  for (let i: u32 = 0; i < 8; i++) {
    let sum: u32 = 0;
    for (let j: u32 = 0; j < 4; j++) {
      const x: i32 = load<u8>(left + i + j);
      const y: i32 = (i32x4.extract_lane(four, 0) >> (j << 3)) & 0xff;
      sum += abs(x - y);
    }
    const mask = i16x8.eq(i16x8(0, 1, 2, 3, 4, 5, 6, 7), i16x8.splat(i as i16));
    sums = v128.or(sums, v128.and(i16x8.splat(sum as i16), mask));
  }
  return sums;
}

/** Executes a handler on its operands' values; `src` is for those that read less than 16 bytes. */
export function simdPermute(h: u32, a: v128, b: v128, src: usize, imm: u32): v128 {
  switch (h) {
    case Simd.punpcklbw:
      // deno-fmt-ignore
      return v128.shuffle<i8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    case Simd.punpcklwd:
      return v128.shuffle<i16>(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    case Simd.punpckldq:
      return v128.shuffle<i32>(a, b, 0, 4, 1, 5);
    case Simd.punpcklqdq:
      return v128.shuffle<i64>(a, b, 0, 2);
    case Simd.punpckhbw:
      // deno-fmt-ignore
      return v128.shuffle<i8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    case Simd.punpckhwd:
      return v128.shuffle<i16>(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    case Simd.punpckhdq:
      return v128.shuffle<i32>(a, b, 2, 6, 3, 7);
    case Simd.punpckhqdq:
      return v128.shuffle<i64>(a, b, 1, 3);
    case Simd.punpckhbw_mmx:
      // deno-fmt-ignore
      return v128.shuffle<i8>(a, b, 4, 20, 5, 21, 6, 22, 7, 23, 4, 20, 5, 21, 6, 22, 7, 23);
    case Simd.punpckhwd_mmx:
      return v128.shuffle<i16>(a, b, 2, 10, 3, 11, 2, 10, 3, 11);
    case Simd.punpckhdq_mmx:
      return v128.shuffle<i32>(a, b, 1, 5, 1, 5);
    case Simd.packsswb:
      return i8x16.narrow_i16x8_s(a, b);
    case Simd.packuswb:
      return i8x16.narrow_i16x8_u(a, b);
    case Simd.packssdw:
      return i16x8.narrow_i32x4_s(a, b);
    case Simd.packusdw:
      return i16x8.narrow_i32x4_u(a, b);
    case Simd.packsswb_mmx:
      b = v128.shuffle<i64>(a, b, 0, 2);
      return i8x16.narrow_i16x8_s(b, b);
    case Simd.packuswb_mmx:
      b = v128.shuffle<i64>(a, b, 0, 2);
      return i8x16.narrow_i16x8_u(b, b);
    case Simd.packssdw_mmx:
      b = v128.shuffle<i64>(a, b, 0, 2);
      return i16x8.narrow_i32x4_s(b, b);
    case Simd.movsldup:
      return v128.shuffle<i32>(b, b, 0, 0, 2, 2);
    case Simd.movshdup:
      return v128.shuffle<i32>(b, b, 1, 1, 3, 3);
    case Simd.movddup:
      return v128.shuffle<i64>(b, b, 0, 0);
    case Simd.pshufb:
      return i8x16.swizzle(a, v128.and(b, i8x16.splat(-113)));
    case Simd.pshufb_mmx:
      return i8x16.swizzle(a, v128.and(b, i8x16.splat(-121)));
    case Simd.pshufd:
      return shuffleDwords(b, b, imm);
    case Simd.pshuflw:
      return shuffleFourWords(b, 0, imm);
    case Simd.pshufhw:
      return shuffleFourWords(b, 4, imm);
    case Simd.shufps:
      return shuffleDwords(a, b, imm);
    case Simd.shufpd: {
      const low = (imm & 1) != 0 ? i64x2.extract_lane(a, 1) : i64x2.extract_lane(a, 0);
      return i64x2(low, (imm & 2) != 0 ? i64x2.extract_lane(b, 1) : i64x2.extract_lane(b, 0));
    }
    case Simd.palignr:
      return window(b, a, imm);
    case Simd.palignr_mmx:
      return window(v128.shuffle<i64>(b, a, 0, 2), i64x2.splat(0), imm);
    case Simd.psrldq:
      return window(a, i64x2.splat(0), imm);
    case Simd.pslldq:
      return window(i64x2.splat(0), a, 16 - min<u32>(imm, 16));
    case Simd.blendps:
      return v128.bitselect(b, a, laneMask(imm, 4));
    case Simd.blendpd:
      return v128.bitselect(b, a, laneMask(imm, 8));
    case Simd.pblendw:
      return v128.bitselect(b, a, laneMask(imm, 2));
    case Simd.pinsrb:
      return insertLane(a, imm & 15, 1, src);
    case Simd.pinsrw:
      return insertLane(a, imm & 7, 2, src);
    case Simd.pinsrd:
      return insertLane(a, imm & 3, 4, src);
    case Simd.pinsrq:
      return insertLane(a, imm & 1, 8, src);
    case Simd.insertps:
      return insertSingle(a, src + ((imm >> 6) << 2), imm);
    case Simd.insertps_m:
      return insertSingle(a, src, imm);
    case Simd.phminposuw:
      return leastWord(b);
    case Simd.mpsadbw:
      return sumsOfFour(a, b, imm);
    default:
      unreachable();
      return a;
  }
}
