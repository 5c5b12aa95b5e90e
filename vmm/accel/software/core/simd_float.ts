// SSE's floating-point instructions: which elements of which operands go through simd_scalar.ts, and what
// becomes of the exceptions.
import { CR4 } from "./layout";
import { raise, VECTOR_UD, VECTOR_XM } from "./fault";
import { flags, masked, setFlags } from "./softfloat";
import { approximateReciprocal, approximateRoot } from "./simd_approximate";
import {
  ADD,
  begin,
  compareDoubles,
  compareSingles,
  DIV,
  double,
  doubleToInteger,
  doubleToSingle,
  integerToDouble,
  integerToSingle,
  MAX,
  MIN,
  MUL,
  roundDoubleToWhole,
  roundSingleToWhole,
  single,
  singleToDouble,
  singleToInteger,
  SQRT,
  SUB,
  UNORDERED,
} from "./simd_scalar";
import { Simd } from "./simd_table";
import { MXCSR } from "./x87_state";

const CR4_OSXMMEXCPT: u64 = 1 << 10;

const CF: u32 = 1;
const PF: u32 = 4;
const ZF: u32 = 0x40;

/** The result until it is known that it may be written. */
const OUT: usize = memory.data(16, 16);
const SUMS: usize = memory.data(16, 16);

/** Sets MXCSR's flags; raises #XM (or without CR4.OSXMMEXCPT #UD) for one that is not masked. */
function commit(): void {
  if (flags == 0) return;
  const unmasked = flags & ~masked;
  // Before a result is computed all elements are looked at for invalid, denormal and divide-by-zero
  // (SDM 1, 11.5.3): one of these leaves no flags of results.
  const seen = (unmasked & 7) != 0 ? flags & 7 : flags;
  store<u32>(MXCSR, load<u32>(MXCSR) | seen);
  if (unmasked != 0) {
    raise((load<u64>(CR4) & CR4_OSXMMEXCPT) != 0 ? VECTOR_XM : VECTOR_UD, 0);
  }
}

function singles(op: u32, dst: usize, src: usize, count: usize): void {
  for (let i: usize = 0; i < count << 2; i += 4) {
    store<u32>(OUT + i, single(op, load<u32>(dst + i), load<u32>(src + i)));
  }
}

function doubles(op: u32, dst: usize, src: usize, count: usize): void {
  for (let i: usize = 0; i < count << 3; i += 8) {
    store<u64>(OUT + i, double(op, load<u64>(dst + i), load<u64>(src + i)));
  }
}

/** Whether a comparison has the outcome that the low three bits of CMPxx's immediate ask for. */
function satisfies(predicate: u32, outcome: i32): bool {
  let result = false;
  switch (predicate & 3) {
    case 0:
      result = outcome == 0;
      break;
    case 1:
      result = outcome == -1;
      break;
    case 2:
      result = outcome == -1 || outcome == 0;
      break;
    default:
      result = outcome == UNORDERED;
  }
  return (predicate & 4) != 0 ? !result : result;
}

/** Equality and order are asked without an exception for quiet NaNs, less and not less with one. */
function isQuiet(predicate: u32): bool {
  return (predicate & 3) == 0 || (predicate & 3) == 3;
}

function compareEachSingle(dst: usize, src: usize, count: usize, imm: u32): void {
  for (let i: usize = 0; i < count << 2; i += 4) {
    const outcome = compareSingles(load<u32>(dst + i), load<u32>(src + i), isQuiet(imm));
    store<u32>(OUT + i, satisfies(imm, outcome) ? 0xffffffff : 0);
  }
}

function compareEachDouble(dst: usize, src: usize, count: usize, imm: u32): void {
  for (let i: usize = 0; i < count << 3; i += 8) {
    const outcome = compareDoubles(load<u64>(dst + i), load<u64>(src + i), isQuiet(imm));
    store<u64>(OUT + i, satisfies(imm, outcome) ? ~(0 as u64) : 0);
  }
}

function comparisonFlags(outcome: i32): u32 {
  if (outcome == UNORDERED) return ZF | PF | CF;
  return outcome == 0 ? ZF : outcome < 0 ? CF : 0;
}

