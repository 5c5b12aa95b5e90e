// Read-modify-write of memory, with LOCK by the atomic instructions of the host.
import { probeWrite, writableAddress } from "./access";
import { readSized, writeSized } from "./memory";
import { wasWritten, willWrite } from "./physical";

/**
 * Stores a new value where an operand was read, if it is still the old one.
 *
 * @param locked whether other CPUs may not come between; if not, the store always happens
 * @returns false if another CPU has changed the operand, which must be read again
 */
export function commit(linear: u64, size: u32, old: u64, value: u64, locked: bool): bool {
  if (locked) {
    const address = writableAddress(linear, size);
    if (address && (address & (size - 1)) == 0) {
      willWrite(address, size);
      const done = exchange(address, size, old, value);
      wasWritten(address);
      return done;
    }
  }
  // MMIO, and operands across cache lines: nothing on the host is atomic for them.
  writeSized(linear, size, value);
  return true;
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

/** Reads an operand that will be written: faults as the write would. */
export function readForWrite(linear: u64, size: u32): u64 {
  probeWrite(linear, size);
  return readSized(linear, size);
}
