// Guest physical memory: RAM by the table of regions, everything else by the host's imports.
import {
  A20_MASKED,
  CPU_BIT,
  DIRTY_PAGES,
  RAM,
  REGION_ADDRESS,
  REGION_COUNT,
  REGION_GPA,
  REGION_READONLY,
  REGION_SIZE,
  REGION_SIZE_OF,
  REGIONS,
} from "./layout";
import { CODE_PAGES } from "./map";
import { codeWritten } from "./invalidate";
import { tellWritten } from "./sharing";

@external("env", "mmioRead")
declare function mmioRead(low: u32, high: u32, size: u32): u32;
@external("env", "mmioWrite")
declare function mmioWrite(low: u32, high: u32, size: u32, value: u32): void;

/** Bit 20 of every physical address is 0 while A20 is masked. */
// @ts-ignore: decorator
@inline
export function a20(physical: u64): u64 {
  return load<u32>(A20_MASKED) ? physical & ~0x10_0000 : physical;
}

/** The region of RAM that has a physical address, 0 if none has. */
function regionOf(physical: u64): usize {
  const end = REGIONS + (load<u32>(REGION_COUNT) as usize) * REGION_SIZE_OF;
  for (let region = REGIONS; region < end; region += REGION_SIZE_OF) {
    if (physical - load<u64>(region, REGION_GPA) < load<u64>(region, REGION_SIZE)) return region;
  }
  return 0;
}

/** Where a physical address is in memory if it can be read there, otherwise 0. */
export function readable(physical: u64): usize {
  const at = a20(physical);
  const region = regionOf(at);
  if (region == 0) return 0;
  return (load<u32>(region, REGION_ADDRESS) + ((at - load<u64>(region, REGION_GPA)) as u32)) as usize;
}

/** Where a physical address is in memory if it can be written there, otherwise 0. */
export function writable(physical: u64): usize {
  const at = a20(physical);
  const region = regionOf(at);
  if (region == 0 || load<u32>(region, REGION_READONLY)) return 0;
  return (load<u32>(region, REGION_ADDRESS) + ((at - load<u64>(region, REGION_GPA)) as u32)) as usize;
}

/** The index of a page of RAM in CODE_PAGES and DIRTY_PAGES. */
// @ts-ignore: decorator
@inline
export function pageIndex(address: usize): u32 {
  return ((address - RAM) >> 12) as u32;
}

/** To be called after RAM was written: other CPUs may have decoded what was there. */
export function wasWritten(address: usize): void {
  if (load<u32>(CPU_BIT)) tellWritten(pageIndex(address));
}

/** To be called before RAM is written: marks the page dirty, drops what was decoded from the bytes. */
export function willWrite(address: usize, size: u32): void {
  const page = pageIndex(address);
  store<u8>(DIRTY_PAGES + page, 1);
  if (load<u32>(CODE_PAGES + (page << 2))) codeWritten(address, size);
}

/** Reads `size` bytes (1, 2, 4, 8) that lie in one page. */
export function physicalRead(physical: u64, size: u32): u64 {
  const address = readable(physical);
  if (address) {
    switch (size) {
      case 1:
        return load<u8>(address) as u64;
      case 2:
        return load<u16>(address) as u64;
      case 4:
        return load<u32>(address) as u64;
      default:
        return load<u64>(address);
    }
  }
  const at = a20(physical);
  const low = at as u32, high = (at >> 32) as u32;
  if (size < 8) return mmioRead(low, high, size) as u64;
  const first = mmioRead(low, high, 4) as u64;
  return first | ((mmioRead(low + 4, high, 4) as u64) << 32);
}

/** Writes the low `size` bytes (1, 2, 4, 8) of a value within one page. */
export function physicalWrite(physical: u64, size: u32, value: u64): void {
  const address = writable(physical);
  if (address) {
    willWrite(address, size);
    switch (size) {
      case 1:
        store<u8>(address, value as u8);
        break;
      case 2:
        store<u16>(address, value as u16);
        break;
      case 4:
        store<u32>(address, value as u32);
        break;
      default:
        store<u64>(address, value);
    }
    wasWritten(address);
    return;
  }
  const at = a20(physical);
  const low = at as u32, high = (at >> 32) as u32;
  if (size < 8) {
    mmioWrite(low, high, size, value as u32);
  } else {
    mmioWrite(low, high, 4, value as u32);
    mmioWrite(low + 4, high, 4, (value >> 32) as u32);
  }
}
