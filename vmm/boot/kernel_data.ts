/**
 * What both kernel boot protocols hand over: command line and initrd, and where the VMM's own data
 * lies in the first 640 KiB of guest RAM.
 *
 * @module
 */
import { encodeText } from "../../ffi/text.ts";
import { e820Map, ramRanges } from "../firmware/e820.ts";
import { ONE_MIB } from "../machine/microvm.ts";
import {
  BootError,
  type BytesSegment,
  type FileSegment,
  type ImageFile,
  type Segment,
  segmentEnd,
} from "./image.ts";
import type { CpuStart } from "./cpu_start.ts";

/** Addresses of boot data; a kernel image may not be loaded over them. */
export const BootAddress = {
  /** The GDT of the 64-bit protocol, behind the BIOS data area. */
  GDT: 0x500,
  /** struct hvm_start_info, module list and memory map. */
  START_INFO: 0x6000,
  /** struct boot_params. */
  ZERO_PAGE: 0x7000,
  /** Page tables: PML4, PDPT and four page directories. */
  PAGE_TABLES: 0x9000,
  /** Command line, up to {@linkcode MAX_CMDLINE} bytes and a zero. */
  CMDLINE: 0x2_0000,
} as const;

/** Room for a command line, without the zero at its end. */
export const MAX_CMDLINE = 0xffff;

/** The longest command line of a vmlinux, which does not tell (COMMAND_LINE_SIZE - 1). */
export const VMLINUX_MAX_CMDLINE = 2047;

/** The highest initrd byte of a vmlinux: what 64-bit kernels state in their setup header. */
export const VMLINUX_INITRD_ADDR_MAX = 0x7fff_ffff;

/** A kernel and what it is started with. */
export interface KernelRequest {
  /** `-kernel` */
  readonly kernel: ImageFile;
  /** `-initrd` */
  readonly initrd?: ImageFile;
  /** Complete command line. */
  readonly cmdline: string;
  /** Bytes of guest RAM. */
  readonly ramSize: number;
  /** Guest physical address of ACPI's root pointer, if there are tables. */
  readonly rsdp?: number;
}

/** What to load for a kernel, and how the first vCPU starts. */
export interface KernelPlan {
  /** Kernel, initrd and boot data. */
  readonly segments: readonly Segment[];
  /** State of the boot processor. */
  readonly start: CpuStart;
}

/**
 * The command line as a zero-terminated string.
 *
 * @param cmdline the command line
 * @param max the longest that the kernel takes, in bytes without the zero
 * @throws {BootError} if it is longer, or has a zero character inside
 */
export function cmdlineSegment(cmdline: string, max: number): BytesSegment {
  const text = encodeText(cmdline);
  if (text.includes(0)) throw new BootError("the kernel command line contains a zero character");
  if (text.length > Math.min(max, MAX_CMDLINE)) {
    throw new BootError(
      `the kernel command line is too long: it has ${text.length} bytes, the kernel takes ${
        Math.min(max, MAX_CMDLINE)
      }`,
    );
  }
  const bytes = new Uint8Array(text.length + 1);
  bytes.set(text);
  return { name: "cmdline", gpa: BootAddress.CMDLINE, bytes };
}

/**
 * Places an initrd as high as it may lie, on a page boundary, above the kernel and 1 MiB.
 *
 * @param request the initrd and the size of RAM
 * @param kernel what is loaded for the kernel
 * @param addrMax the highest address that the initrd's last byte may have
 * @returns undefined if there is no initrd, or an empty one
 * @throws {BootError} if there is no room for it
 */
export function initrdSegment(
  { initrd, ramSize }: KernelRequest,
  kernel: readonly Segment[],
  addrMax: number,
): FileSegment | undefined {
  if (!initrd || initrd.size === 0) return undefined;
  const top = Math.min(addrMax + 1, ramRanges(ramSize)[0].size);
  const below = kernel.filter((segment) => segment.gpa < top).map(segmentEnd);
  const floor = Math.ceil(Math.max(ONE_MIB, ...below) / 4096) * 4096;
  const gpa = Math.floor((top - initrd.size) / 4096) * 4096;
  if (gpa < floor) {
    const max = Math.max(0, top - floor);
    throw new BootError(
      `initrd is too large, cannot support.(max: ${max}, need ${initrd.size})`,
    );
  }
  return { name: initrd.path, gpa, file: initrd, offset: 0, length: initrd.size };
}

/**
 * Writes the memory map with entries of address (64 bits), size (64 bits) and type (32 bits): the
 * layout that struct boot_e820_entry and struct hvm_memmap_table_entry share.
 *
 * @param view where to write
 * @param offset of the first entry, in bytes
 * @param stride bytes from one entry to the next
 * @param ramSize bytes of guest RAM
 * @returns number of entries
 */
export function writeMemoryMap(
  view: DataView,
  offset: number,
  stride: number,
  ramSize: number,
): number {
  const entries = e820Map(ramSize);
  entries.forEach(({ addr, size, type }, index) => {
    const at = offset + index * stride;
    view.setBigUint64(at, BigInt(addr), true);
    view.setBigUint64(at + 8, BigInt(size), true);
    view.setUint32(at + 16, type, true);
  });
  return entries.length;
}
