/**
 * Where the bytes of a disk are: in which file of a chain of images, or nowhere.
 *
 * @module
 */
import { diskSize } from "../../devices/block/disk.ts";
import type { BlockNode } from "../../devices/block/node.ts";
import { ClusterKind } from "../../devices/block/qcow2/mapping.ts";
import { Qcow2Node } from "../../devices/block/qcow2/node.ts";
import { dataRanges, O, openFile } from "../../ffi/fd.ts";

/** Bytes that go together (QAPI MapEntry). */
export interface Extent {
  readonly start: number;
  readonly length: number;
  /** How many images there are before the one that has them. */
  readonly depth: number;
  /** Whether an image of the chain says what they are. */
  readonly present: boolean;
  /** Whether they read as zeros. */
  readonly zero: boolean;
  /** Whether they are in a file. */
  readonly data: boolean;
  /** Where in the file, if they lie there as they are read. */
  readonly offset?: number;
  readonly filename?: string;
}

/** The extents of a disk, as few as there can be. */
export function* extents(node: BlockNode): Generator<Extent> {
  let last: Extent | undefined;
  for (const next of walk(node, 0, diskSize(node.description), 0)) {
    if (last && continues(last, next)) last = { ...last, length: last.length + next.length };
    else {
      if (last) yield last;
      last = next;
    }
  }
  if (last) yield last;
}

function continues(last: Extent, next: Extent): boolean {
  const { depth, present, zero, data, offset } = last;
  return depth === next.depth && present === next.present && zero === next.zero &&
    data === next.data && (offset === undefined ? undefined : offset + last.length) === next.offset;
}

function walk(node: BlockNode, start: number, end: number, depth: number): Generator<Extent> {
  return node instanceof Qcow2Node
    ? walkQcow2(node, start, end, depth)
    : walkFile(node, start, end, depth);
}

function* walkQcow2(
  node: Qcow2Node,
  start: number,
  end: number,
  depth: number,
): Generator<Extent> {
  const { backing } = node;
  for (let at = start; at < end;) {
    const { found, length } = node.extent(at, end - at);
    const common = { start: at, length, depth };
    const cluster = 2 ** node.format.clusterBits;
    switch (found.kind) {
      case ClusterKind.NORMAL:
        yield {
          ...{ ...common, present: true, zero: false, data: true, filename: node.filename },
          offset: node.child.description.offset + found.host + at % cluster,
        };
        break;
      case ClusterKind.COMPRESSED:
        yield { ...common, present: true, zero: false, data: true };
        break;
      case ClusterKind.ZERO:
        yield { ...common, present: true, zero: true, data: false };
        break;
      default: {
        const shown = backing ? Math.min(at + length, diskSize(backing.description)) : at;
        if (backing && shown > at) yield* walk(backing, at, shown, depth + 1);
        const rest = { start: Math.max(at, shown), depth, present: false, zero: true, data: false };
        if (rest.start < at + length) yield { ...rest, length: at + length - rest.start };
      }
    }
    at += length;
  }
}

function* walkFile(node: BlockNode, start: number, end: number, depth: number): Generator<Extent> {
  const { offset: shift } = node.description;
  const { filename } = node.base;
  const extent = (from: number, to: number, data: boolean): Extent => ({
    ...{ start: from, length: to - from, depth, present: true, zero: !data, data },
    ...{ offset: shift + from, filename },
  });
  let at = start;
  // A description of its own, whose position is nobody else's.
  using file = openFile(filename, O.RDONLY);
  for (const [from, to] of dataRanges(file.fd, shift + start, shift + end)) {
    if (from - shift > at) yield extent(at, from - shift, false);
    yield extent(from - shift, to - shift, true);
    at = to - shift;
  }
  if (at < end) yield extent(at, end, false);
}
