/**
 * ELF64 x86-64 images: kernels for PVH and the Linux 64-bit boot protocol, and test guests.
 *
 * Numbers and names are those of the System V ABI (elf.h) and of Xen's public/elfnote.h. The file
 * is not trusted: every offset and size is checked before it is used.
 *
 * @module
 */
import {
  BootError,
  describeSegment,
  type FileSegment,
  hex,
  type ImageFile,
  readExactly,
  segmentEnd,
} from "./image.ts";

const HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
const PN_XNUM = 0xffff;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;
/** Kernels have a few hundred bytes of notes; more than this is not read. */
const MAX_NOTES = 1 << 20;

/** What there is to know of an ELF image in order to start it. */
export interface ElfImage {
  /** The file. */
  readonly file: ImageFile;
  /** PT_LOAD segments at their physical addresses, in order of address. */
  readonly segments: readonly FileSegment[];
  /** Physical address of e_entry. */
  readonly entry: number;
  /** Physical address of the 32-bit PVH entry, from Xen's note PHYS32_ENTRY. */
  readonly pvhEntry?: number;
}

interface ProgramHeader {
  readonly index: number;
  readonly type: number;
  readonly offset: number;
  readonly vaddr: bigint;
  readonly paddr: number;
  readonly filesz: number;
  readonly memsz: number;
  readonly align: bigint;
}

function fail(file: ImageFile, reason: string): never {
  throw new BootError(`Error while loading elf image ${file.path}: ${reason}`);
}

/** Whether a file starts with ELF's magic number. */
export function isElf(file: ImageFile): boolean {
  if (file.size < 4) return false;
  return readExactly(file, 0, 4).getUint32(0) === 0x7f45_4c46; // \x7fELF
}

/**
 * Reads an image's headers and notes.
 *
 * @param file a file that {@linkcode isElf}
 * @throws {BootError} naming the file and the value that is wrong
 */
export function parseElf(file: ImageFile): ElfImage {
  if (file.size < HEADER_SIZE) {
    fail(file, `the file has ${file.size} bytes, an ELF64 header ${HEADER_SIZE}`);
  }
  const header = readExactly(file, 0, HEADER_SIZE);
  checkIdentity(file, header);
  const headers = readProgramHeaders(file, header);
  const loads = headers.filter((h) => h.type === PT_LOAD && h.memsz > 0);
  if (loads.length === 0) fail(file, "it has no segment to load (PT_LOAD)");
  const segments = loads.map((load, index) => loadSegment(file, load, index));
  segments.sort((a, b) => a.gpa - b.gpa);
  segments.slice(1).forEach((segment, i) => {
    if (segmentEnd(segments[i]) > segment.gpa) {
      fail(file, `${describeSegment(segments[i])} overlaps ${describeSegment(segment)}`);
    }
  });
  return {
    file,
    segments,
    entry: physicalEntry(header.getBigUint64(24, true), loads),
    pvhEntry: findPvhEntry(file, headers.filter((h) => h.type === PT_NOTE)),
  };
}

/**
 * Checks that an entry point lies inside of what is loaded.
 *
 * @param image the image
 * @param entry physical address
 * @param field what the image calls it, for the error message
 * @throws {BootError} if it does not
 */
export function checkEntry(image: ElfImage, entry: number, field: string): void {
  if (image.segments.some((s) => entry >= s.gpa && entry < segmentEnd(s))) return;
  fail(image.file, `${field} ${hex(entry)} lies in none of its segments`);
}

function checkIdentity(file: ImageFile, header: DataView): void {
  const elfClass = header.getUint8(4);
  if (elfClass !== ELFCLASS64) {
    fail(
      file,
      `The image is from incompatible architecture (EI_CLASS ${elfClass}, 64-bit is ${ELFCLASS64})`,
    );
  }
  const data = header.getUint8(5);
  if (data !== ELFDATA2LSB) fail(file, `The image has incorrect endianness (EI_DATA ${data})`);
  const machine = header.getUint16(18, true);
  if (machine !== EM_X86_64) {
    fail(
      file,
      `The image is from incompatible architecture (e_machine ${machine}, x86-64 is ${EM_X86_64})`,
    );
  }
  const type = header.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN) {
    fail(file, `it is not an executable (e_type ${type}, ET_EXEC is ${ET_EXEC})`);
  }
}

function readProgramHeaders(file: ImageFile, header: DataView): ProgramHeader[] {
  const offset = header.getBigUint64(32, true);
  const entrySize = header.getUint16(54, true);
  const count = header.getUint16(56, true);
  if (count === 0 || count === PN_XNUM) fail(file, `e_phnum is ${count}`);
  if (entrySize !== PROGRAM_HEADER_SIZE) {
    fail(file, `e_phentsize is ${entrySize}, not ${PROGRAM_HEADER_SIZE}`);
  }
  const size = count * PROGRAM_HEADER_SIZE;
  if (offset + BigInt(size) > BigInt(file.size)) {
    fail(
      file,
      `its program headers (${size} bytes at ${hex(offset)}) end outside of the file (${
        hex(file.size)
      } bytes)`,
    );
  }
  const table = readExactly(file, Number(offset), size);
  const headers: ProgramHeader[] = [];
  for (let index = 0; index < count; index++) {
    const parsed = readProgramHeader(file, table, index);
    if (parsed) headers.push(parsed);
  }
  return headers;
}

