// The x87 instructions with an operand in memory, which is in a buffer here: the dispatch loop has loaded
// it, or stores it afterwards.
import {
  addFlags,
  EXPONENT,
  FINITE,
  flags,
  fromInteger,
  INVALID,
  KIND,
  masked,
  OVERFLOW,
  rounding,
  setFlags,
  setRounding,
  SIGN,
  SIGNALLING_NAN,
  toInteger,
  TOWARD_ZERO,
  UNDERFLOW,
  UNSUPPORTED,
  ZERO,
} from "./softfloat";
import { invalid } from "./softfloat_arithmetic";
import {
  DOUBLE_INDEFINITE,
  packDouble,
  packExtended,
  packSingle,
  roundDouble,
  roundSingle,
  SINGLE_INDEFINITE,
  unpackDouble,
  unpackSingle,
} from "./softfloat_formats";
import { arithmeticWithLoaded, compareEmpty, compareWithLoaded } from "./x87_arithmetic";
import {
  A,
  B,
  begin,
  canPush,
  conclude,
  isBelow,
  isNaN,
  isSignalling,
  loadSt,
  noteDenormal,
  stopped,
  underflowTo,
} from "./x87_operands";
import {
  isEmpty,
  pop,
  rotate,
  setInUse,
  signal,
  st,
  stackFault,
  updateSummary,
  X87_FCW,
  X87_FSW,
} from "./x87_state";

// Kinds of operand, as bits 1 and 2 of the opcode have them.
const SINGLE: u32 = 0;
const INTEGER32: u32 = 1;
const DOUBLE: u32 = 2;

function loadOperand(to: usize, kind: u32, at: usize): void {
  if (kind == SINGLE) {
    unpackSingle(to, load<u32>(at));
  } else if (kind == DOUBLE) {
    unpackDouble(to, load<u64>(at));
  } else {
    const value: i64 = kind == INTEGER32 ? (load<i32>(at) as i64) : (load<i16>(at) as i64);
    fromInteger(to, value < 0, (value < 0 ? 0 - value : value) as u64);
  }
}

/** D8, DA, DC, DE: ST(0) op memory. */
function operate(kind: u32, op: u32, at: usize): void {
  begin();
  if (op == 2 || op == 3) {
    let done = false;
    if (isEmpty(0)) {
      done = compareEmpty();
    } else {
      loadOperand(B, kind, at);
      done = compareWithLoaded(false);
    }
    if (done && op == 3) pop();
  } else if (isEmpty(0)) {
    underflowTo(0);
  } else {
    loadOperand(B, kind, at);
    arithmeticWithLoaded(op, 0);
  }
}

/** Pushes A, which is exact; a signalling NaN or a denormal of a shorter format is an exception. */
function push(): void {
  if (!canPush()) return;
  if (load<u32>(A, KIND) == SIGNALLING_NAN) addFlags(INVALID);
  if (stopped()) return;
  // An unmasked denormal is pushed all the same.
  noteDenormal(A);
  rotate(-1);
  packExtended(A, st(0));
  setInUse(0);
  conclude();
}

function loadNumber(kind: u32, at: usize): void {
  begin();
  loadOperand(A, kind, at);
  push();
}

function loadInteger64(at: usize): void {
  begin();
  const value = load<i64>(at);
  fromInteger(A, value < 0, (value < 0 ? 0 - value : value) as u64);
  push();
}

/** FLD m80fp, which takes any bits. */
function loadExtended(at: usize): void {
  begin();
  if (canPush()) pushRaw(load<u64>(at), load<u16>(at, 8));
}

/** Pushes ten bytes as they are. */
export function pushRaw(significand: u64, exponent: u16): void {
  rotate(-1);
  store<u64>(st(0), significand);
  store<u16>(st(0), exponent, 8);
  setInUse(0);
}

/** Stores ST(0) as a single or double; false if an exception has prevented it. */
function storeNumber(double: bool, at: usize): bool {
  begin();
  if (isEmpty(0)) {
    if (stackFault(false)) return false;
    if (double) store<u64>(at, DOUBLE_INDEFINITE);
    else store<u32>(at, SINGLE_INDEFINITE);
    return true;
  }
  loadSt(A, 0);
  if (load<u32>(A, KIND) == UNSUPPORTED) invalid(A);
  else if (isSignalling(A)) addFlags(INVALID);
  if (stopped()) return false;
  if (double) roundDouble(A);
  else roundSingle(A);
  if ((flags & ~masked & (OVERFLOW | UNDERFLOW)) != 0) {
    // The operand stays what it was, and inexact is not known.
    signal(flags & (OVERFLOW | UNDERFLOW));
    return false;
  }
  if (double) store<u64>(at, packDouble(A));
  else store<u32>(at, packSingle(A));
  conclude();
  return true;
}

/** Rounds ST(0) to an integer below 2^bits (or -2^bits) into `whole`; false if there is none. */
function roundToInteger(bits: i32, truncate: bool): bool {
  loadSt(A, 0);
  whole = 0;
  if (load<u32>(A, KIND) == ZERO) return true;
  if (isNaN(A) || !isBelow(A, 64)) return false;
  if (truncate) setRounding(TOWARD_ZERO);
  const magnitude = toInteger(A);
  const limit = (1 as u64) << (bits as u64);
  const negative = load<u32>(A, SIGN) != 0;
  whole = negative ? 0 - (magnitude as i64) : (magnitude as i64);
  return magnitude < limit || (negative && magnitude == limit);
}

