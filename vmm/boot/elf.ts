/**
 * ELF images for x86: kernels for PVH, multiboot and the Linux 64-bit boot protocol, test guests.
 *
 * Numbers and names are those of the System V ABI (elf.h). The file is not trusted: every offset and
 * size is checked before it is used. What does not matter for loading may be anything: the section
 * table, empty segments, types that are unknown here.
 *
 * @module
 */
import { separateSegments } from "./elf_overlap.ts";
import {
  BootError,
  type FileSegment,
  hex,
  type ImageFile,
  readExactly,
  segmentEnd,
} from "./image.ts";

const ELFCLASS32 = 1;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const ET_EXEC = 2;
const ET_DYN = 3;
const PT_LOAD = 1;
const PT_NOTE = 4;
const PN_XNUM = 0xffff;

/** Where the fields lie that are read of a header or program header, by class. */
interface Layout {
  readonly bits: 32 | 64;
  /** e_machine: EM_386 or EM_X86_64. */
  readonly machine: number;
  readonly headerSize: number;
  readonly programHeaderSize: number;
  readonly entry: number;
  readonly phoff: number;
  readonly phentsize: number;
  readonly phnum: number;
  /** Offsets of p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align. */
  readonly fields: readonly number[];
}

const LAYOUTS: Readonly<Record<number, Layout>> = {
  [ELFCLASS32]: {
    bits: 32,
    machine: 3,
    headerSize: 52,
    programHeaderSize: 32,
    entry: 24,
    phoff: 28,
    phentsize: 42,
    phnum: 44,
    fields: [4, 8, 12, 16, 20, 28],
  },
  [ELFCLASS64]: {
    bits: 64,
    machine: 62,
    headerSize: 64,
    programHeaderSize: 56,
    entry: 24,
    phoff: 32,
    phentsize: 54,
    phnum: 56,
    fields: [8, 16, 24, 32, 40, 48],
  },
};

/** A PT_NOTE segment, as the file says it is. */
export interface NoteSegment {
  /** Bytes from the start of the file. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** p_align. */
  readonly align: number;
}

/** What there is to know of an ELF image in order to start it. */
export interface ElfImage {
  /** The file. */
  readonly file: ImageFile;
  /** Its class. */
  readonly bits: 32 | 64;
  /** What to load at which physical address, in order of address; no two overlap. */
  readonly segments: readonly FileSegment[];
  /** Physical address of e_entry. */
  readonly entry: number;
  /** PT_NOTE segments, as far as they are in the file. */
  readonly notes: readonly NoteSegment[];
}

