// Paging: from linear to physical addresses (SDM 3A, chapter 4), with the rights of an access.
import { RESERVED_ADDRESS } from "./derived";
import { raisePageFault } from "./fault";
import { CR0, CR3, CR4, EFER, PDPTR } from "./layout";
import { physicalRead, wasWritten, willWrite, writable } from "./physical";
import { notePageSize } from "./tlb";

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

// Bits of an entry.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;
/** The address in an entry of eight bytes. */
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

// What is accessed: bits of an access, equal to those of the error code (SDM 3A, 4.7).
export const ACCESS_READ: u32 = 0;
export const ACCESS_WRITE: u32 = 1 << 1;
export const ACCESS_USER: u32 = 1 << 2;
export const ACCESS_FETCH: u32 = 1 << 4;
/** Not of the error code: the supervisor may use the user's data under SMAP. */
export const ACCESS_SMAP_LIFTED: u32 = 1 << 16;
const ERROR_PRESENT: u32 = 1;
const ERROR_RESERVED: u32 = 1 << 3;

/** Which accesses the last walk has found allowed: 1 read, 2 write (the page is dirty), 4 execute. */
export let walkRights: u32 = 0;

/** Raises #PF; what it would return is no physical address. */
function fault(linear: u64, access: u32, bits: u32): u64 {
  let code = (access & (ACCESS_WRITE | ACCESS_USER)) | bits;
  // I/D is reported only if something can forbid fetches.
  const smep = (load<u64>(CR4) & CR4_SMEP) != 0;
  const nx = (load<u64>(EFER) & EFER_NXE) != 0 && (load<u64>(CR4) & CR4_PAE) != 0;
  if (access & ACCESS_FETCH && (smep || nx)) code |= ACCESS_FETCH;
  raisePageFault(linear, code);
  return u64.MAX_VALUE;
}

/**
 * Sets accessed and dirty bits in an entry as it was read.
 *
 * @returns false if another CPU has changed the entry meanwhile, and the walk must begin again
 */
function mark(at: u64, entry: u64, bits: u64, wide: bool): bool {
  if ((entry & bits) == bits) return true;
  const address = writable(at);
  if (address == 0) return true;
  willWrite(address, wide ? 8 : 4);
  const done = wide
    ? atomic.cmpxchg<u64>(address, entry, entry | bits) == entry
    : atomic.cmpxchg<u32>(address, entry as u32, (entry | bits) as u32) == (entry as u32);
  wasWritten(address);
  return done;
}

/** The rights of a page whose entries have, all together, these bits (NX if any has it). */
function rightsOf(entries: u64, access: u32): u32 {
  const user = (access & ACCESS_USER) != 0;
  const userPage = (entries & USER) != 0;
  if (user && !userPage) return 0;
  let rights: u32 = 5;
  if (entries & WRITE || (!user && !(load<u64>(CR0) & CR0_WP))) rights |= 2;
  if (entries & NX) rights &= ~4;
  if (!user && userPage) {
    const cr4 = load<u64>(CR4);
    if (cr4 & CR4_SMEP) rights &= ~4;
    if (cr4 & CR4_SMAP && !(access & ACCESS_SMAP_LIFTED)) rights &= ~3;
  }
  return rights;
}

/** The right that an access needs. */
function needed(access: u32): u32 {
  return access & ACCESS_FETCH ? 4 : access & ACCESS_WRITE ? 2 : 1;
}

