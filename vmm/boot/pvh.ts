/**
 * Xen's direct boot ABI, PVH (docs/misc/pvh, public/arch-x86/hvm/start_info.h): an ELF kernel is
 * entered in 32-bit protected mode and finds struct hvm_start_info at EBX.
 *
 * @module
 */
import { protected32Start } from "./cpu_start.ts";
import { checkEntry, type ElfImage } from "./elf.ts";
import { findPvhEntry } from "./elf_notes.ts";
import { BootError, type BytesSegment, type FileSegment, segmentLength } from "./image.ts";
import {
  BootAddress,
  cmdlineSegment,
  initrdSegment,
  type KernelPlan,
  type KernelRequest,
  MAX_CMDLINE,
  VMLINUX_INITRD_ADDR_MAX,
  writeMemoryMap,
} from "./kernel_data.ts";

/** XEN_HVM_START_MAGIC_VALUE: "xEn3" with the 0x80 bit of the "E" set. */
const START_MAGIC = 0x336e_c578;
/** The version that brought the memory map. */
const START_VERSION = 1;
/** struct hvm_start_info of version 1, rounded up; the lists follow it. */
const MODULE_LIST = 0x40;
const MEMORY_MAP = 0x60;
const MEMORY_MAP_ENTRY_SIZE = 24;

/**
 * Plans the start of an ELF kernel at its PVH entry.
 *
 * @param request kernel, initrd and command line
 * @param elf the kernel, parsed
 * @throws {BootError} if it has no PVH entry, or initrd or command line are too large
 */
export function planPvh(request: KernelRequest, elf: ElfImage): KernelPlan {
  const entry = findPvhEntry(elf);
  if (entry === undefined) {
    throw new BootError(
      `Error loading uncompressed kernel without PVH ELF Note: ${elf.file.path} needs x-boot=linux64`,
    );
  }
  checkEntry(elf, entry, "XEN_ELFNOTE_PHYS32_ENTRY");
  const cmdline = cmdlineSegment(request.cmdline, MAX_CMDLINE);
  const initrd = initrdSegment(request, elf.segments, VMLINUX_INITRD_ADDR_MAX);
  const startInfo = startInfoSegment(cmdline, initrd, request);
  return {
    segments: [startInfo, cmdline, ...elf.segments, ...(initrd ? [initrd] : [])],
    start: protected32Start(entry, startInfo.gpa),
  };
}

/** struct hvm_start_info with its module list (the initrd) and memory map behind it. */
function startInfoSegment(
  cmdline: BytesSegment,
  initrd: FileSegment | undefined,
  { ramSize, rsdp = 0 }: KernelRequest,
): BytesSegment {
  const gpa = BootAddress.START_INFO;
  const page = new Uint8Array(4096);
  const view = new DataView(page.buffer);
  const entries = writeMemoryMap(view, MEMORY_MAP, MEMORY_MAP_ENTRY_SIZE, ramSize);
  view.setUint32(0, START_MAGIC, true);
  view.setUint32(4, START_VERSION, true);
  if (initrd) {
    view.setUint32(12, 1, true); // nr_modules
    view.setBigUint64(16, BigInt(gpa + MODULE_LIST), true); // modlist_paddr
    view.setBigUint64(MODULE_LIST, BigInt(initrd.gpa), true);
    view.setBigUint64(MODULE_LIST + 8, BigInt(segmentLength(initrd)), true);
  }
  view.setBigUint64(24, BigInt(cmdline.gpa), true); // cmdline_paddr
  view.setBigUint64(32, BigInt(rsdp), true); // rsdp_paddr
  view.setBigUint64(40, BigInt(gpa + MEMORY_MAP), true); // memmap_paddr
  view.setUint32(48, entries, true); // memmap_entries
  const used = MEMORY_MAP + entries * MEMORY_MAP_ENTRY_SIZE;
  return { name: "hvm_start_info", gpa, bytes: page.subarray(0, used) };
}
