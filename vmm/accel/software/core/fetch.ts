// The bytes of the instruction that is decoded, from RAM or, where it leaves its page or RAM, one by one.
import { codeAddress, fetchUncached } from "./access";

/** Where the next byte is, and where the bytes that are there for sure end. */
let cursor: usize = 0;
let end: usize = 0;
/** Where the instruction starts. */
let start: usize = 0;
/** Linear address of the byte at `start`. */
let linearStart: u64 = 0;
/** Whether bytes beyond `end` may be fetched from the next page: only for a block's first instruction. */
let mayCross: bool = false;
/** Whether the instruction has crossed `end`. */
let crossed: bool = false;
/** How many bytes came from beyond `end`. */
let beyond: u32 = 0;

/** Begins with an instruction in RAM; `pageEnd` is where its page ends in memory. */
export function beginFetch(address: usize, pageEnd: usize, linear: u64, first: bool): void {
  cursor = start = address;
  end = pageEnd;
  linearStart = linear;
  mayCross = first;
  crossed = false;
  beyond = 0;
}

/** Begins with an instruction that is not in RAM. */
export function beginUncached(linear: u64): void {
  cursor = start = end = 0;
  linearStart = linear;
  mayCross = true;
  crossed = true;
  beyond = 0;
}

/** Whether the instruction was not in one page of RAM. */
export function fetchCrossed(): bool {
  return crossed;
}

/** How many bytes were fetched. */
export function fetchLength(): u32 {
  return ((cursor - start) as u32) + beyond;
}

/** Fetches a byte from `end` on, which may be in another page, or in no RAM. */
function crossing(): u32 {
  crossed = true;
  const linear = linearStart + fetchLength();
  beyond++;
  // An instruction of more than 15 bytes is refused for that, whatever it says.
  if (!mayCross || beyond > 15) return 0;
  const address = codeAddress(linear);
  return address ? load<u8>(address) as u32 : fetchUncached(linear);
}

export function fetch8(): u32 {
  if (cursor >= end) return crossing();
  const byte = load<u8>(cursor) as u32;
  cursor++;
  return byte;
}

export function fetch16(): u32 {
  if (cursor + 2 <= end) {
    const value = load<u16>(cursor) as u32;
    cursor += 2;
    return value;
  }
  const low = fetch8();
  return low | (fetch8() << 8);
}

export function fetch32(): u32 {
  if (cursor + 4 <= end) {
    const value = load<u32>(cursor);
    cursor += 4;
    return value;
  }
  const low = fetch16();
  return low | (fetch16() << 16);
}

export function fetch64(): u64 {
  const low = fetch32() as u64;
  return low | ((fetch32() as u64) << 32);
}