/** Neighbours of dst, then of src. */
function horizontalSingles(op: u32, dst: usize, src: usize): void {
  store<u32>(OUT, single(op, load<u32>(dst), load<u32>(dst, 4)));
  store<u32>(OUT, single(op, load<u32>(dst, 8), load<u32>(dst, 12)), 4);
  store<u32>(OUT, single(op, load<u32>(src), load<u32>(src, 4)), 8);
  store<u32>(OUT, single(op, load<u32>(src, 8), load<u32>(src, 12)), 12);
}

function horizontalDoubles(op: u32, dst: usize, src: usize): void {
  store<u64>(OUT, double(op, load<u64>(dst), load<u64>(dst, 8)));
  store<u64>(OUT, double(op, load<u64>(src), load<u64>(src, 8)), 8);
}

/** The end of one of the operations that an instruction consists of: each raises exceptions on its own. */
function endStage(): void {
  commit();
  setFlags(0);
}

/**
 * The selected products, +0 for others, added in pairs; stored where the immediate says. The order of the
 * operands decides which of two NaNs a place of the result gets.
 */
function dotSingles(dst: usize, src: usize, imm: u32): void {
  for (let i: u32 = 0; i < 4; i++) {
    const at: usize = i << 2;
    const selected = ((imm >> (4 + i)) & 1) != 0;
    store<u32>(OUT + at, selected ? single(MUL, load<u32>(dst + at), load<u32>(src + at)) : 0);
  }
  endStage();
  for (let i: u32 = 0; i < 4; i++) {
    const sum = single(ADD, load<u32>(OUT + ((i ^ 1) << 2)), load<u32>(OUT + (i << 2)));
    store<u32>(SUMS + (i << 2), sum);
  }
  endStage();
  for (let i: u32 = 0; i < 4; i++) {
    const sum = single(ADD, load<u32>(SUMS + (i << 2)), load<u32>(SUMS + ((i ^ 2) << 2)));
    store<u32>(OUT + (i << 2), ((imm >> i) & 1) != 0 ? sum : 0);
  }
}

function dotDoubles(dst: usize, src: usize, imm: u32): void {
  const low: u64 = (imm & 0x10) != 0 ? double(MUL, load<u64>(dst), load<u64>(src)) : 0;
  const high: u64 = (imm & 0x20) != 0 ? double(MUL, load<u64>(dst, 8), load<u64>(src, 8)) : 0;
  endStage();
  const first = double(ADD, low, high);
  const second = double(ADD, high, low);
  store<u64>(OUT, (imm & 1) != 0 ? first : 0);
  store<u64>(OUT, (imm & 2) != 0 ? second : 0, 8);
}

function singlesToIntegers(src: usize, count: usize, truncate: bool): void {
  for (let i: usize = 0; i < count << 2; i += 4) {
    store<u32>(OUT + i, singleToInteger(load<u32>(src + i), truncate, 32) as u32);
  }
}

/** Two doubles to doublewords; the upper half becomes 0. */
function doublesToIntegers(src: usize, truncate: bool): void {
  const low = doubleToInteger(load<u64>(src), truncate, 32) as u32;
  store<u32>(OUT, doubleToInteger(load<u64>(src, 8), truncate, 32) as u32, 4);
  store<u32>(OUT, low);
  store<u64>(OUT, 0, 8);
}

function integersToSingles(src: usize, count: usize): void {
  for (let i: usize = 0; i < count << 2; i += 4) {
    store<u32>(OUT + i, integerToSingle(load<i32>(src + i) as i64));
  }
}

