/**
 * Page tables as a debugger walks them: nothing is marked, nothing faults.
 *
 * @module
 */
import type { SlotMemory } from "./slot_memory.ts";
import type { CpuState } from "./kvm_state.ts";

const PRESENT = 1n;
const LARGE = 0x80n;
const CR0_PG = 1n << 31n;
const CR4_PSE = 1n << 4n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
/** The address in an entry of 64 bits. */
const ADDRESS = 0x000f_ffff_ffff_f000n;

/**
 * The guest physical address behind a linear one (Intel SDM volume 3, chapter 5).
 *
 * @returns undefined where nothing is mapped
 */
export function translate(state: CpuState, ram: SlotMemory, linear: bigint): bigint | undefined {
  if (!(state.cr0 & CR0_PG)) return BigInt.asUintN(32, linear);
  if (!(state.cr4 & CR4_PAE)) return translate32(state, ram, BigInt.asUintN(32, linear));
  if (state.efer & EFER_LMA) {
    return walk(ram, state.cr3 & ADDRESS, linear, state.cr4 & CR4_LA57 ? 5 : 4);
  }
  const directory = state.pdptr.at(Number((linear >> 30n) & 3n));
  return directory & PRESENT ? walk(ram, directory & ADDRESS, linear, 2) : undefined;
}

/** Tables of 512 entries of 64 bits; `levels` are left. */
function walk(ram: SlotMemory, table: bigint, linear: bigint, levels: number): bigint | undefined {
  const shift = BigInt(12 + 9 * (levels - 1));
  const entry = ram.readWide(Number(table + ((linear >> shift) & 0x1ffn) * 8n));
  if (entry === undefined || !(entry & PRESENT)) return undefined;
  const within = (1n << shift) - 1n;
  if (levels === 1 || (levels <= 3 && entry & LARGE)) {
    return (entry & ADDRESS & ~within) | (linear & within);
  }
  return walk(ram, entry & ADDRESS, linear, levels - 1);
}

/** Two levels of 1024 entries of 32 bits, pages of 4 KiB and 4 MiB. */
function translate32(state: CpuState, ram: SlotMemory, linear: bigint): bigint | undefined {
  const entryAt = (table: bigint, index: bigint) =>
    BigInt(ram.read(Number((table & 0xffff_f000n) + index * 4n)));
  const directory = entryAt(state.cr3, linear >> 22n);
  if (!(directory & PRESENT)) return undefined;
  if (directory & LARGE && state.cr4 & CR4_PSE) {
    // PSE-36: bits 13 to 20 are bits 32 to 39 of the address.
    const high = ((directory >> 13n) & 0xffn) << 32n;
    return high | (directory & 0xffc0_0000n) | (linear & 0x3f_ffffn);
  }
  const page = entryAt(directory, (linear >> 12n) & 0x3ffn);
  return page & PRESENT ? (page & 0xffff_f000n) | (linear & 0xfffn) : undefined;
}
