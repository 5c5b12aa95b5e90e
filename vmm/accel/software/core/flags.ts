// EFLAGS' six arithmetic flags, which are worked out only when someone wants them.
//
// FLAGS_KIND says where they come from; results and operands are kept sign-extended to 64 bits, so that
// the same comparisons serve every size.
import { FLAGS_KIND, FLAGS_RESULT, FLAGS_SOURCE } from "./derived";
import { FLAGS_DESTINATION } from "./derived";
import { RFLAGS } from "./layout";

export const CF: u32 = 1;
export const PF: u32 = 1 << 2;
export const AF: u32 = 1 << 4;
export const ZF: u32 = 1 << 6;
export const SF: u32 = 1 << 7;
export const DF: u32 = 1 << 10;
export const OF: u32 = 1 << 11;
export const ARITHMETIC: u32 = CF | PF | AF | ZF | SF | OF;

/** All flags are in RFLAGS. */
export const KIND_EXPLICIT: u32 = 0;
/** RESULT = DESTINATION + SOURCE. */
export const KIND_ADD: u32 = 1;
/** RESULT = DESTINATION - SOURCE. */
export const KIND_SUB: u32 = 2;
/** ZF, SF, PF by RESULT; the others are 0. */
export const KIND_LOGIC: u32 = 3;
/** ZF, SF, PF by RESULT; CF, AF and OF are in SOURCE, in their places. */
export const KIND_PARTS: u32 = 4;
/**
 * RESULT by INC or DEC. They leave CF alone: bits 8 to 15 have the kind that CF comes from, whose operands
 * stay; bits 16 up have the size in bits.
 */
export const KIND_INC: u32 = 5;
export const KIND_DEC: u32 = 6;

/** What CF comes from. */
// @ts-ignore: decorator
@inline
function carryKind(): u32 {
  const kind = load<u32>(FLAGS_KIND);
  return kind < KIND_INC ? kind : (kind >> 8) & 0xff;
}

// @ts-ignore: decorator
@inline
export function flagsOfStep(result: u64, kind: u32, bits: u32): void {
  store<u32>(FLAGS_KIND, kind | (carryKind() << 8) | (bits << 16));
  store<u64>(FLAGS_RESULT, result);
}

export function carry(): bool {
  switch (carryKind()) {
    case KIND_EXPLICIT:
      return (load<u32>(RFLAGS) & CF) != 0;
    case KIND_ADD:
      // The sum is beyond the size; the result is not asked, since INC may have replaced it.
      return load<u64>(FLAGS_SOURCE) > ~load<u64>(FLAGS_DESTINATION);
    case KIND_SUB:
      return load<u64>(FLAGS_DESTINATION) < load<u64>(FLAGS_SOURCE);
    case KIND_LOGIC:
      return false;
    default:
      return (load<u32>(FLAGS_SOURCE) & CF) != 0;
  }
}

// @ts-ignore: decorator
@inline
export function zero(): bool {
  if (load<u32>(FLAGS_KIND) == KIND_EXPLICIT) return (load<u32>(RFLAGS) & ZF) != 0;
  return load<u64>(FLAGS_RESULT) == 0;
}

// @ts-ignore: decorator
@inline
export function sign(): bool {
  if (load<u32>(FLAGS_KIND) == KIND_EXPLICIT) return (load<u32>(RFLAGS) & SF) != 0;
  return load<i64>(FLAGS_RESULT) < 0;
}

export function parity(): bool {
  if (load<u32>(FLAGS_KIND) == KIND_EXPLICIT) return (load<u32>(RFLAGS) & PF) != 0;
  return (popcnt<u32>(load<u8>(FLAGS_RESULT) as u32) & 1) == 0;
}

/** INC gives the smallest number only from the greatest, DEC the greatest only from the smallest. */
function stepOverflow(kind: u32): bool {
  const smallest = ((-1 as i64) << ((kind >> 16) - 1)) as i64;
  const result = load<i64>(FLAGS_RESULT);
  return (kind & 0xff) == KIND_INC ? result == smallest : result == ~smallest;
}

