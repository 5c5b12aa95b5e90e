/**
 * The guest's physical address space as firmware would tell it: RAM and what is reserved.
 *
 * @module
 */

import {
  BASE_MEMORY_END,
  BIOS_AREA_START,
  EBDA_START,
  HIGH_RAM_START,
  KVM_IDENTITY_MAP_ADDRESS,
  KVM_PAGES_END,
  LOW_RAM_LIMIT,
  ONE_MIB,
} from "../machine/microvm.ts";

/** Types of ranges, the same numbers in ACPI, Linux (E820_TYPE_*) and Xen (XEN_HVM_MEMMAP_TYPE_*). */
export const E820Type = { RAM: 1, RESERVED: 2 } as const;

/** A range of guest physical addresses. */
export interface AddressRange {
  /** First guest physical address. */
  readonly addr: number;
  /** Bytes. */
  readonly size: number;
}

/** One entry of the map. */
export interface E820Entry extends AddressRange {
  /** One of {@linkcode E820Type}. */
  readonly type: typeof E820Type[keyof typeof E820Type];
}

/**
 * Where RAM of a given size lies.
 *
 * @param ramSize bytes
 * @returns one or two ranges, in order of address
 */
export function ramRanges(ramSize: number): AddressRange[] {
  const low = Math.min(ramSize, LOW_RAM_LIMIT);
  const ranges = [{ addr: 0, size: low }];
  if (ramSize > low) ranges.push({ addr: HIGH_RAM_START, size: ramSize - low });
  return ranges;
}

/**
 * The map for a guest: usable RAM, and the reserved ranges that it must not use for devices.
 *
 * @param ramSize bytes
 * @returns entries that do not overlap, in order of address
 */
export function e820Map(ramSize: number): E820Entry[] {
  const [low, high] = ramRanges(ramSize);
  const range = (type: E820Entry["type"], addr: number, end: number): E820Entry => ({
    addr,
    size: Math.max(0, end - addr),
    type,
  });
  return [
    range(E820Type.RAM, 0, Math.min(low.size, EBDA_START)),
    range(E820Type.RESERVED, EBDA_START, BASE_MEMORY_END),
    range(E820Type.RESERVED, BIOS_AREA_START, ONE_MIB),
    range(E820Type.RAM, ONE_MIB, low.size),
    range(E820Type.RESERVED, KVM_IDENTITY_MAP_ADDRESS, KVM_PAGES_END),
    range(E820Type.RAM, HIGH_RAM_START, HIGH_RAM_START + (high?.size ?? 0)),
  ].filter((entry) => entry.size > 0);
}