/** Two levels of entries of four bytes (SDM 3A, 4.3). */
function walk32(linear: u64, access: u32): u64 {
  while (true) {
    const upperAt = (load<u64>(CR3) & 0xffff_f000) | (((linear >> 22) & 0x3ff) << 2);
    const upper = physicalRead(upperAt, 4);
    if (!(upper & PRESENT)) return fault(linear, access, 0);
    const large = (upper & LARGE) != 0 && (load<u64>(CR4) & CR4_PSE) != 0;
    let at = upperAt, entry = upper, together = upper;
    if (large) {
      if (upper & (1 << 21)) return fault(linear, access, ERROR_PRESENT | ERROR_RESERVED);
    } else {
      at = (upper & 0xffff_f000) | (((linear >> 12) & 0x3ff) << 2);
      entry = physicalRead(at, 4);
      if (!(entry & PRESENT)) return fault(linear, access, 0);
      together &= entry;
    }
    const rights = rightsOf(together & (WRITE | USER), access);
    if (!(rights & needed(access))) return fault(linear, access, ERROR_PRESENT);
    if (!large && !mark(upperAt, upper, ACCESSED, false)) continue;
    const bits = access & ACCESS_WRITE ? ACCESSED | DIRTY : ACCESSED;
    if (!mark(at, entry, bits, false)) continue;
    walkRights = (entry | bits) & DIRTY ? rights : rights & ~2;
    if (!large) return (entry & 0xffff_f000) | (linear & 0xfff);
    notePageSize(22);
    // PSE-36: bits 13 to 20 are bits 32 to 39 of the address.
    return (entry & 0xffc0_0000) | ((entry & 0x1f_e000) << 19) | (linear & 0x3f_ffff);
  }
}

/** The bits of an entry of eight bytes that must be 0, by its level (1: page table). */
function reservedBits(level: u32, entry: u64, long: bool): u64 {
  let bits = load<u64>(RESERVED_ADDRESS);
  if (!(load<u64>(EFER) & EFER_NXE)) bits |= NX;
  if (!long) bits |= 0x7ff0_0000_0000_0000;
  if (level > 3) return bits | LARGE;
  if (level > 1 && entry & LARGE) bits |= level == 2 ? 0x1f_e000 : 0x3fff_e000;
  return bits;
}

/** Entries of eight bytes: PAE (its third level is in pdptr), four and five levels (SDM 3A, 4.4, 4.5). */
function walk64(linear: u64, access: u32): u64 {
  const long = (load<u64>(EFER) & EFER_LMA) != 0;
  while (true) {
    let level: u32, table: u64;
    if (long) {
      level = load<u64>(CR4) & CR4_LA57 ? 5 : 4;
      table = load<u64>(CR3) & ADDRESS;
    } else {
      const pdpte = load<u64>(PDPTR + ((((linear >> 30) & 3) as usize) << 3));
      if (!(pdpte & PRESENT)) return fault(linear, access, 0);
      level = 2;
      table = pdpte & ADDRESS;
    }
    let together: u64 = WRITE | USER, noExecute: u64 = 0, at: u64 = 0, entry: u64 = 0;
    let changed = false;
    while (true) {
      const shift: u64 = 12 + 9 * (level - 1);
      at = table | (((linear >> shift) & 0x1ff) << 3);
      entry = physicalRead(at, 8);
      if (!(entry & PRESENT)) return fault(linear, access, 0);
      if (entry & reservedBits(level, entry, long)) {
        return fault(linear, access, ERROR_PRESENT | ERROR_RESERVED);
      }
      together &= entry;
      noExecute |= entry & NX;
      if (level == 1 || (level < 4 && entry & LARGE)) break;
      if (!mark(at, entry, ACCESSED, true)) {
        changed = true;
        break;
      }
      table = entry & ADDRESS;
      level--;
    }
    if (changed) continue;
    const rights = rightsOf(together & (WRITE | USER) | noExecute, access);
    if (!(rights & needed(access))) return fault(linear, access, ERROR_PRESENT);
    const bits = access & ACCESS_WRITE ? ACCESSED | DIRTY : ACCESSED;
    if (!mark(at, entry, bits, true)) continue;
    walkRights = (entry | bits) & DIRTY ? rights : rights & ~2;
    const shift = 12 + 9 * ((level as u64) - 1);
    notePageSize(shift);
    const inPage: u64 = ((1 as u64) << shift) - 1;
    return (entry & ADDRESS & ~inPage) | (linear & inPage);
  }
}

/**
 * Walks the page tables.
 *
 * @param linear a linear address; in long mode a canonical one
 * @param access bits ACCESS_*
 * @returns the physical address, and what is allowed in `walkRights`; raises #PF otherwise
 */
export function walk(linear: u64, access: u32): u64 {
  if (!(load<u64>(CR0) & CR0_PG)) {
    walkRights = 7;
    return linear & 0xffff_ffff;
  }
  return load<u64>(CR4) & CR4_PAE ? walk64(linear, access) : walk32(linear, access);
}