export function overflow(): bool {
  const kind = load<u32>(FLAGS_KIND);
  if (kind == KIND_EXPLICIT) return (load<u32>(RFLAGS) & OF) != 0;
  if (kind == KIND_LOGIC) return false;
  if (kind == KIND_PARTS) return (load<u32>(FLAGS_SOURCE) & OF) != 0;
  if (kind >= KIND_INC) return stepOverflow(kind);
  const result = load<i64>(FLAGS_RESULT);
  const destination = load<i64>(FLAGS_DESTINATION), source = load<i64>(FLAGS_SOURCE);
  if (kind == KIND_ADD) return ((result ^ destination) & (result ^ source)) < 0;
  return ((destination ^ source) & (destination ^ result)) < 0;
}

/** AF, in its place. */
function adjust(): u32 {
  const kind = load<u32>(FLAGS_KIND);
  if (kind == KIND_EXPLICIT) return load<u32>(RFLAGS) & AF;
  if (kind == KIND_LOGIC) return 0;
  if (kind == KIND_PARTS) return load<u32>(FLAGS_SOURCE) & AF;
  if (kind >= KIND_INC) {
    const low = load<u32>(FLAGS_RESULT) & 15;
    return low == ((kind & 0xff) == KIND_INC ? 0 : 15) ? AF : 0;
  }
  return (load<u32>(FLAGS_RESULT) ^ load<u32>(FLAGS_DESTINATION) ^ load<u32>(FLAGS_SOURCE)) & AF;
}

/** The arithmetic flags in their places. */
export function arithmeticFlags(): u32 {
  if (load<u32>(FLAGS_KIND) == KIND_EXPLICIT) return load<u32>(RFLAGS) & ARITHMETIC;
  let flags = adjust();
  if (carry()) flags |= CF;
  if (parity()) flags |= PF;
  if (zero()) flags |= ZF;
  if (sign()) flags |= SF;
  if (overflow()) flags |= OF;
  return flags;
}

/** Makes RFLAGS complete. */
export function settleFlags(): void {
  if (load<u32>(FLAGS_KIND) == KIND_EXPLICIT) return;
  setArithmetic(arithmeticFlags());
}

/** Sets all six arithmetic flags. */
export function setArithmetic(flags: u32): void {
  store<u32>(RFLAGS, (load<u32>(RFLAGS) & ~ARITHMETIC) | flags);
  store<u32>(FLAGS_KIND, KIND_EXPLICIT);
}

// @ts-ignore: decorator
@inline
export function flagsOfAdd(result: u64, destination: u64, source: u64): void {
  store<u64>(FLAGS_RESULT, result);
  store<u64>(FLAGS_DESTINATION, destination);
  store<u64>(FLAGS_SOURCE, source);
  store<u32>(FLAGS_KIND, KIND_ADD);
}

// @ts-ignore: decorator
@inline
export function flagsOfSub(result: u64, destination: u64, source: u64): void {
  store<u64>(FLAGS_RESULT, result);
  store<u64>(FLAGS_DESTINATION, destination);
  store<u64>(FLAGS_SOURCE, source);
  store<u32>(FLAGS_KIND, KIND_SUB);
}

// @ts-ignore: decorator
@inline
export function flagsOfLogic(result: u64): void {
  store<u64>(FLAGS_RESULT, result);
  store<u32>(FLAGS_KIND, KIND_LOGIC);
}

// @ts-ignore: decorator
@inline
export function flagsOfParts(result: u64, parts: u32): void {
  store<u64>(FLAGS_RESULT, result);
  store<u32>(FLAGS_SOURCE, parts);
  store<u32>(FLAGS_KIND, KIND_PARTS);
}

/** JL's condition, SF != OF; after a subtraction it is a comparison. */
export function less(): bool {
  if (load<u32>(FLAGS_KIND) == KIND_SUB) {
    return load<i64>(FLAGS_DESTINATION) < load<i64>(FLAGS_SOURCE);
  }
  return sign() != overflow();
}

/** Whether a condition (the low four bits of Jcc, SETcc, CMOVcc) holds. */
export function condition(code: u32): bool {
  let holds: bool;
  switch (code >> 1) {
    case 0:
      holds = overflow();
      break;
    case 1:
      holds = carry();
      break;
    case 2:
      holds = zero();
      break;
    case 3:
      holds = carry() || zero();
      break;
    case 4:
      holds = sign();
      break;
    case 5:
      holds = parity();
      break;
    case 6:
      holds = less();
      break;
    default:
      holds = zero() || less();
  }
  return holds != ((code & 1) != 0);
}
