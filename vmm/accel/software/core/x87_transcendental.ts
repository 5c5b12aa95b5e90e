// F2XM1, FYL2X, FPTAN, FPATAN, FYL2XP1, FSINCOS, FSIN, FCOS: what they make of the stack, of zeros,
// infinities and NaNs, and their exceptions (SDM 2). Results are rounded correctly nearly always, to the
// mode of FCW.RC; the processor's own are within one unit of the last place of that.
import { exponentialMinusOne, timesLogarithm, timesLogarithmOfOnePlus } from "./x87_logarithm";
import { HALF_PI_HIGH, HALF_PI_LOW } from "./x87_coefficients";
import {
  addFlags,
  copyNumber,
  DIVIDE_BY_ZERO,
  EXPONENT,
  FINITE,
  flags,
  HIGH,
  INEXACT,
  INFINITE,
  INVALID,
  KIND,
  LOW,
  setFinite,
  setInfinite,
  setZero,
  SIGN,
  ZERO,
} from "./softfloat";
import { EXTENDED_LEAST } from "./softfloat_formats";
import { invalid } from "./softfloat_arithmetic";
import {
  A,
  B,
  begin,
  loadSt,
  noteDenormal,
  propagate,
  propagateOne,
  R,
  stopped,
  storeIndefinite,
  storeResult,
  underflowTo,
} from "./x87_operands";
import { C1, C2, isEmpty, pop, rotate, setConditions, setInUse, st, stackFault } from "./x87_state";
import { arcTangent, cosine, sine, tangent } from "./x87_trigonometry";

const FPTAN: u32 = 0xf2;
const FSINCOS: u32 = 0xfb;
const FSIN: u32 = 0xfe;

const TOP: u64 = (1 as u64) << 63;

/** A second result, to be pushed. */
const SECOND: usize = memory.data(32, 16);

function setOne(r: usize): void {
  setFinite(r, 0, 0, TOP, 0);
}

/** F2XM1; beyond -1 to 1 the argument stays. */
function f2xm1(): void {
  begin();
  if (isEmpty(0)) {
    underflowTo(0);
    return;
  }
  loadSt(A, 0);
  if (!propagateOne()) {
    const kind = load<u32>(A, KIND);
    noteDenormal(A);
    copyNumber(R, A);
    if (kind == INFINITE) {
      if (load<u32>(A, SIGN) != 0) setFinite(R, 1, 0, TOP, 0);
    } else if (kind == FINITE) {
      const exponent = load<i32>(A, EXPONENT);
      if (exponent < 0) {
        exponentialMinusOne(R, A);
      } else {
        // The processor has these for inexact even for 1 and -1, where they are not.
        addFlags(INEXACT);
        const half = exponent == 0 && load<u32>(A, SIGN) != 0 && load<u64>(A, HIGH) == TOP;
        if (half) store<i32>(R, -1, EXPONENT);
      }
    }
  }
  storeResult(0, 64);
}

/** The function of the FINITE or zero number in A, to `r`. */
function evaluate(function_: u32, r: usize): void {
  const zero = load<u32>(A, KIND) == ZERO;
  // The processor does not tell the least normal number's sine from the number.
  const least = !zero && load<i32>(A, EXPONENT) == EXTENDED_LEAST && load<u64>(A, HIGH) == TOP;
  if (least) addFlags(INEXACT);
  if (function_ == FSIN) {
    if (zero || least) copyNumber(r, A);
    else sine(r, A);
  } else if (function_ == FPTAN) {
    if (zero || least) copyNumber(r, A);
    else tangent(r, A);
  } else if (zero || least) {
    setOne(r);
  } else {
    cosine(r, A);
  }
}

/** Whether the argument in A is too large: C2 is set, and nothing else happens. */
function outOfRange(): bool {
  if (load<u32>(A, KIND) != FINITE || load<i32>(A, EXPONENT) < 63) return false;
  setConditions(C2, C2);
  return true;
}

/** FSIN, FCOS. */
function sineOrCosine(function_: u32): void {
  begin();
  setConditions(C2, 0);
  if (isEmpty(0)) {
    underflowTo(0);
    return;
  }
  loadSt(A, 0);
  if (!propagateOne()) {
    if (outOfRange()) return;
    if (load<u32>(A, KIND) == INFINITE) {
      invalid(R);
    } else {
      noteDenormal(A);
      evaluate(function_, R);
    }
  }
  storeResult(0, 64);
}

/** FSINCOS, FPTAN: the sine or tangent replaces ST(0), the cosine or 1 is pushed. */
function twoResults(function_: u32): void {
  begin();
  setConditions(C2, 0);
  if (isEmpty(0) || !isEmpty(7)) {
    if (stackFault(!isEmpty(0))) return;
    storeIndefinite(0);
    rotate(-1);
    storeIndefinite(0);
    return;
  }
  loadSt(A, 0);
  if (propagateOne()) {
    copyNumber(SECOND, R);
  } else {
    if (outOfRange()) return;
    if (load<u32>(A, KIND) == INFINITE) {
      invalid(R);
      copyNumber(SECOND, R);
    } else {
      noteDenormal(A);
      if (function_ == FPTAN) setOne(SECOND);
      else evaluate(0, SECOND);
      evaluate(function_ == FPTAN ? FPTAN : FSIN, R);
    }
  }
  if (!storeResult(0, 64)) return;
  // C1 is the cosine's, but the tangent's.
  if (function_ == FSINCOS) setConditions(C1, 0);
  rotate(-1);
  copyNumber(R, SECOND);
  storeResult(0, 64);
}