let whole: i64 = 0;

/** FIST, FISTP, FISTTP of `size` bytes; false if an exception has prevented it. */
function storeInteger(size: u32, truncate: bool, at: usize): bool {
  begin();
  const bits = ((size << 3) - 1) as i32;
  const indefinite = (1 as u64) << (bits as u64);
  if (isEmpty(0)) {
    if (stackFault(false)) return false;
    store<u64>(at, indefinite);
    return true;
  }
  if (!roundToInteger(bits, truncate)) {
    setFlags(INVALID);
    whole = indefinite as i64;
  }
  if (stopped()) return false;
  store<u64>(at, whole as u64);
  conclude();
  return true;
}

/** FBLD: 18 digits, two a byte, and a sign. */
function loadDecimal(at: usize): void {
  begin();
  let value: u64 = 0;
  for (let i: i32 = 8; i >= 0; i--) {
    const digits = load<u8>(at + (i as usize)) as u64;
    value = value * 100 + (digits >> 4) * 10 + (digits & 15);
  }
  fromInteger(A, false, value);
  store<u32>(A, load<u8>(at, 9) >> 7, SIGN);
  push();
}

const TEN_TO_18: u64 = 1000000000000000000;

/** FBSTP; false if an exception has prevented it. */
function storeDecimal(at: usize): bool {
  begin();
  const empty = isEmpty(0);
  if (empty) {
    if (stackFault(false)) return false;
  } else if (!roundToInteger(63, false) || (abs(whole) as u64) >= TEN_TO_18) {
    setFlags(INVALID);
  }
  if (stopped()) return false;
  if (empty || (flags & INVALID) != 0) {
    store<u64>(at, 0xc000000000000000);
    store<u16>(at, 0xffff, 8);
  } else {
    let rest = abs(whole) as u64;
    for (let i: usize = 0; i < 9; i++) {
      const digits = rest % 100;
      rest /= 100;
      store<u8>(at + i, ((digits / 10) << 4) | (digits % 10));
    }
    store<u8>(at, load<u32>(A, SIGN) << 7, 9);
  }
  conclude();
  return true;
}

/** Stores, and pops if that was possible; the result of x87(). */
function popIf(stored: bool, popping: bool): u32 {
  if (stored && popping) pop();
  return stored ? 1 : 0;
}

/** FSTP m80fp. */
function storeExtended(at: usize): bool {
  begin();
  if (isEmpty(0)) {
    if (stackFault(false)) return false;
    store<u64>(at, (3 as u64) << 62);
    store<u16>(at, 0xffff, 8);
    return true;
  }
  store<u64>(at, load<u64>(st(0)));
  store<u16>(at, load<u16>(st(0), 8), 8);
  return true;
}

export function fldcw(value: u32): void {
  // Bit 6 is always set, the reserved others never.
  store<u16>(X87_FCW, (value & 0x1f3f) | 0x40);
  updateSummary();
}

/** D9 to DF with memory but for the arithmetic; the result is 1 if the buffer is to be stored. */
function transfer(opcode: u32, reg: u32, at: usize): u32 {
  switch ((opcode << 3) | reg) {
    case 0o10:
      loadNumber(SINGLE, at);
      return 0;
    case 0o12:
    case 0o13:
      return popIf(storeNumber(false, at), reg == 3);
    case 0o15:
      fldcw(load<u16>(at));
      return 0;
    case 0o17:
      store<u16>(at, load<u16>(X87_FCW));
      return 1;
    case 0o30:
      loadNumber(INTEGER32, at);
      return 0;
    case 0o31:
      return popIf(storeInteger(4, true, at), true);
    case 0o32:
    case 0o33:
      return popIf(storeInteger(4, false, at), reg == 3);
    case 0o35:
      loadExtended(at);
      return 0;
    case 0o37:
      return popIf(storeExtended(at), true);
    case 0o50:
      loadNumber(DOUBLE, at);
      return 0;
    case 0o51:
      return popIf(storeInteger(8, true, at), true);
    case 0o52:
    case 0o53:
      return popIf(storeNumber(true, at), reg == 3);
    case 0o57:
      store<u16>(at, load<u16>(X87_FSW));
      return 1;
    case 0o70:
      loadNumber(3, at);
      return 0;
    case 0o71:
      return popIf(storeInteger(2, true, at), true);
    case 0o72:
    case 0o73:
      return popIf(storeInteger(2, false, at), reg == 3);
    case 0o74:
      loadDecimal(at);
      return 0;
    case 0o75:
      loadInteger64(at);
      return 0;
    case 0o76:
      return popIf(storeDecimal(at), true);
    case 0o77:
      return popIf(storeInteger(8, false, at), true);
    default:
      return 0;
  }
}

/** An instruction with an operand in memory; the result is 1 if the buffer is to be stored. */
export function x87Memory(opcode: u32, reg: u32, at: usize): u32 {
  if ((opcode & 1) != 0) return transfer(opcode, reg, at);
  operate(opcode >> 1, reg, at);
  return 0;
}
