// LAR, LSL, VERR, VERW, ARPL: what a selector may be used for, without faulting over it.
import { raiseUD } from "./fault";
import { read64System } from "./memory";
import {
  CODE, cpl, dplOf, FLAG_ZF, longMode, NOT_SYSTEM, paragraphMode, READABLE, readFlags, WRITABLE,
  writeFlags,
} from "./registers";
import {
  descriptorAddress, descriptorAttributes, descriptorLimit, isConformingCode, isNull, NOWHERE,
} from "./segment";

/** LAR or LSL leave their destination as it was. */
export const UNCHANGED: i64 = -1;

/** System types that LAR tells of: TSSs, LDT, gates (SDM volume 2, LAR, table 3-50). */
const LAR_TYPES: u32 = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 9) | (1 << 11) |
  (1 << 12);
const LAR_TYPES_LONG: u32 = (1 << 2) | (1 << 9) | (1 << 11) | (1 << 12);
/** System types that have a limit. */
const LSL_TYPES: u32 = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 9) | (1 << 11);
const LSL_TYPES_LONG: u32 = (1 << 2) | (1 << 9) | (1 << 11);

function setZero(value: bool): void {
  writeFlags(value ? readFlags() | FLAG_ZF : readFlags() & ~FLAG_ZF);
}

/** What `visible` found. */
let found: u64 = 0;

/** Whether this privilege may know a selector's descriptor, which is in `found` then; sets ZF. */
function visible(selector: u32, types: u32): bool {
  const known = look(selector & 0xffff, types);
  setZero(known);
  return known;
}

function look(selector: u32, types: u32): bool {
  if (paragraphMode()) raiseUD();
  if (isNull(selector)) return false;
  const address = descriptorAddress(selector, 8);
  if (address == NOWHERE) return false;
  found = read64System(address);
  const attributes = descriptorAttributes(found);
  if (!(attributes & NOT_SYSTEM) && !((types >> (attributes & 15)) & 1)) return false;
  const conforming = (attributes & NOT_SYSTEM) != 0 && isConformingCode(attributes);
  return conforming || dplOf(attributes) >= max<u32>(cpl(), selector & 3);
}

/** The rights of a selector's descriptor, or UNCHANGED; sets ZF. */
export function opLar(selector: u32): i64 {
  if (!visible(selector, longMode() ? LAR_TYPES_LONG : LAR_TYPES)) return UNCHANGED;
  return <i64>((found >> 32) & 0xf0_ff00);
}

/** The limit of a selector's segment, or UNCHANGED; sets ZF. */
export function opLsl(selector: u32): i64 {
  if (!visible(selector, longMode() ? LSL_TYPES_LONG : LSL_TYPES)) return UNCHANGED;
  return <i64>descriptorLimit(found);
}

/** VERR: sets ZF if a segment may be read. */
export function opVerr(selector: u32): void {
  if (!visible(selector, 0)) return;
  if ((descriptorAttributes(found) & (CODE | READABLE)) == CODE) setZero(false);
}

/** VERW: sets ZF if a segment may be written. */
export function opVerw(selector: u32): void {
  if (!visible(selector, 0)) return;
  if ((descriptorAttributes(found) & (CODE | WRITABLE)) != WRITABLE) setZero(false);
}

/** ARPL: the destination with the source's RPL if that is higher; sets ZF if it was. */
export function opArpl(destination: u32, source: u32): u32 {
  if (paragraphMode()) raiseUD();
  const raise = (destination & 3) < (source & 3);
  setZero(raise);
  return raise ? (destination & ~3) | (source & 3) : destination;
}