/** R = a multiple of a quarter of pi (1 to 4), with y's sign. */
function quarterPi(quarters: u32): void {
  const sign = load<u32>(A, SIGN);
  const exponent = quarters == 4 ? 1 : quarters == 1 ? -1 : 0;
  if (quarters == 3) setFinite(R, sign, 1, THREE_QUARTERS_HIGH, THREE_QUARTERS_LOW);
  else setFinite(R, sign, exponent, HALF_PI_HIGH, HALF_PI_LOW);
}

/** 3/4 pi = 2.356..., as a significand. */
const THREE_QUARTERS_HIGH: u64 = 0x96cbe3f9990e91a7;
const THREE_QUARTERS_LOW: u64 = 0x9394c9e8a0a5159d;

/** FPATAN of A (y) and B (x) where one is zero or infinite (SDM 2, table 3-32). */
function specialAngle(): void {
  const kindY = load<u32>(A, KIND);
  const kindX = load<u32>(B, KIND);
  const negative = load<u32>(B, SIGN) != 0;
  if (kindY == INFINITE) {
    quarterPi(kindX == INFINITE ? (negative ? 3 : 1) : 2);
  } else if (kindX == INFINITE || kindY == ZERO) {
    if (negative) quarterPi(4);
    else setZero(R, load<u32>(A, SIGN));
  } else {
    quarterPi(2);
  }
}

/** R = FYL2X of A (y) and B (x) where one is no positive FINITE number. */
function specialLogarithm(): void {
  const kindY = load<u32>(A, KIND);
  const kindX = load<u32>(B, KIND);
  const sign = load<u32>(A, SIGN);
  if (kindX == ZERO) {
    if (kindY == ZERO) {
      invalid(R);
    } else {
      if (kindY == FINITE) addFlags(DIVIDE_BY_ZERO);
      setInfinite(R, sign ^ 1);
    }
  } else if (load<u32>(B, SIGN) != 0) {
    invalid(R);
  } else if (kindX == INFINITE) {
    if (kindY == ZERO) invalid(R);
    else setInfinite(R, sign);
  } else {
    const one = load<i32>(B, EXPONENT) == 0 && load<u64>(B, HIGH) == TOP;
    const below = load<i32>(B, EXPONENT) < 0;
    if (kindY == INFINITE && one) invalid(R);
    else if (kindY == INFINITE) setInfinite(R, sign ^ (below ? 1 : 0));
    else setZero(R, sign ^ (below ? 1 : 0));
  }
}

/** R = FYL2XP1 of A (y) and B (x) where one is zero or infinite, or x is -1 or less. */
function specialLogarithmOfOnePlus(): void {
  const kindY = load<u32>(A, KIND);
  const kindX = load<u32>(B, KIND);
  const sign = load<u32>(A, SIGN) ^ load<u32>(B, SIGN);
  if (kindX == ZERO) {
    if (kindY == INFINITE) invalid(R);
    else setZero(R, sign);
  } else if (kindX == INFINITE) {
    if (load<u32>(B, SIGN) != 0 || kindY == ZERO) invalid(R);
    else setInfinite(R, sign);
  } else if (kindY == INFINITE) {
    setInfinite(R, sign);
  } else if (kindY == ZERO) {
    setZero(R, sign);
  } else {
    // Undefined; the processor gives x itself.
    copyNumber(R, B);
    addFlags(INEXACT);
  }
}

/** FPATAN, FYL2X, FYL2XP1: of ST(1) and ST(0), the result replaces ST(1) and ST(0) is popped. */
function ofTwo(modrm: u32): void {
  begin();
  if (isEmpty(0) || isEmpty(1)) {
    if (underflowTo(1)) pop();
    return;
  }
  loadSt(A, 1);
  loadSt(B, 0);
  if (!propagate()) {
    const finite = load<u32>(A, KIND) == FINITE && load<u32>(B, KIND) == FINITE;
    const negative = load<u32>(B, SIGN) != 0;
    if (modrm == 0xf3) {
      if (finite) arcTangent(R, A, B);
      else specialAngle();
    } else if (modrm == 0xf1) {
      if (finite && !negative) timesLogarithm(R, A, B);
      else specialLogarithm();
    } else {
      const below = negative && load<i32>(B, EXPONENT) >= 0;
      if (finite && !below) timesLogarithmOfOnePlus(R, A, B);
      else specialLogarithmOfOnePlus();
    }
    if ((flags & (INVALID | DIVIDE_BY_ZERO)) == 0) {
      noteDenormal(A);
      noteDenormal(B);
    }
  }
  if (storeResult(1, 64)) pop();
}

/** Executes one of them, by its ModRM byte. */
export function transcendental(modrm: u32): void {
  switch (modrm) {
    case 0xf0:
      f2xm1();
      break;
    case 0xf1:
    case 0xf3:
    case 0xf9:
      ofTwo(modrm);
      break;
    case FPTAN:
    case FSINCOS:
      twoResults(modrm);
      break;
    default:
      sineOrCosine(modrm);
  }
}
