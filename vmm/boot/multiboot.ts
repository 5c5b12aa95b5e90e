/**
 * Multiboot kernels (Multiboot Specification 0.6.96), as QEMU boots them: a 32-bit ELF image or one
 * whose header has its addresses, entered in 32-bit protected mode with the multiboot information
 * at EBX, and with the files of `-initrd` as modules.
 *
 * @module
 */
import { encodeText } from "../../ffi/text.ts";
import { EBDA_START, ONE_MIB } from "../machine/microvm.ts";
import { e820Map, ramRanges } from "../firmware/e820.ts";
import { isBzImage } from "./bzimage.ts";
import { multibootStart } from "./cpu_start.ts";
import { checkEntry, isElf, parseElf } from "./elf.ts";
import {
  BootError,
  type BytesSegment,
  type FileSegment,
  hex,
  type ImageFile,
  readExactly,
  segmentEnd,
} from "./image.ts";
import type { KernelPlan } from "./kernel_data.ts";

const HEADER_MAGIC = 0x1bad_b002;
/** The header lies within so many bytes, at a multiple of four. */
const HEADER_SEARCH = 8192;
const HEADER_SIZE = 12;
/** What the loader must do: align modules, tell memory, set a video mode. Of others nothing is known. */
const KNOWN_REQUIREMENTS = 7;
const REQUIREMENTS = 0xffff;
/** The header has the addresses at which the file is to be loaded. */
const HAS_ADDRESSES = 1 << 16;
const PAGE = 4096;
const EI_CLASS = 4;
const ELFCLASS64 = 2;

/** struct multiboot_info, and behind it memory map, module list and strings (QEMU's place). */
const INFO = 0x9500;
const INFO_SIZE = 88;
/** Which of its fields are valid. */
const INFO_FLAGS = {
  MEMORY: 1 << 0,
  BOOT_DEVICE: 1 << 1,
  CMDLINE: 1 << 2,
  MODULES: 1 << 3,
  MEMORY_MAP: 1 << 6,
  LOADER_NAME: 1 << 9,
} as const;
/** The first hard disk, whole, as QEMU says. */
const BOOT_DEVICE = 0x8000_ffff;
const MODULE_SIZE = 16;
/** An entry of the map is its size without this field, address, size and type. */
const MAP_ENTRY_SIZE = 24;

/** A module: a file, and the text that the kernel finds with it. */
export interface MultibootModule {
  readonly file: ImageFile;
  /** The file's name as it was given, and what came behind it. */
  readonly text: string;
}

/** A kernel and what it is started with. */
export interface MultibootRequest {
  readonly kernel: ImageFile;
  /** `-append` */
  readonly append: string;
  readonly modules: readonly MultibootModule[];
  /** Bytes of guest RAM. */
  readonly ramSize: number;
}

/** Where a file has its header, and the header's flags. */
interface Header {
  readonly offset: number;
  readonly flags: number;
}

/**
 * Whether a file is booted as a multiboot kernel: it has the header and is neither a bzImage nor a
 * 64-bit ELF image, which are booted by other protocols.
 */
export function isMultiboot(file: ImageFile): boolean {
  const isElf64 = isElf(file) && readExactly(file, EI_CLASS, 1).getUint8(0) === ELFCLASS64;
  return !isElf64 && !isBzImage(file) && findHeader(file) !== undefined;
}

/**
 * Splits what `-initrd` says into modules: `FILE ARGUMENTS,FILE ARGUMENTS`, a doubled comma for one.
 *
 * @returns of each the file's name and its text
 */
export function splitModules(text: string): { readonly path: string; readonly text: string }[] {
  const parts = text.match(/(?:[^,]|,,)+/g) ?? [];
  return parts.map((part) => {
    const text = part.replaceAll(",,", ",").trimStart();
    return { path: text.split(" ", 1)[0], text };
  });
}

/**
 * Plans the start of a multiboot kernel.
 *
 * @param request a kernel that {@linkcode isMultiboot}
 * @throws {BootError} if it wants what is not known, or it or its modules make no sense
 */
export function planMultiboot(request: MultibootRequest): KernelPlan {
  const { kernel, append, ramSize } = request;
  const header = findHeader(kernel)!;
  const unknown = header.flags & REQUIREMENTS & ~KNOWN_REQUIREMENTS;
  if (unknown !== 0) {
    throw new BootError(
      `${kernel.path} is a multiboot kernel that requires what is not known: flags ${hex(unknown)}`,
    );
  }
  const { segments, entry } = header.flags & HAS_ADDRESSES
    ? loadByHeader(kernel, header)
    : loadElf(kernel);
  const modules = placeModules(request.modules, Math.max(ONE_MIB, ...segments.map(segmentEnd)));
  const info = infoSegment(`${kernel.path} ${append}`, request.modules, modules, ramSize);
  return { segments: [info, ...segments, ...modules], start: multibootStart(entry, info.gpa) };
}

function findHeader(file: ImageFile): Header | undefined {
  const length = Math.min(file.size, HEADER_SEARCH);
  const view = readExactly(file, 0, length);
  for (let offset = 0; offset + HEADER_SIZE <= length; offset += 4) {
    if (view.getUint32(offset, true) !== HEADER_MAGIC) continue;
    const [flags, checksum] = [4, 8].map((field) => view.getUint32(offset + field, true));
    if ((HEADER_MAGIC + flags + checksum) % 2 ** 32 === 0) return { offset, flags };
  }
  return undefined;
}

