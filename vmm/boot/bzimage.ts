/**
 * bzImage kernels: the setup header of Documentation/arch/x86/boot.rst, read and checked.
 *
 * @module
 */
import { LOW_RAM_LIMIT, ONE_MIB } from "../machine/microvm.ts";
import { BootError, type FileSegment, hex, type ImageFile, readExactly } from "./image.ts";

/** Offsets of setup header fields, the same in a bzImage and in struct boot_params. */
export const SetupHeader = {
  START: 0x1f1,
  SETUP_SECTS: 0x1f1,
  SYSSIZE: 0x1f4,
  BOOT_FLAG: 0x1fe,
  JUMP: 0x200,
  HEADER: 0x202,
  VERSION: 0x206,
  TYPE_OF_LOADER: 0x210,
  LOADFLAGS: 0x211,
  RAMDISK_IMAGE: 0x218,
  RAMDISK_SIZE: 0x21c,
  CMD_LINE_PTR: 0x228,
  INITRD_ADDR_MAX: 0x22c,
  KERNEL_ALIGNMENT: 0x230,
  XLOADFLAGS: 0x236,
  CMDLINE_SIZE: 0x238,
  PREF_ADDRESS: 0x258,
  INIT_SIZE: 0x260,
} as const;

/** Value of BOOT_FLAG. */
export const BOOT_FLAG = 0xaa55;
/** Value of HEADER: "HdrS". */
export const HDRS = 0x5372_6448;
/** LOADFLAGS: the protected-mode code is loaded at or above 1 MiB. */
export const LOADED_HIGH = 1;
/** The first protocol version with the 64-bit entry point. */
export const VERSION_2_12 = 0x020c;

const XLF_KERNEL_64 = 1;
/** Where the header of version 2.12 ends. */
const MIN_HEADER_END = 0x268;
/** How much room struct boot_params has for the header. */
const MAX_HEADER_END = 0x290;
const SECTOR = 512;
const PARAGRAPH = 16;
/** The 64-bit entry point, from the start of the protected-mode code. */
const ENTRY_64 = 0x200;

/** What there is to know of a bzImage in order to start it. */
export interface BzImage {
  /** The protected-mode code at the address it prefers, with what it needs to unpack itself. */
  readonly segment: FileSegment;
  /** Address of the 64-bit entry point. */
  readonly entry: number;
  /** The setup header: the bytes from {@linkcode SetupHeader}.START on. */
  readonly header: Uint8Array;
  /** The longest command line, in bytes without the zero at its end. */
  readonly cmdlineSize: number;
  /** The highest address that the initrd's last byte may have. */
  readonly initrdAddrMax: number;
}

function fail(file: ImageFile, reason: string): never {
  throw new BootError(`invalid kernel header: ${file.path} ${reason}`);
}

/** Whether a file has the setup header of a Linux kernel. */
export function isBzImage(file: ImageFile): boolean {
  if (file.size < MIN_HEADER_END) return false;
  const start = readExactly(file, 0, MIN_HEADER_END);
  return start.getUint16(SetupHeader.BOOT_FLAG, true) === BOOT_FLAG &&
    start.getUint32(SetupHeader.HEADER, true) === HDRS;
}

/**
 * Reads a kernel's setup header.
 *
 * @param file a file that {@linkcode isBzImage}
 * @throws {BootError} naming the file and the value that is wrong or that cannot be booted
 */
export function parseBzImage(file: ImageFile): BzImage {
  const start = readExactly(file, 0, Math.min(file.size, MAX_HEADER_END));
  checkProtocol(file, start);
  const headerEnd = SetupHeader.HEADER + start.getUint8(SetupHeader.JUMP + 1);
  if (headerEnd < MIN_HEADER_END || headerEnd > start.byteLength) {
    fail(file, `has a setup header that ends at ${hex(headerEnd)}`);
  }
  const segment = protectedModeCode(file, start);
  return {
    segment,
    entry: segment.gpa + ENTRY_64,
    header: new Uint8Array(
      start.buffer,
      start.byteOffset + SetupHeader.START,
      headerEnd - SetupHeader.START,
    ),
    cmdlineSize: start.getUint32(SetupHeader.CMDLINE_SIZE, true),
    initrdAddrMax: start.getUint32(SetupHeader.INITRD_ADDR_MAX, true),
  };
}

function checkProtocol(file: ImageFile, start: DataView): void {
  const version = start.getUint16(SetupHeader.VERSION, true);
  if (version < VERSION_2_12) {
    fail(
      file,
      `speaks boot protocol ${hex(version)}; the 64-bit entry needs ${
        hex(VERSION_2_12)
      } (Linux 3.8)`,
    );
  }
  const loadflags = start.getUint8(SetupHeader.LOADFLAGS);
  if (!(loadflags & LOADED_HIGH)) {
    fail(file, `is a zImage (loadflags ${hex(loadflags)}); build a bzImage`);
  }
  const xloadflags = start.getUint16(SetupHeader.XLOADFLAGS, true);
  if (!(xloadflags & XLF_KERNEL_64)) {
    fail(file, `has no 64-bit entry point (xloadflags ${hex(xloadflags)}); use a 64-bit kernel`);
  }
}

/**
 * Where the protected-mode code goes: to pref_address, whether or not it is relocatable, because a
 * relocatable kernel that finds itself below moves up to it.
 */
function protectedModeCode(file: ImageFile, start: DataView): FileSegment {
  // boot.rst: for backwards compatibility, 0 means 4.
  const sectors = start.getUint8(SetupHeader.SETUP_SECTS) || 4;
  const offset = (sectors + 1) * SECTOR;
  const length = file.size - offset;
  // In paragraphs: an image need not fill its last one (memtest86+ does not).
  const promised = start.getUint32(SetupHeader.SYSSIZE, true) * PARAGRAPH;
  if (length <= ENTRY_64 || length <= promised - PARAGRAPH) {
    fail(file, `is cut off: it has ${file.size} bytes, its header promises ${offset + promised}`);
  }
  const gpa = start.getBigUint64(SetupHeader.PREF_ADDRESS, true);
  const initSize = start.getUint32(SetupHeader.INIT_SIZE, true);
  const size = Math.max(initSize, length);
  if (gpa < BigInt(ONE_MIB) || gpa + BigInt(size) > BigInt(LOW_RAM_LIMIT)) {
    fail(
      file,
      `wants to run at ${hex(gpa)} (pref_address) with ${
        hex(size)
      } bytes (init_size), which is not between 1 MiB and 3 GiB`,
    );
  }
  const reserveTo = Number(gpa) + size;
  return { name: file.path, gpa: Number(gpa), file, offset, length, reserveTo };
}