/** Executes a handler; the result is RFLAGS' bits for those that give them. */
export function simdFloat(handler: u32, dst: usize, src: usize, imm: u32): u32 {
  begin(load<u32>(MXCSR));
  switch (handler) {
    case Simd.ucomiss:
    case Simd.comiss: {
      const quiet = handler == Simd.ucomiss;
      const outcome = compareSingles(load<u32>(dst), load<u32>(src), quiet);
      commit();
      return comparisonFlags(outcome);
    }
    case Simd.ucomisd:
    case Simd.comisd: {
      const quiet = handler == Simd.ucomisd;
      const outcome = compareDoubles(load<u64>(dst), load<u64>(src), quiet);
      commit();
      return comparisonFlags(outcome);
    }
    case Simd.cvttss2si:
    case Simd.cvtss2si: {
      const truncate = handler == Simd.cvttss2si;
      const value = singleToInteger(load<u32>(src), truncate, 32) as u32;
      commit();
      store<u64>(dst, value as u64);
      return 0;
    }
    case Simd.cvttss2si_w:
    case Simd.cvtss2si_w: {
      const value = singleToInteger(load<u32>(src), handler == Simd.cvttss2si_w, 64);
      commit();
      store<u64>(dst, value);
      return 0;
    }
    case Simd.cvttsd2si:
    case Simd.cvtsd2si: {
      const truncate = handler == Simd.cvttsd2si;
      const value = doubleToInteger(load<u64>(src), truncate, 32) as u32;
      commit();
      store<u64>(dst, value as u64);
      return 0;
    }
    case Simd.cvttsd2si_w:
    case Simd.cvtsd2si_w: {
      const value = doubleToInteger(load<u64>(src), handler == Simd.cvttsd2si_w, 64);
      commit();
      store<u64>(dst, value);
      return 0;
    }
    default:
      v128.store(OUT, v128.load(dst));
      if (!convert(handler, src)) compute(handler, dst, src, imm);
      commit();
      v128.store(dst, v128.load(OUT));
      return 0;
  }
}

/** The conversions to OUT; false if the handler is none. */
function convert(handler: u32, src: usize): bool {
  switch (handler) {
    case Simd.cvtpi2ps:
      integersToSingles(src, 2);
      return true;
    case Simd.cvtdq2ps:
      integersToSingles(src, 4);
      return true;
    case Simd.cvtdq2pd: {
      const low = load<i32>(src);
      store<u64>(OUT, integerToDouble(load<i32>(src, 4) as i64), 8);
      store<u64>(OUT, integerToDouble(low as i64));
      return true;
    }
    case Simd.cvtsi2ss:
      store<u32>(OUT, integerToSingle(load<i32>(src) as i64));
      return true;
    case Simd.cvtsi2ss_w:
      store<u32>(OUT, integerToSingle(load<i64>(src)));
      return true;
    case Simd.cvtsi2sd:
      store<u64>(OUT, integerToDouble(load<i32>(src) as i64));
      return true;
    case Simd.cvtsi2sd_w:
      store<u64>(OUT, integerToDouble(load<i64>(src)));
      return true;
    case Simd.cvttps2pi:
      singlesToIntegers(src, 2, true);
      return true;
    case Simd.cvtps2pi:
      singlesToIntegers(src, 2, false);
      return true;
    case Simd.cvttps2dq:
      singlesToIntegers(src, 4, true);
      return true;
    case Simd.cvtps2dq:
      singlesToIntegers(src, 4, false);
      return true;
    case Simd.cvttpd2pi:
    case Simd.cvttpd2dq:
      doublesToIntegers(src, true);
      return true;
    case Simd.cvtpd2pi:
    case Simd.cvtpd2dq:
      doublesToIntegers(src, false);
      return true;
    case Simd.cvtps2pd: {
      const low = load<u32>(src);
      store<u64>(OUT, singleToDouble(load<u32>(src, 4)), 8);
      store<u64>(OUT, singleToDouble(low));
      return true;
    }
    case Simd.cvtpd2ps:
      store<u32>(OUT, doubleToSingle(load<u64>(src)));
      store<u32>(OUT, doubleToSingle(load<u64>(src, 8)), 4);
      store<u64>(OUT, 0, 8);
      return true;
    case Simd.cvtss2sd:
      store<u64>(OUT, singleToDouble(load<u32>(src)));
      return true;
    case Simd.cvtsd2ss:
      store<u32>(OUT, doubleToSingle(load<u64>(src)));
      return true;
    default:
      return false;
  }
}

