// FADD to FDIVR, FSQRT, the comparisons, FXAM.
import {
  compareNumbers,
  DENORMAL,
  FINITE,
  flags,
  INFINITE,
  INVALID,
  KIND,
  addFlags,
  SIGN,
  UNSUPPORTED,
  ZERO,
} from "./softfloat";
import { add, divide, multiply, squareRoot } from "./softfloat_arithmetic";
import { unpackExtended } from "./softfloat_formats";
import {
  A,
  B,
  begin,
  conclude,
  isNaN,
  isSignalling,
  loadSt,
  noteDenormal,
  precision,
  propagate,
  propagateOne,
  R,
  readControl,
  stopped,
  storeResult,
  underflowTo,
} from "./x87_operands";
import { C0, C1, C2, C3, isEmpty, setConditions, st, stackFault } from "./x87_state";

// ModRM.reg of D8 and its like.
const FMUL: u32 = 1;
const FSUB: u32 = 4;
const FSUBR: u32 = 5;
const FDIV: u32 = 6;

/** R = A op B, neither a NaN. */
function compute(op: u32): void {
  switch (op) {
    case 0:
      add(R, A, B, false);
      break;
    case FMUL:
      multiply(R, A, B);
      break;
    case FSUB:
      add(R, A, B, true);
      break;
    case FSUBR:
      add(R, B, A, true);
      break;
    case FDIV:
      divide(R, A, B);
      break;
    default:
      divide(R, B, A);
  }
  if (flags != 0) return;
  // Invalid and divide-by-zero come before denormal operands.
  noteDenormal(A);
  noteDenormal(B);
}

/** ST(to) = ST(0) op B, which is loaded; false if an exception has prevented it. */
export function arithmeticWithLoaded(op: u32, to: u32): bool {
  loadSt(A, 0);
  if (!propagate()) compute(op);
  return storeResult(to, precision());
}

/** ST(to) = ST(0) op ST(i); false if an exception has prevented it. */
export function arithmetic(op: u32, i: u32, to: u32): bool {
  begin();
  if (isEmpty(0) || isEmpty(i)) return underflowTo(to);
  loadSt(B, i);
  return arithmeticWithLoaded(op, to);
}

export function fsqrt(): void {
  begin();
  if (isEmpty(0)) {
    underflowTo(0);
    return;
  }
  loadSt(A, 0);
  if (!propagateOne()) {
    squareRoot(R, A);
    if (flags == 0) noteDenormal(A);
  }
  storeResult(0, precision());
}

const UNORDERED: i32 = 2;

/** Compares A with B; false if an exception has prevented an outcome, which is in `outcome`. */
function compareLoaded(quiet: bool): bool {
  outcome = UNORDERED;
  if (isNaN(A) || isNaN(B)) {
    if (!quiet || isSignalling(A) || isSignalling(B)) addFlags(INVALID);
  } else {
    noteDenormal(A);
    noteDenormal(B);
    outcome = compareNumbers(A, B);
  }
  const prevented = stopped();
  if (!prevented) conclude();
  return !prevented;
}

let outcome: i32 = 0;

function setOutcome(): void {
  const bits = outcome == UNORDERED ? C3 | C2 | C0 : outcome == 0 ? C3 : outcome < 0 ? C0 : 0;
  setConditions(C3 | C2 | C0, bits);
}

/** Compares ST(0) with B, which is loaded; sets the condition codes whatever happens. */
export function compareWithLoaded(quiet: bool): bool {
  loadSt(A, 0);
  const done = compareLoaded(quiet);
  setOutcome();
  return done;
}

/** An empty operand of a comparison is unordered; false if that is not masked. */
export function compareEmpty(): bool {
  outcome = UNORDERED;
  setOutcome();
  return !stackFault(false);
}

/** FCOM, FUCOM. */
export function compare(i: u32, quiet: bool): bool {
  begin();
  if (isEmpty(0) || isEmpty(i)) return compareEmpty();
  loadSt(B, i);
  return compareWithLoaded(quiet);
}

let compared: bool = false;

/** Whether the last compareToFlags() was not kept from popping by an exception. */
export function hasCompared(): bool {
  return compared;
}

/** FCOMI, FUCOMI: the result is ZF, PF and CF (OF, SF, AF are 0), also where there is an exception. */
export function compareToFlags(i: u32, quiet: bool): u32 {
  readControl();
  if (isEmpty(0) || isEmpty(i)) {
    compared = !stackFault(false);
    return 0x45;
  }
  loadSt(A, 0);
  loadSt(B, i);
  compared = compareLoaded(quiet);
  return outcome == UNORDERED ? 0x45 : outcome == 0 ? 0x40 : outcome < 0 ? 1 : 0;
}

export function ftst(): void {
  begin();
  if (isEmpty(0)) {
    compareEmpty();
    return;
  }
  store<u32>(B, ZERO, KIND);
  store<u32>(B, 0, DENORMAL);
  compareWithLoaded(false);
}

/** FXAM: what ST(0) is (SDM 2, table 3-49). */
export function fxam(): void {
  unpackExtended(A, st(0));
  const kind = load<u32>(A, KIND);
  let bits: u32 = C0;
  if (isEmpty(0)) bits = C3 | C0;
  else if (kind == ZERO) bits = C3;
  else if (kind == INFINITE) bits = C2 | C0;
  else if (kind == UNSUPPORTED) bits = 0;
  else if (kind == FINITE) bits = load<u32>(A, DENORMAL) != 0 ? C3 | C2 : C2;
  if (load<u32>(A, SIGN) != 0) bits |= C1;
  setConditions(C3 | C2 | C1 | C0, bits);
}
