// Decimal arithmetic of 32-bit and older modes (SDM 2A, 2B: AAA, AAD, AAM, AAS, DAA, DAS), SALC.
import { raise, VECTOR_DE } from "./fault";
import { AF, arithmeticFlags, carry, CF, flagsOfLogic, flagsOfParts } from "./flags";
import { GPR } from "./layout";
import { extend } from "./operand";
import { OP_IMMEDIATE } from "./record";

const AL: usize = GPR;
const AH: usize = GPR + 1;

/** AAA and AAS: `by` is 6 or -6. */
export function adjustUnpacked(by: i32): void {
  const flags = arithmeticFlags();
  const al = load<u8>(AL);
  let parts: u32 = 0;
  if ((al & 15) > 9 || flags & AF) {
    store<u16>(AL, (load<u16>(AL) as i32 + by) as u16);
    store<u8>(AH, (load<u8>(AH) as i32 + (by > 0 ? 1 : -1)) as u8);
    // AAA adds 106H to AX at once, AAS subtracts 6 from AX and 1 from AH.
    parts = AF | CF;
  }
  store<u8>(AL, load<u8>(AL) & 15);
  flagsOfParts(extend(load<u8>(AL), 1), parts);
}

/** DAA and DAS. */
export function adjustPacked(subtract: bool): void {
  const flags = arithmeticFlags();
  const before = load<u8>(AL) as u32;
  let al = before, parts: u32 = 0;
  if ((al & 15) > 9 || flags & AF) {
    if (subtract && (al < 6 || flags & CF)) parts |= CF;
    if (!subtract && (al > 0xf9 || flags & CF)) parts |= CF;
    al = subtract ? al - 6 : al + 6;
    parts |= AF;
  }
  if (before > 0x99 || flags & CF) {
    al = subtract ? al - 0x60 : al + 0x60;
    parts |= CF;
  }
  store<u8>(AL, al as u8);
  flagsOfParts(extend(al & 0xff, 1), parts);
}

export function multiplyAdjust(op: usize): void {
  const base = load<u8>(op, OP_IMMEDIATE) as u32;
  if (base == 0) raise(VECTOR_DE, 0);
  const al = load<u8>(AL) as u32;
  store<u8>(AH, (al / base) as u8);
  store<u8>(AL, (al % base) as u8);
  flagsOfLogic(extend(load<u8>(AL), 1));
}

export function divideAdjust(op: usize): void {
  const base = load<u8>(op, OP_IMMEDIATE) as u32;
  const al = (load<u8>(AL) as u32 + (load<u8>(AH) as u32) * base) & 0xff;
  store<u16>(AL, al as u16);
  flagsOfLogic(extend(al, 1));
}

export function setAlByCarry(): void {
  store<u8>(AL, carry() ? 0xff : 0);
}