/** The operation of handlers that come as PS, PD, SS, SD in this order in simd_instructions.ts. */
function compute(handler: u32, dst: usize, src: usize, imm: u32): void {
  switch (handler) {
    case Simd.sqrtps:
    case Simd.sqrtpd:
    case Simd.sqrtss:
    case Simd.sqrtsd:
      each(SQRT, handler - Simd.sqrtps, dst, src);
      break;
    case Simd.addps:
    case Simd.addpd:
    case Simd.addss:
    case Simd.addsd:
      each(ADD, handler - Simd.addps, dst, src);
      break;
    case Simd.mulps:
    case Simd.mulpd:
    case Simd.mulss:
    case Simd.mulsd:
      each(MUL, handler - Simd.mulps, dst, src);
      break;
    case Simd.subps:
    case Simd.subpd:
    case Simd.subss:
    case Simd.subsd:
      each(SUB, handler - Simd.subps, dst, src);
      break;
    case Simd.minps:
    case Simd.minpd:
    case Simd.minss:
    case Simd.minsd:
      each(MIN, handler - Simd.minps, dst, src);
      break;
    case Simd.divps:
    case Simd.divpd:
    case Simd.divss:
    case Simd.divsd:
      each(DIV, handler - Simd.divps, dst, src);
      break;
    case Simd.maxps:
    case Simd.maxpd:
    case Simd.maxss:
    case Simd.maxsd:
      each(MAX, handler - Simd.maxps, dst, src);
      break;
    default:
      computeOther(handler, dst, src, imm);
  }
}

/** form: 0 PS, 1 PD, 2 SS, 3 SD */
function each(op: u32, form: u32, dst: usize, src: usize): void {
  if ((form & 1) == 0) singles(op, dst, src, form == 0 ? 4 : 1);
  else doubles(op, dst, src, form == 1 ? 2 : 1);
}

function computeOther(handler: u32, dst: usize, src: usize, imm: u32): void {
  switch (handler) {
    case Simd.rsqrtps:
    case Simd.rsqrtss:
      for (let i: usize = 0; i < (handler == Simd.rsqrtps ? 16 : 4); i += 4) {
        store<u32>(OUT + i, approximateRoot(load<u32>(src + i)));
      }
      break;
    case Simd.rcpps:
    case Simd.rcpss:
      for (let i: usize = 0; i < (handler == Simd.rcpps ? 16 : 4); i += 4) {
        store<u32>(OUT + i, approximateReciprocal(load<u32>(src + i)));
      }
      break;
    case Simd.haddps:
      horizontalSingles(ADD, dst, src);
      break;
    case Simd.hsubps:
      horizontalSingles(SUB, dst, src);
      break;
    case Simd.haddpd:
      horizontalDoubles(ADD, dst, src);
      break;
    case Simd.hsubpd:
      horizontalDoubles(SUB, dst, src);
      break;
    case Simd.addsubps:
      for (let i: usize = 0; i < 16; i += 4) {
        const op = (i & 4) != 0 ? ADD : SUB;
        store<u32>(OUT + i, single(op, load<u32>(dst + i), load<u32>(src + i)));
      }
      break;
    case Simd.addsubpd:
      store<u64>(OUT, double(SUB, load<u64>(dst), load<u64>(src)));
      store<u64>(OUT, double(ADD, load<u64>(dst, 8), load<u64>(src, 8)), 8);
      break;
    case Simd.cmpps:
      compareEachSingle(dst, src, 4, imm);
      break;
    case Simd.cmppd:
      compareEachDouble(dst, src, 2, imm);
      break;
    case Simd.cmpss:
      compareEachSingle(dst, src, 1, imm);
      break;
    case Simd.cmpsd:
      compareEachDouble(dst, src, 1, imm);
      break;
    case Simd.roundps:
    case Simd.roundss:
      for (let i: usize = 0; i < (handler == Simd.roundps ? 16 : 4); i += 4) {
        store<u32>(OUT + i, roundSingleToWhole(load<u32>(src + i), imm));
      }
      break;
    case Simd.roundpd:
    case Simd.roundsd:
      for (let i: usize = 0; i < (handler == Simd.roundpd ? 16 : 8); i += 8) {
        store<u64>(OUT + i, roundDoubleToWhole(load<u64>(src + i), imm));
      }
      break;
    case Simd.dpps:
      dotSingles(dst, src, imm);
      break;
    case Simd.dppd:
      dotDoubles(dst, src, imm);
      break;
    default:
      unreachable();
  }
}
