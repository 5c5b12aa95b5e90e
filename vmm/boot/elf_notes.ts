/**
 * ELF notes, of which one matters: Xen's PHYS32_ENTRY, the entry of a PVH kernel (Xen's
 * public/elfnote.h).
 *
 * A note is a hint. Linkers write segments of notes that are cut off, aligned in one way and declared
 * in another, or huge, and whoever needs no note never looks at them: what makes no sense is passed
 * over, and only a PHYS32_ENTRY that is none is an error.
 *
 * @module
 */
import type { ElfImage, NoteSegment } from "./elf.ts";
import { BootError, readExactly } from "./image.ts";

const XEN_ELFNOTE_PHYS32_ENTRY = 18;
/** "Xen\0" */
const XEN = 0x5865_6e00;
/** Kernels have a few hundred bytes of notes; what comes behind this is not read. */
const MAX_NOTES = 1 << 20;

/**
 * The physical address of the 32-bit PVH entry.
 *
 * @param image the image
 * @returns undefined if no note says it
 * @throws {BootError} if a note says one that is no 32-bit address
 */
export function findPvhEntry(image: ElfImage): number | undefined {
  for (const segment of image.notes) {
    const value = readNotes(image, segment);
    if (!value) continue;
    // The entry is a 32-bit address; Linux's 64-bit kernels write it with .quad.
    const isQuad = value.byteLength === 8 && value.getUint32(4, true) === 0;
    if (value.byteLength === 4 || isQuad) return value.getUint32(0, true);
    throw new BootError(
      `Error while loading elf image ${image.file.path}: XEN_ELFNOTE_PHYS32_ENTRY ` +
        `(${value.byteLength} bytes) is not a 32-bit address`,
    );
  }
  return undefined;
}

/** The value of PHYS32_ENTRY. Some linkers declare an alignment that the notes do not have. */
function readNotes({ file }: ElfImage, segment: NoteSegment): DataView | undefined {
  const notes = readExactly(file, segment.offset, Math.min(segment.size, MAX_NOTES));
  const declared = segment.align === 8 ? 8 : 4;
  return scanNotes(notes, declared) ?? scanNotes(notes, declared === 8 ? 4 : 8);
}

/** Each note is name size, value size, type, name, value. */
function scanNotes(notes: DataView, align: 4 | 8): DataView | undefined {
  const padded = (size: number) => Math.ceil(size / align) * align;
  for (let at = 0; at + 12 <= notes.byteLength;) {
    const [nameSize, valueSize, type] = [0, 4, 8].map((o) => notes.getUint32(at + o, true));
    // The header's 12 bytes count where the name is padded: this matters for alignment 8.
    const value = at + padded(12 + nameSize);
    if (value + valueSize > notes.byteLength) return undefined;
    const isXen = nameSize === 4 && notes.getUint32(at + 12) === XEN;
    if (type === XEN_ELFNOTE_PHYS32_ENTRY && isXen) {
      return new DataView(notes.buffer, notes.byteOffset + value, valueSize);
    }
    at = value + padded(valueSize);
  }
  return undefined;
}
