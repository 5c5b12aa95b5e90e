/**
 * `-bios`: a firmware ROM that ends at 4 GiB, where the processor's reset vector is.
 *
 * @module
 */
import { HIGH_RAM_START, KVM_PAGES_END, ONE_MIB } from "../machine/microvm.ts";
import { BootError, type FileSegment, hex, type ImageFile } from "../boot/image.ts";

/** A read-only memory region with the whole of a firmware file. */
export interface Rom {
  /** Guest physical address of the first byte. */
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
  /** What the region shows, from its first byte on. */
  readonly file: ImageFile;
}

/** Where firmware lies. */
export interface FirmwarePlan {
  /** The ROM. */
  readonly rom: Rom;
  /** The end of the ROM once more, below 1 MiB in RAM, where real mode can reach it. */
  readonly lowCopy: FileSegment;
}

const ROM_UNIT = 64 << 10;
const MAX_LOW_COPY = 128 << 10;

/**
 * Places a firmware ROM.
 *
 * @throws {BootError} if its size is not a multiple of 64 KiB, 0, or more than 16 MiB
 */
export function planFirmware(file: ImageFile): FirmwarePlan {
  const { path, size } = file;
  if (size === 0 || size % ROM_UNIT !== 0) {
    throw new BootError(
      `could not load PC BIOS '${path}': its size ${hex(size)} is not a multiple of 64 KiB`,
    );
  }
  const gpa = HIGH_RAM_START - size;
  if (gpa < KVM_PAGES_END) {
    throw new BootError(
      `could not load PC BIOS '${path}': its size ${hex(size)} is greater than 16 MiB`,
    );
  }
  const length = Math.min(size, MAX_LOW_COPY);
  return {
    rom: { gpa, size, file },
    lowCopy: { name: path, gpa: ONE_MIB - length, file, offset: size - length, length },
  };
}
