// The TLBs: direct-mapped, one for each privilege that sees other rights in the same tables.
import { CODE_EPOCH, EPOCH } from "./derived";
import { TLBS } from "./map";

/** An entry is 32 bytes: three tags (a page's linear address if that access is allowed), the addend. */
export const TLB_READ: usize = 0;
export const TLB_WRITE: usize = 8;
export const TLB_EXECUTE: usize = 16;
/** u32: added to the low half of the linear address it gives the address in memory. */
export const TLB_ADDEND: usize = 24;
export const TLB_ENTRIES: u32 = 1024;
const TLB_BYTES: usize = 32 * 1024;

/** A tag that is no page. */
const NOTHING: u64 = 1;

export const TLB_SUPERVISOR: usize = TLBS;
/** Supervisor while EFLAGS.AC lets it use the user's pages under SMAP. */
export const TLB_SMAP_LIFTED: usize = TLBS + TLB_BYTES;
export const TLB_USER: usize = TLBS + 2 * TLB_BYTES;
/** Always empty: for user code whose accesses must be checked for alignment, one by one. */
export const TLB_ALIGNED: usize = TLBS + 3 * TLB_BYTES;
const TLBS_END: usize = TLBS + 4 * TLB_BYTES;

/** u8 for each TLB: whether it has entries. */
const USED: usize = TLBS_END;

/** log2 of the largest page whose translation may be in a TLB. */
let largest: u64 = 12;

/** Says how large the page is that the next translation is of, as log2. */
export function notePageSize(shift: u64): void {
  if (shift > largest) largest = shift;
}

/** Links between blocks are looked up again, since linear addresses may mean other code. */
// @ts-ignore: decorator
@inline
export function newEpoch(): void {
  store<u32>(EPOCH, load<u32>(EPOCH) + 1);
}

/** The bytes of blocks are compared again, too, since they may have been written. */
export function newCodeEpoch(): void {
  store<u32>(CODE_EPOCH, load<u32>(CODE_EPOCH) + 1);
  newEpoch();
}

/** Whether the TLBs, which are zeros at first, have ever been emptied. */
let empty = false;

/** Empties every TLB, as at power-on. */
export function resetTlb(): void {
  largest = 12;
  if (empty) return flushTlb(true);
  empty = true;
  for (let entry = TLBS; entry < TLBS_END; entry += 32) clear(entry);
  newEpoch();
}

// @ts-ignore: decorator
@inline
function clear(entry: usize): void {
  store<u64>(entry, NOTHING, TLB_READ);
  store<u64>(entry, NOTHING, TLB_WRITE);
  store<u64>(entry, NOTHING, TLB_EXECUTE);
}

/**
 * Forgets translations. A processor may forget more than it is asked to: global ones go as well.
 *
 * @param alsoGlobal whether global translations must go
 */
export function flushTlb(alsoGlobal: bool): void {
  for (let i: usize = 0; i < 3; i++) {
    if (!load<u8>(USED + i)) continue;
    store<u8>(USED + i, 0);
    const start = TLBS + i * TLB_BYTES;
    for (let entry = start; entry < start + TLB_BYTES; entry += 32) clear(entry);
  }
  newEpoch();
}

/** Forgets the translation of one page, in every address space, whatever size the page has. */
export function flushPage(linear: u64): void {
  if (largest > 12) flushLargePage(linear >> largest);
  else {
    const offset = (((linear >> 12) as u32) & (TLB_ENTRIES - 1)) << 5;
    for (let i: usize = 0; i < 3; i++) clear(TLBS + i * TLB_BYTES + (offset as usize));
  }
  newEpoch();
}

/** A large page is in the TLBs by pieces of 4 KiB: all of them go (SDM 3A, 4.10.4.1). */
function flushLargePage(page: u64): void {
  for (let i: usize = 0; i < 3; i++) {
    if (!load<u8>(USED + i)) continue;
    const start = TLBS + i * TLB_BYTES;
    for (let entry = start; entry < start + TLB_BYTES; entry += 32) {
      if (
        load<u64>(entry, TLB_READ) >> largest == page ||
        load<u64>(entry, TLB_WRITE) >> largest == page ||
        load<u64>(entry, TLB_EXECUTE) >> largest == page
      ) clear(entry);
    }
  }
}

/** Takes the right to write to a page of RAM without being asked, since code was decoded from it. */
export function dropWriteTags(page: usize): void {
  for (let i: usize = 0; i < 3; i++) {
    if (!load<u8>(USED + i)) continue;
    const start = TLBS + i * TLB_BYTES;
    for (let entry = start; entry < start + TLB_BYTES; entry += 32) {
      const linear = load<u64>(entry, TLB_WRITE);
      if (linear != NOTHING && (linear as u32) + load<u32>(entry, TLB_ADDEND) == (page as u32)) {
        store<u64>(entry, NOTHING, TLB_WRITE);
      }
    }
  }
}

/** The entry of a TLB that may hold a linear address. */
// @ts-ignore: decorator
@inline
export function tlbEntryOf(tlb: usize, linear: u64): usize {
  return tlb + (((((linear >> 12) as u32) & (TLB_ENTRIES - 1)) << 5) as usize);
}

/** Enters a translation; `rights` are the tags it gets: 1 read, 2 write, 4 execute. */
export function fillTlb(tlb: usize, linear: u64, address: usize, rights: u32): void {
  if (tlb == TLB_ALIGNED) return;
  const page = linear & ~0xfff;
  const entry = tlbEntryOf(tlb, linear);
  store<u64>(entry, rights & 1 ? page : NOTHING, TLB_READ);
  store<u64>(entry, rights & 2 ? page : NOTHING, TLB_WRITE);
  store<u64>(entry, rights & 4 ? page : NOTHING, TLB_EXECUTE);
  store<u32>(entry, (address as u32) - (linear as u32), TLB_ADDEND);
  store<u8>(USED + (tlb - TLBS) / TLB_BYTES, 1);
}
