// Read-modify-write of memory, with LOCK by the atomic instructions of the host.
import { lastByte, probeWrite, writableAddress } from "./access";
import { readSized, writeSized } from "./memory";
import { wasWritten, willWrite } from "./physical";
import { letOthersGo, stopOthers } from "./sharing";

/**
 * Stores a new value where an operand was read, if it is still the old one.
 *
 * @param locked whether other CPUs may not come between; if not, the store always happens
 * @returns false if another CPU has changed the operand, which must be read again
 */
export function commit(linear: u64, size: u32, old: u64, value: u64, locked: bool): bool {
  if (locked) {
    const address = writableAddress(linear, size);
    if (address && (address & 7) + size <= 8) {
      willWrite(address, size);
      const done = address & (size - 1)
        ? exchangeInWord(address, size, old, value)
        : exchange(address, size, old, value);
      wasWritten(address);
      return done;
    }
    if (address || crossesRam(linear, size)) return commitSplit(linear, size, old, value);
  }
  // For MMIO there is no atomic access.
  writeSized(linear, size, value);
  return true;
}

/** Whether an operand crosses from one page of RAM to another. */
function crossesRam(linear: u64, size: u32): bool {
  const last = lastByte(linear, size);
  if (((linear ^ last) & ~0xfff) == 0) return false;
  return writableAddress(linear, 1) != 0 && writableAddress(last, 1) != 0;
}

/** The same for an operand that crosses a word of eight bytes, for which WebAssembly has nothing atomic. */
function commitSplit(linear: u64, size: u32, old: u64, value: u64): bool {
  stopOthers();
  const unchanged = readSized(linear, size) == old;
  if (unchanged) writeSized(linear, size, value);
  letOthersGo();
  return unchanged;
}

/**
 * Stores both halves of an aligned pair, if they are still what was read; other pairs are excluded by the
 * caller. Between the two stores others may see the first half alone, but no store of theirs is lost: if
 * one comes between, the first half is taken back.
 *
 * @returns false if another CPU has changed the pair, which must be read again
 */
export function commitPair(linear: u64, low: u64, high: u64, newLow: u64, newHigh: u64): bool {
  const address = writableAddress(linear, 16);
  if (address == 0) {
    writeSized(linear, 8, newLow);
    writeSized(linear + 8, 8, newHigh);
    return true;
  }
  willWrite(address, 16);
  let done = atomic.cmpxchg<u64>(address, low, newLow) == low;
  if (done && atomic.cmpxchg<u64>(address + 8, high, newHigh) != high) {
    atomic.cmpxchg<u64>(address, newLow, low);
    done = false;
  }
  wasWritten(address);
  return done;
}

function exchange(address: usize, size: u32, old: u64, value: u64): bool {
  switch (size) {
    case 1:
      return atomic.cmpxchg<u8>(address, old as u8, value as u8) == (old as u8);
    case 2:
      return atomic.cmpxchg<u16>(address, old as u16, value as u16) == (old as u16);
    case 4:
      return atomic.cmpxchg<u32>(address, old as u32, value as u32) == (old as u32);
    default:
      return atomic.cmpxchg<u64>(address, old, value) == old;
  }
}

/** The same for an operand that is not aligned, but in one word of eight bytes. */
function exchangeInWord(address: usize, size: u32, old: u64, value: u64): bool {
  const word = address & ~7;
  const shift = ((address & 7) << 3) as u64;
  const ones = u64.MAX_VALUE >> ((8 - size) << 3);
  while (true) {
    const now = atomic.load<u64>(word);
    if (((now >> shift) & ones) != (old & ones)) return false;
    const next = (now & ~(ones << shift)) | ((value & ones) << shift);
    if (atomic.cmpxchg<u64>(word, now, next) == now) return true;
  }
}

/** Reads an operand that will be written: faults as the write would. */
export function readForWrite(linear: u64, size: u32): u64 {
  probeWrite(linear, size);
  return readSized(linear, size);
}
