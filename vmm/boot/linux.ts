/**
 * The Linux 64-bit boot protocol (Documentation/arch/x86/boot.rst, zero-page.rst): for a bzImage at
 * its 64-bit entry point, for an ELF vmlinux at e_entry.
 *
 * @module
 */
import {
  BOOT_FLAG,
  type BzImage,
  HDRS,
  LOADED_HIGH,
  parseBzImage,
  SetupHeader,
  VERSION_2_12,
} from "./bzimage.ts";
import { bootGdt, long64Start } from "./cpu_start.ts";
import { HIGH_RAM_START } from "../machine/microvm.ts";
import { checkEntry, type ElfImage } from "./elf.ts";
import {
  BootError,
  type BytesSegment,
  type FileSegment,
  hex,
  type Segment,
  segmentLength,
} from "./image.ts";
import {
  BootAddress,
  cmdlineSegment,
  initrdSegment,
  type KernelPlan,
  type KernelRequest,
  VMLINUX_INITRD_ADDR_MAX,
  VMLINUX_MAX_CMDLINE,
  writeMemoryMap,
} from "./kernel_data.ts";

const PAGE = 4096;
const LARGE_PAGE = 2 << 20;
/** Page table entry bits. */
const PRESENT_WRITABLE = 3n;
const LARGE = 1n << 7n;
/** Page directories: 1 GiB each, so that everything below 4 GiB is mapped, devices too. */
const DIRECTORIES = 4;
/** Offsets in struct boot_params besides the setup header. */
const ACPI_RSDP_ADDR = 0x70;
const E820_ENTRIES = 0x1e8;
const E820_TABLE = 0x2d0;
const E820_ENTRY_SIZE = 20;
/** Boot loader type 0xff: one without a number of its own. */
const LOADER_UNDEFINED = 0xff;

/** A kernel of either format, ready to be placed. */
interface LinuxImage {
  readonly segments: readonly FileSegment[];
  readonly entry: number;
  /** The setup header to start from. */
  readonly header: Uint8Array;
  readonly cmdlineSize: number;
  readonly initrdAddrMax: number;
}

/**
 * Plans the start of a bzImage.
 *
 * @throws {BootError} if the image cannot be booted, or initrd or command line are too large
 */
export function planBzImage(request: KernelRequest): KernelPlan {
  const image: BzImage = parseBzImage(request.kernel);
  return planLinux(request, { ...image, segments: [image.segment] });
}

/**
 * Plans the start of an ELF vmlinux at e_entry.
 *
 * @param request kernel, initrd and command line
 * @param elf the kernel, parsed
 * @throws {BootError} if the entry is not in the image, or initrd or command line are too large
 */
export function planLinuxElf(request: KernelRequest, elf: ElfImage): KernelPlan {
  checkEntry(elf, elf.entry, "e_entry");
  if (elf.entry >= HIGH_RAM_START) {
    throw new BootError(
      `Error while loading elf image ${elf.file.path}: e_entry ${hex(elf.entry)} is above 4 GiB`,
    );
  }
  return planLinux(request, {
    segments: elf.segments,
    entry: elf.entry,
    header: vmlinuxHeader(),
    cmdlineSize: VMLINUX_MAX_CMDLINE,
    initrdAddrMax: VMLINUX_INITRD_ADDR_MAX,
  });
}

function planLinux(request: KernelRequest, image: LinuxImage): KernelPlan {
  const cmdline = cmdlineSegment(request.cmdline, image.cmdlineSize);
  const initrd = initrdSegment(request, image.segments, image.initrdAddrMax);
  const segments: Segment[] = [
    { name: "gdt", gpa: BootAddress.GDT, bytes: bootGdt() },
    zeroPage(image.header, cmdline, initrd, request),
    { name: "page tables", gpa: BootAddress.PAGE_TABLES, bytes: identityPageTables() },
    cmdline,
    ...image.segments,
  ];
  if (initrd) segments.push(initrd);
  const start = long64Start({
    rip: image.entry,
    rsi: BootAddress.ZERO_PAGE,
    cr3: BootAddress.PAGE_TABLES,
    gdt: BootAddress.GDT,
  });
  return { segments, start };
}

/** The setup header that a vmlinux, which has none, is told of. */
function vmlinuxHeader(): Uint8Array {
  const header = new Uint8Array(SetupHeader.INIT_SIZE + 4 - SetupHeader.START);
  const view = new DataView(header.buffer);
  const at = (offset: number) => offset - SetupHeader.START;
  view.setUint16(at(SetupHeader.BOOT_FLAG), BOOT_FLAG, true);
  view.setUint32(at(SetupHeader.HEADER), HDRS, true);
  view.setUint16(at(SetupHeader.VERSION), VERSION_2_12, true);
  view.setUint8(at(SetupHeader.LOADFLAGS), LOADED_HIGH);
  view.setUint32(at(SetupHeader.INITRD_ADDR_MAX), VMLINUX_INITRD_ADDR_MAX, true);
  view.setUint32(at(SetupHeader.KERNEL_ALIGNMENT), LARGE_PAGE, true);
  view.setUint32(at(SetupHeader.CMDLINE_SIZE), VMLINUX_MAX_CMDLINE, true);
  return header;
}

/**
 * struct boot_params. Its screen_info stays zero, which tells Linux that there is no display.
 */
function zeroPage(
  header: Uint8Array,
  cmdline: BytesSegment,
  initrd: FileSegment | undefined,
  { ramSize, rsdp = 0 }: KernelRequest,
): BytesSegment {
  const bytes = new Uint8Array(PAGE);
  const view = new DataView(bytes.buffer);
  bytes.set(header, SetupHeader.START);
  view.setUint8(SetupHeader.TYPE_OF_LOADER, LOADER_UNDEFINED);
  view.setUint32(SetupHeader.CMD_LINE_PTR, cmdline.gpa, true);
  view.setUint32(SetupHeader.RAMDISK_IMAGE, initrd?.gpa ?? 0, true);
  view.setUint32(SetupHeader.RAMDISK_SIZE, initrd ? segmentLength(initrd) : 0, true);
  view.setBigUint64(ACPI_RSDP_ADDR, BigInt(rsdp), true);
  view.setUint8(E820_ENTRIES, writeMemoryMap(view, E820_TABLE, E820_ENTRY_SIZE, ramSize));
  return { name: "boot_params", gpa: BootAddress.ZERO_PAGE, bytes };
}

/** Page tables that map the first 4 GiB to themselves with pages of 2 MiB. */
function identityPageTables(): Uint8Array {
  const perPage = PAGE / 8;
  const entries = new BigUint64Array((2 + DIRECTORIES) * perPage);
  const table = (index: number) => BigInt(BootAddress.PAGE_TABLES + index * PAGE);
  entries[0] = table(1) | PRESENT_WRITABLE;
  for (let i = 0; i < DIRECTORIES; i++) entries[perPage + i] = table(2 + i) | PRESENT_WRITABLE;
  for (let i = 0; i < DIRECTORIES * perPage; i++) {
    entries[2 * perPage + i] = BigInt(i * LARGE_PAGE) | PRESENT_WRITABLE | LARGE;
  }
  return new Uint8Array(entries.buffer);
}