interface ProgramHeader {
  readonly index: number;
  readonly type: number;
  readonly offset: bigint;
  readonly vaddr: bigint;
  readonly paddr: bigint;
  readonly filesz: bigint;
  readonly memsz: bigint;
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
 * Reads an image's headers.
 *
 * @param file a file that {@linkcode isElf}
 * @throws {BootError} naming the file and the value that is wrong
 */
export function parseElf(file: ImageFile): ElfImage {
  const layout = readLayout(file);
  const header = readExactly(file, 0, layout.headerSize);
  checkIdentity(file, header, layout);
  const headers = readProgramHeaders(file, header, layout);
  const loads = headers.filter((h) => h.type === PT_LOAD && h.memsz > 0n);
  if (loads.length === 0) fail(file, "it has no segment to load (PT_LOAD)");
  const segments = loads.map((load, index) => loadSegment(file, load, index));
  return {
    file,
    bits: layout.bits,
    segments: separateSegments(segments, (reason) => fail(file, reason)),
    entry: physicalEntry(readWord(header, layout.entry, layout), loads),
    notes: headers.filter((h) => h.type === PT_NOTE && isInFile(h, file)).map((h) => ({
      offset: Number(h.offset),
      size: Number(h.filesz),
      align: Number(h.align),
    })),
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

function readLayout(file: ImageFile): Layout {
  const { headerSize } = LAYOUTS[ELFCLASS32];
  if (file.size < headerSize) {
    fail(file, `the file has ${file.size} bytes, an ELF header ${headerSize}`);
  }
  const elfClass = readExactly(file, 4, 1).getUint8(0);
  const layout = LAYOUTS[elfClass];
  if (!layout) {
    fail(
      file,
      `The image is from incompatible architecture (EI_CLASS ${elfClass}, 64-bit is ${ELFCLASS64})`,
    );
  }
  if (file.size < layout.headerSize) {
    fail(
      file,
      `the file has ${file.size} bytes, an ELF${layout.bits} header ${layout.headerSize}`,
    );
  }
  return layout;
}

function checkIdentity(file: ImageFile, header: DataView, layout: Layout): void {
  const data = header.getUint8(5);
  if (data !== ELFDATA2LSB) fail(file, `The image has incorrect endianness (EI_DATA ${data})`);
  const machine = header.getUint16(18, true);
  if (machine !== layout.machine) {
    fail(
      file,
      `The image is from incompatible architecture (e_machine ${machine}, ` +
        `${layout.bits === 64 ? "x86-64" : "i386"} is ${layout.machine})`,
    );
  }
  const type = header.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN) {
    fail(file, `it is not an executable (e_type ${type}, ET_EXEC is ${ET_EXEC})`);
  }
}

/** An address or a size, which has the width of the class. */
function readWord(view: DataView, offset: number, { bits }: Layout): bigint {
  return bits === 64 ? view.getBigUint64(offset, true) : BigInt(view.getUint32(offset, true));
}

/** All PT_LOAD and PT_NOTE headers; other types mean nothing here. */
function readProgramHeaders(file: ImageFile, header: DataView, layout: Layout): ProgramHeader[] {
  const offset = readWord(header, layout.phoff, layout);
  const entrySize = header.getUint16(layout.phentsize, true);
  const count = header.getUint16(layout.phnum, true);
  if (count === 0 || count === PN_XNUM) fail(file, `e_phnum is ${count}`);
  if (entrySize < layout.programHeaderSize) {
    fail(file, `e_phentsize is ${entrySize}, not ${layout.programHeaderSize}`);
  }
  const size = count * entrySize;
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
    const base = index * entrySize;
    const type = table.getUint32(base, true);
    if (type !== PT_LOAD && type !== PT_NOTE) continue;
    const words = layout.fields.map((field) => readWord(table, base + field, layout));
    const [offset, vaddr, paddr, filesz, memsz, align] = words;
    headers.push({ index, type, offset, vaddr, paddr, filesz, memsz, align });
  }
  return headers;
}

/** Nothing is read of an empty segment, wherever it claims to be. */
function isInFile({ offset, filesz }: ProgramHeader, file: ImageFile): boolean {
  return filesz === 0n || offset + filesz <= BigInt(file.size);
}

function loadSegment(file: ImageFile, load: ProgramHeader, index: number): FileSegment {
  const { offset, paddr, filesz, memsz } = load;
  const what = `program header ${load.index}`;
  if (!isInFile(load, file)) {
    fail(
      file,
      `${what}: p_offset ${hex(offset)} + p_filesz ${hex(filesz)} is outside of the file (${
        hex(file.size)
      } bytes)`,
    );
  }
  if (filesz > memsz) {
    fail(file, `${what}: p_filesz ${hex(filesz)} is greater than p_memsz ${hex(memsz)}`);
  }
  // Beyond this no machine has RAM, and a number is no longer exact.
  if (paddr + memsz > BigInt(Number.MAX_SAFE_INTEGER)) {
    fail(file, `${what}: p_paddr ${hex(paddr)} + p_memsz ${hex(memsz)} is too big to load`);
  }
  return {
    name: `${file.path} ELF program header segment ${index}`,
    gpa: Number(paddr),
    file,
    offset: filesz === 0n ? 0 : Number(offset),
    length: Number(filesz),
    zeroTo: Number(paddr + memsz),
  };
}

/**
 * The physical address of e_entry, which is virtual in most images but physical in a vmlinux.
 * Nothing is known of an entry outside of all segments: {@linkcode checkEntry} refuses it.
 */
function physicalEntry(entry: bigint, loads: readonly ProgramHeader[]): number {
  const isIn = (start: bigint, load: ProgramHeader) => entry >= start && entry < start + load.memsz;
  if (!loads.some((load) => isIn(load.paddr, load))) {
    const load = loads.find((load) => isIn(load.vaddr, load));
    if (load) return Number(entry - load.vaddr + load.paddr);
  }
  return Number(entry);
}