interface Loaded {
  readonly segments: readonly FileSegment[];
  readonly entry: number;
}

function loadElf(file: ImageFile): Loaded {
  if (!isElf(file)) {
    throw new BootError(`${file.path} is a multiboot kernel without addresses, and no ELF image`);
  }
  const elf = parseElf(file);
  checkEntry(elf, elf.entry, "e_entry");
  return { segments: elf.segments, entry: elf.entry };
}

/** The addresses behind the header (3.1.3): of itself, of what to load, its end, the BSS's, the entry. */
function loadByHeader(file: ImageFile, { offset }: Header): Loaded {
  const fail = (reason: string): never => {
    throw new BootError(`${file.path}: its multiboot header makes no sense: ${reason}`);
  };
  if (offset + 32 > file.size) fail("it ends outside of the file");
  const view = readExactly(file, offset + HEADER_SIZE, 20);
  const [header, load, loadEnd, bssEnd, entry] = [0, 4, 8, 12, 16].map((at) =>
    view.getUint32(at, true)
  );
  const start = offset - (header - load);
  if (header < load || start < 0) fail(`header_addr ${hex(header)}, load_addr ${hex(load)}`);
  const length = loadEnd === 0 ? file.size - start : loadEnd - load;
  if (length < 0 || start + length > file.size) fail(`load_end_addr ${hex(loadEnd)}`);
  const end = bssEnd === 0 ? load + length : bssEnd;
  if (end < load + length) fail(`bss_end_addr ${hex(bssEnd)}`);
  if (entry < load || entry >= end) fail(`entry_addr ${hex(entry)}`);
  const name = `${file.path} multiboot image`;
  return { segments: [{ name, gpa: load, file, offset: start, length, zeroTo: end }], entry };
}

/** Modules follow the kernel, each on a page boundary. */
function placeModules(modules: readonly MultibootModule[], end: number): FileSegment[] {
  let at = end;
  return modules.map(({ file }) => {
    const gpa = Math.ceil(at / PAGE) * PAGE;
    at = gpa + file.size;
    return { name: file.path, gpa, file, offset: 0, length: file.size };
  });
}

/** struct multiboot_info with all that it points at. */
function infoSegment(
  cmdline: string,
  modules: readonly MultibootModule[],
  placed: readonly FileSegment[],
  ramSize: number,
): BytesSegment {
  const map = e820Map(ramSize);
  const mapAt = INFO_SIZE;
  const modulesAt = mapAt + map.length * MAP_ENTRY_SIZE;
  const stringsAt = modulesAt + modules.length * MODULE_SIZE;
  const strings = new Strings(INFO + stringsAt);
  const cmdlineAddress = strings.add(cmdline);
  const loaderAddress = strings.add("Denovo");
  const moduleAddresses = modules.map(({ text }) => strings.add(text));
  const bytes = new Uint8Array(stringsAt + strings.length);
  if (INFO + bytes.length > EBDA_START) {
    throw new BootError(
      `command line and modules of a multiboot kernel are too long: ${strings.length} bytes`,
    );
  }
  const view = new DataView(bytes.buffer);
  const put = (offset: number, ...values: number[]) =>
    values.forEach((value, i) => view.setUint32(offset + 4 * i, value, true));
  const flags = INFO_FLAGS.MEMORY | INFO_FLAGS.BOOT_DEVICE | INFO_FLAGS.CMDLINE |
    INFO_FLAGS.MEMORY_MAP | INFO_FLAGS.LOADER_NAME | (modules.length > 0 ? INFO_FLAGS.MODULES : 0);
  const low = ramRanges(ramSize)[0].size;
  put(0, flags, Math.min(low, EBDA_START) / 1024, Math.max(0, low - ONE_MIB) / 1024);
  put(12, BOOT_DEVICE, cmdlineAddress, modules.length, INFO + modulesAt);
  put(44, map.length * MAP_ENTRY_SIZE, INFO + mapAt);
  put(64, loaderAddress);
  map.forEach(({ addr, size, type }, i) => {
    const at = mapAt + i * MAP_ENTRY_SIZE;
    put(at, MAP_ENTRY_SIZE - 4);
    view.setBigUint64(at + 4, BigInt(addr), true);
    view.setBigUint64(at + 12, BigInt(size), true);
    put(at + 20, type);
  });
  placed.forEach((module, i) =>
    put(modulesAt + i * MODULE_SIZE, module.gpa, segmentEnd(module), moduleAddresses[i])
  );
  strings.copyTo(bytes.subarray(stringsAt));
  return { name: "multiboot_info", gpa: INFO, bytes };
}

/** Texts that end in zeros, one behind the other. */
class Strings {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  constructor(readonly address: number) {}

  /** Adds a text; returns its guest physical address. @throws {BootError} if it has a zero inside */
  add(text: string): number {
    const bytes = encodeText(`${text}\0`);
    if (bytes.indexOf(0) !== bytes.length - 1) {
      throw new BootError("the kernel command line contains a zero character");
    }
    const address = this.address + this.length;
    this.#parts.push(bytes);
    this.length += bytes.length;
    return address;
  }

  copyTo(target: Uint8Array): void {
    let at = 0;
    for (const part of this.#parts) {
      target.set(part, at);
      at += part.length;
    }
  }
}
