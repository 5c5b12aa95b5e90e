/**
 * The guest's physical address space as firmware would tell it: RAM and what is reserved.
 *
 * @module
 */

/** Below this address RAM is contiguous; what is left starts at 4 GiB (as QEMU's microvm). */
export const LOW_RAM_LIMIT = 0xc000_0000;
/** Where RAM goes on above the hole for devices. */
export const HIGH_RAM_START = 0x1_0000_0000;

/** The last KiB of base memory, where an EBDA would be and the MP floating pointer is. */
export const EBDA_START = 0x9_fc00;
/** End of base memory; from here to 1 MiB a PC has video memory and ROMs. */
export const BASE_MEMORY_END = 0xa_0000;
/** The BIOS area of a PC, up to 1 MiB; free for tables where no firmware runs. */
export const BIOS_AREA_START = 0xf_0000;
/** 1 MiB: end of real mode's address space. */
export const ONE_MIB = 0x10_0000;

/**
 * Address for KVM_SET_IDENTITY_MAP_ADDR: one page, and three more for KVM_SET_TSS_ADDR behind it.
 *
 * KVM's own default, 0xfffbc000, is where a firmware ROM of more than 256 KiB lies; this place
 * (QEMU's) leaves room for 16 MiB.
 */
export const KVM_IDENTITY_MAP_ADDRESS = 0xfeff_c000;
/** Address for KVM_SET_TSS_ADDR: three pages. */
export const KVM_TSS_ADDRESS: number = KVM_IDENTITY_MAP_ADDRESS + 0x1000;
/** End of the pages that KVM uses; the lowest address at which a firmware ROM may start. */
export const KVM_PAGES_END: number = KVM_TSS_ADDRESS + 0x3000;

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