/** One PT_LOAD or PT_NOTE header, checked; undefined for types that mean nothing here. */
function readProgramHeader(
  file: ImageFile,
  table: DataView,
  index: number,
): ProgramHeader | undefined {
  const base = index * PROGRAM_HEADER_SIZE;
  const type = table.getUint32(base, true);
  if (type !== PT_LOAD && type !== PT_NOTE) return undefined;
  const u64 = (offset: number) => table.getBigUint64(base + offset, true);
  const [offset, vaddr, paddr, filesz, memsz, align] = [8, 16, 24, 32, 40, 48].map(u64);
  const what = `program header ${index}`;
  if (offset + filesz > BigInt(file.size)) {
    fail(
      file,
      `${what}: p_offset ${hex(offset)} + p_filesz ${hex(filesz)} is outside of the file (${
        hex(file.size)
      } bytes)`,
    );
  }
  if (type === PT_LOAD && filesz > memsz) {
    fail(file, `${what}: p_filesz ${hex(filesz)} is greater than p_memsz ${hex(memsz)}`);
  }
  // Beyond this no machine has RAM, and a number is no longer exact.
  if (paddr + memsz > BigInt(Number.MAX_SAFE_INTEGER)) {
    fail(file, `${what}: p_paddr ${hex(paddr)} + p_memsz ${hex(memsz)} is too big to load`);
  }
  return {
    index,
    type,
    offset: Number(offset),
    vaddr,
    paddr: Number(paddr),
    filesz: Number(filesz),
    memsz: Number(memsz),
    align,
  };
}

function loadSegment(file: ImageFile, load: ProgramHeader, index: number): FileSegment {
  return {
    name: `${file.path} ELF program header segment ${index}`,
    gpa: load.paddr,
    file,
    offset: load.offset,
    length: load.filesz,
    zeroTo: load.paddr + load.memsz,
  };
}

/**
 * The physical address of e_entry, which is virtual in most images but physical in a vmlinux.
 * Nothing is known of an entry outside of all segments: {@linkcode checkEntry} refuses it.
 */
function physicalEntry(entry: bigint, loads: readonly ProgramHeader[]): number {
  const isIn = (start: bigint, load: ProgramHeader) =>
    entry >= start && entry < start + BigInt(load.memsz);
  if (!loads.some((load) => isIn(BigInt(load.paddr), load))) {
    const load = loads.find((load) => isIn(load.vaddr, load));
    if (load) return Number(entry - load.vaddr) + load.paddr;
  }
  return Number(entry);
}

function findPvhEntry(file: ImageFile, notes: readonly ProgramHeader[]): number | undefined {
  for (const header of notes) {
    const what = `program header ${header.index} (PT_NOTE)`;
    if (header.filesz > MAX_NOTES) {
      fail(file, `${what}: p_filesz ${hex(header.filesz)} is greater than ${hex(MAX_NOTES)}`);
    }
    const notes = readExactly(file, header.offset, header.filesz);
    const entry = scanNotes(notes, header.align === 8n ? 8 : 4, (reason) => {
      fail(file, `${what}: ${reason}`);
    });
    if (entry !== undefined) return entry;
  }
  return undefined;
}

/** Looks for PHYS32_ENTRY in notes, each of which is name size, descriptor size, type, both. */
function scanNotes(
  notes: DataView,
  align: 4 | 8,
  fail: (reason: string) => never,
): number | undefined {
  const padded = (size: number) => Math.ceil(size / align) * align;
  for (let at = 0; at + 12 <= notes.byteLength;) {
    const [nameSize, descSize, type] = [0, 4, 8].map((o) => notes.getUint32(at + o, true));
    // The header's 12 bytes count where the name is padded: this matters for alignment 8.
    const desc = at + padded(12 + nameSize);
    if (desc + descSize > notes.byteLength) {
      fail(`the note at ${hex(at)} (name ${nameSize}, value ${descSize} bytes) is cut off`);
    }
    if (type === XEN_ELFNOTE_PHYS32_ENTRY && nameSize === 4 && isXen(notes, at + 12)) {
      // The entry is a 32-bit address; Linux's 64-bit kernels write it with .quad.
      if (descSize === 4) return notes.getUint32(desc, true);
      if (descSize === 8 && notes.getUint32(desc + 4, true) === 0) {
        return notes.getUint32(desc, true);
      }
      fail(`XEN_ELFNOTE_PHYS32_ENTRY (${descSize} bytes) is not a 32-bit address`);
    }
    at = desc + padded(descSize);
  }
  return undefined;
}

function isXen(notes: DataView, offset: number): boolean {
  return notes.getUint32(offset) === 0x5865_6e00; // "Xen\0"
}
