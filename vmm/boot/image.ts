/**
 * Image files and the pieces of them that go into guest RAM.
 *
 * The boot protocols only plan: they read headers through {@linkcode ImageFile} and say which bytes
 * go where. Whoever executes the plan reads big pieces from the file straight into guest memory.
 *
 * @module
 */

/** An image that cannot be booted, or a machine that it does not fit into: the user's to mend. */
export class BootError extends Error {
  /** For stack traces. */
  override readonly name: string = "BootError";
}

/** An opened image file. */
export interface ImageFile {
  /** As the user gave it: error messages and segment names show it. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /**
   * Reads a part of the file.
   *
   * @param offset bytes from the start of the file
   * @param length bytes to read
   * @returns the bytes; fewer than `length` only where the file ends
   */
  read(offset: number, length: number): Uint8Array;
}

/** What both kinds of segment have. */
export interface SegmentBase {
  /** What it is, for error messages and `info roms`. */
  readonly name: string;
  /** Guest physical address of the first byte. */
  readonly gpa: number;
  /**
   * Guest physical address up to which (exclusive) the image uses RAM when it runs: nothing else
   * may be loaded there, but nothing has to be written there either.
   */
  readonly reserveTo?: number;
}

/** Bytes made by the VMM. */
export interface BytesSegment extends SegmentBase {
  /** The bytes, not to be changed. */
  readonly bytes: Uint8Array;
}

/** A part of a file, which need not pass through JavaScript. */
export interface FileSegment extends SegmentBase {
  /** Where the bytes come from. */
  readonly file: ImageFile;
  /** Bytes from the start of the file. */
  readonly offset: number;
  /** Bytes to read; 0 for a segment that is all zeros. */
  readonly length: number;
  /** Guest physical address up to which (exclusive) zeros follow what was read. */
  readonly zeroTo?: number;
}

/** Something to write into guest RAM before the first instruction. */
export type Segment = BytesSegment | FileSegment;

/** Number of bytes of a segment that are read or copied, without the zeros after them. */
export function segmentLength(segment: Segment): number {
  return "bytes" in segment ? segment.bytes.length : segment.length;
}

/** First guest physical address behind a segment, its zeros and what it reserves. */
export function segmentEnd(segment: Segment): number {
  const end = segment.gpa + segmentLength(segment);
  const zeroTo = "bytes" in segment ? end : segment.zeroTo ?? end;
  return Math.max(end, zeroTo, segment.reserveTo ?? end);
}

/** A number as 0x and hexadecimal digits. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

/** A segment's name and addresses, as QEMU writes them where ROMs overlap. */
export function describeSegment(segment: Segment): string {
  const address = (value: number) => `0x${value.toString(16).padStart(16, "0")}`;
  return `${segment.name} (addresses ${address(segment.gpa)} - ${address(segmentEnd(segment))})`;
}

/**
 * Reads a part of a file that has to be there.
 *
 * @throws {BootError} if the file ends before, because it was cut off meanwhile
 */
export function readExactly(file: ImageFile, offset: number, length: number): DataView {
  const bytes = file.read(offset, length);
  if (bytes.length !== length) {
    throw new BootError(
      `error reading ${file.path}: it ends at byte ${offset + bytes.length}, not ${file.size}`,
    );
  }
  return new DataView(bytes.buffer, bytes.byteOffset, length);
}
