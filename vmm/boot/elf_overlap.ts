/**
 * Overlapping segments of an ELF image, as far as they contradict each other nowhere.
 *
 * Linkers make segments that share bytes of the file (headers that are mapped twice), and zeros that
 * reach into the next segment. Of these every order of loading makes the same memory.
 *
 * @module
 */
import { describeSegment, type FileSegment, segmentEnd } from "./image.ts";

/**
 * Cuts segments so that no two overlap.
 *
 * @param segments the segments, in any order
 * @param refuse called with the reason if two want different bytes in one place
 * @returns the same memory content, in order of address
 */
export function separateSegments(
  segments: readonly FileSegment[],
  refuse: (reason: string) => never,
): FileSegment[] {
  const sorted = segments.toSorted((a, b) => a.gpa - b.gpa);
  const overlaps = sorted.some((one, i) => i > 0 && segmentEnd(sorted[i - 1]) > one.gpa);
  if (!overlaps) return sorted;
  const contents = separateContents(sorted, refuse);
  const zeros = sorted.flatMap((segment) => {
    const from = segment.gpa + segment.length;
    return zerosBetween(segment, from, segmentEnd(segment), contents);
  });
  return mergeZeros([...contents, ...zeros].sort((a, b) => a.gpa - b.gpa));
}

/** The bytes that come from the file, each once. */
function separateContents(
  sorted: readonly FileSegment[],
  refuse: (reason: string) => never,
): FileSegment[] {
  const contents: FileSegment[] = [];
  for (const segment of sorted) {
    if (segment.length === 0) continue;
    const before = contents.at(-1);
    const end = before ? before.gpa + before.length : 0;
    const skip = Math.max(0, end - segment.gpa);
    if (before && skip > 0 && before.offset - before.gpa !== segment.offset - segment.gpa) {
      refuse(`${describeSegment(before)} overlaps ${describeSegment(segment)}`);
    }
    if (skip >= segment.length) continue;
    const gpa = segment.gpa + skip;
    const length = segment.length - skip;
    const offset = segment.offset + skip;
    contents.push({ ...segment, gpa, offset, length, zeroTo: gpa + length });
  }
  return contents;
}

/** The parts of a range of zeros that no content covers. */
function zerosBetween(
  segment: FileSegment,
  from: number,
  to: number,
  contents: readonly FileSegment[],
): FileSegment[] {
  const zeros: FileSegment[] = [];
  const add = (gpa: number, end: number) => {
    if (end > gpa) zeros.push({ ...segment, gpa, offset: 0, length: 0, zeroTo: end });
  };
  let at = from;
  for (const content of contents) {
    if (content.gpa >= to) break;
    add(at, content.gpa);
    at = Math.max(at, content.gpa + content.length);
  }
  add(at, to);
  return zeros;
}

/** Ranges of zeros may overlap each other: each begins where the one before it ends. */
function mergeZeros(sorted: readonly FileSegment[]): FileSegment[] {
  let end = 0;
  return sorted.flatMap((segment) => {
    const gpa = segment.length > 0 ? segment.gpa : Math.max(segment.gpa, end);
    const own = segmentEnd(segment);
    if (own <= gpa) return [];
    end = own;
    return [{ ...segment, gpa }];
  });
}
