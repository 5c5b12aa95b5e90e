// What the CPUs of one machine tell each other, in pages that all their memories have (COMMON).
//
// Code that one CPU writes may be decoded by another. CODE_MAP says of each page of RAM which CPUs have
// code of it; a CPU gives itself no right to write such a page the quick way, and tells the others after
// it has written one. They forget their links then, and compare the bytes of what they look up. Whoever
// decodes from a page that it was not known for tells the others, who may have the right to write it: they
// drop that, and answer as if they had written.
import { COMMON, CPU_BIT, CPU_NUMBER, RAM } from "./layout";
import { TLB_ADDEND, TLB_WRITE } from "./tlb";
import { TLBS } from "./map";

/**
 * u32: held while a CPU executes CMPXCHG16B, which has no atomic instruction in WebAssembly. It excludes
 * other CMPXCHG16Bs; `commitPair` sees to what else other CPUs store to the same 16 bytes.
 */
const PAIR_LOCK: usize = COMMON;
/** u32: the number of the CPU that has stopped the others, 0 if none has. */
const STOPPED_BY: usize = COMMON + 4;
/** u8 for each CPU by its number: whether it may access RAM. */
const INSIDE: usize = COMMON + 0x100;
const INSIDE_END: usize = INSIDE + 0x100;
/** How often a CPU looks whether the others have stopped, a tenth of a second at least. */
const LOOKS: u32 = 1 << 26;
/** u8 for each page of RAM: a bit for each CPU (the ninth has the first's) that has code of it. */
const CODE_MAP: usize = COMMON + 0x1000;
const MAP_PAGES: u32 = 0xe_0000;

/** Has all other CPUs flush (ATTENTION_FLUSH) before their next block. */
@external("env", "flushOthers")
declare function flushOthers(): void;

/** Whether other CPUs have decoded code of a page. */
// @ts-ignore: decorator
@inline
export function othersHaveCode(page: u32): bool {
  const own = load<u32>(CPU_BIT);
  return own != 0 && (load<u8>(CODE_MAP + page) & ~own) != 0;
}

/** This CPU decodes, or has found unchanged, code of a page. */
export function tellDecoded(page: u32): void {
  const own = load<u32>(CPU_BIT);
  if (own == 0 || load<u8>(CODE_MAP + page) & own) return;
  if (!(atomic.or<u8>(CODE_MAP + page, own as u8) & (own as u8))) flushOthers();
}

/** This CPU has written a page. */
export function tellWritten(page: u32): void {
  if (!othersHaveCode(page)) return;
  atomic.and<u8>(CODE_MAP + page, load<u32>(CPU_BIT) as u8);
  flushOthers();
}

/** Before the TLB is flushed for another CPU: what could be written without a word may have been. */
export function tellMayBeWritten(): void {
  if (load<u32>(CPU_BIT) == 0) return;
  let written = false;
  for (let entry = TLBS; entry < TLBS + 3 * 32 * 1024; entry += 32) {
    const linear = load<u64>(entry, TLB_WRITE);
    if (linear & 0xfff) continue;
    const address = (linear as u32) + load<u32>(entry, TLB_ADDEND);
    const page = (address - (RAM as u32)) >> 12;
    if (page >= MAP_PAGES || !othersHaveCode(page)) continue;
    atomic.and<u8>(CODE_MAP + page, load<u32>(CPU_BIT) as u8);
    written = true;
  }
  if (written) flushOthers();
}

export function lockPairs(): void {
  if (load<u32>(CPU_BIT) == 0) return;
  while (atomic.cmpxchg<u32>(PAIR_LOCK, 0, 1) != 0) continue;
}

export function unlockPairs(): void {
  if (load<u32>(CPU_BIT)) atomic.store<u32>(PAIR_LOCK, 0);
}

/**
 * Lets whoever has stopped the other CPUs have RAM for itself; from here on this one is inside. It waits
 * as long as that takes: who stops others goes on in any case.
 */
export function comeInside(): void {
  const own = load<u32>(CPU_NUMBER);
  if (own == 0) return;
  while (true) {
    atomic.store<u8>(INSIDE + own, 1);
    const by = atomic.load<u32>(STOPPED_BY);
    if (by == 0) return;
    // An access by which it left with an exception.
    if (by == own) return letOthersGo();
    atomic.store<u8>(INSIDE + own, 0);
    while (atomic.load<u32>(STOPPED_BY) != 0) continue;
  }
}

/** This CPU accesses no RAM until it comes inside again. */
export function goOutside(): void {
  const own = load<u32>(CPU_NUMBER);
  if (own == 0) return;
  if (atomic.load<u32>(STOPPED_BY) == own) letOthersGo();
  atomic.store<u8>(INSIDE + own, 0);
}

/**
 * Stops the other CPUs between two instructions, as a processor does that locks the bus. What others have
 * done before is seen after. One that does not stop in time is served an exit, and executes no instruction
 * meanwhile.
 */
export function stopOthers(): void {
  const own = load<u32>(CPU_NUMBER);
  if (own == 0) return;
  atomic.store<u8>(INSIDE + own, 0);
  while (atomic.cmpxchg<u32>(STOPPED_BY, 0, own) != 0) continue;
  flushOthers();
  let looks = LOOKS;
  for (let other = INSIDE; other < INSIDE_END; other++) {
    if (other == INSIDE + own) continue;
    while (looks && atomic.load<u8>(other)) looks--;
  }
  atomic.store<u8>(INSIDE + own, 1);
}

export function letOthersGo(): void {
  if (load<u32>(CPU_NUMBER)) atomic.store<u32>(STOPPED_BY, 0);
}
