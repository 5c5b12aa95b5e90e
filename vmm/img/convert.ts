/**
 * `denovo img convert` and `compare`.
 *
 * @module
 */
import { clusterSize } from "../../devices/block/qcow2/format.ts";
import { isZero } from "../../ffi/memory.ts";
import { Arguments, common, progress, showProgress } from "./arguments.ts";
import { createImage, optionsHelp, readOptions } from "./create.ts";
import { extents } from "./extents.ts";
import { checkFormat, ImgImage, must } from "./image.ts";

const SECTOR = 512;
/** Zeros are looked for in parts of so many bytes. */
const GRAIN = 64 << 10;

/** `convert` */
export function convertCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, {
    ...common,
    ...progress,
    "output-format": { type: "string", short: "O" },
    options: { type: "string", short: "o", multiple: true },
    "no-create": { type: "boolean", short: "n" },
    compress: { type: "boolean", short: "c" },
  });
  const format = checkFormat(args.get("output-format") ?? "raw", "file format");
  const given = readOptions(args.all("options"));
  if (given.help) {
    console.log(optionsHelp(format));
    return 0;
  }
  const [filename, target, ...rest] = args.rest;
  if (target === undefined) throw new Error("Must specify image file name");
  if (rest.length > 0) throw new Error("Images are converted one at a time");
  const compress = args.has("compress");
  if (compress && format === "raw") {
    throw new Error("Compression not supported for this file format");
  }
  if (compress && (given.options.get("preallocation") ?? "off") !== "off") {
    throw new Error("Compression and preallocation not supported at the same time");
  }
  const share = args.has("force-share");
  using source = new ImgImage(filename, { format: args.get("format"), share });
  const isNew = !args.has("no-create");
  if (isNew) {
    createImage({ filename: target, format, options: given.options, size: source.size });
  }
  using into = new ImgImage(target, { format, writable: true });
  if (into.size < source.size) {
    throw new Error("output file is smaller than input file");
  }
  const show = args.has("progress") && !args.has("quiet") ? showProgress : () => {};
  show(0);
  const hasZeros = isNew && into.node.backing === undefined;
  if (compress) copyCompressed(source, into, hasZeros, show);
  else copy(source, into, hasZeros, show);
  must("flush", target, 0, into.disk.flush());
  show(1);
  return 0;
}

/** Copies a disk; where it has zeros the other one has them already, or gets them. */
function copy(
  source: ImgImage,
  into: ImgImage,
  hasZeros: boolean,
  show: (part: number) => void,
): void {
  const zero = (offset: number, length: number) => {
    if (hasZeros) return;
    must("write", into.filename, offset, into.disk.writeZeroes(offset, length, true));
  };
  for (const { start, length, zero: isHole } of extents(source.node)) {
    if (isHole) {
      zero(start, length);
      continue;
    }
    for (const { offset, bytes } of source.pieces(start, start + length)) {
      for (const { from, to, data } of runs(bytes)) {
        if (data) source.copyTo(into.disk, into.filename, from, to - from, offset + from);
        else zero(offset + from, to - from);
      }
      show((offset + bytes.length) / source.size);
    }
  }
}

/** Copies a disk by whole clusters, which are compressed where that makes them smaller. */
function copyCompressed(
  source: ImgImage,
  into: ImgImage,
  hasZeros: boolean,
  show: (part: number) => void,
): void {
  const cluster = clusterSize(into.qcow2!.format);
  const zero = (offset: number, length: number) => {
    if (hasZeros || length <= 0) return;
    must("write", into.filename, offset, into.disk.writeZeroes(offset, length, true));
  };
  let done = 0;
  for (const { start, length, zero: isHole } of extents(source.node)) {
    const end = start + length;
    // What is data in part of a cluster is copied with all of it.
    if (isHole || end <= done) {
      zero(Math.max(start, done), end - Math.max(start, done));
      continue;
    }
    const from = Math.max(done, start - start % cluster);
    done = Math.min(source.size, Math.ceil(end / cluster) * cluster);
    for (const { offset, bytes } of source.pieces(from, done)) {
      for (let at = 0; at < bytes.length; at += cluster) {
        const data = bytes.subarray(at, at + cluster);
        if (isZero(data)) zero(offset + at, data.length);
        else if (!into.qcow2!.writeCompressed(offset + at, data)) {
          source.copyTo(into.disk, into.filename, at, data.length, offset + at);
        }
      }
      show((offset + bytes.length) / source.size);
    }
  }
}

/** Parts that are zeros, and parts that are not. */
function* runs(
  bytes: Uint8Array<ArrayBuffer>,
): Generator<{ readonly from: number; readonly to: number; readonly data: boolean }> {
  for (let from = 0; from < bytes.length;) {
    const isData = (at: number) => !isZero(bytes.subarray(at, at + GRAIN));
    const data = isData(from);
    let to = from + GRAIN;
    while (to < bytes.length && isData(to) === data) to += GRAIN;
    yield { from, to: Math.min(to, bytes.length), data };
    from = to;
  }
}

/** `compare` */
export function compareCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, {
    ...common,
    "second-format": { type: "string", short: "F" },
    strict: { type: "boolean", short: "s" },
  });
  if (args.rest.length !== 2) throw new Error("Expecting two image file names");
  const share = args.has("force-share");
  const [filename, other] = args.rest;
  const say = (text: string) => {
    if (!args.has("quiet")) console.log(text);
  };
  using first = new ImgImage(filename, { format: args.get("format"), share });
  using second = new ImgImage(other, { format: args.get("second-format"), share });
  if (first.size !== second.size) {
    if (args.has("strict")) {
      say("Strict mode: Image size mismatch!");
      return 1;
    }
    say("Warning: Image size mismatch!");
  }
  const at = firstDifference(first, second);
  say(at === undefined ? "Images are identical." : `Content mismatch at offset ${at}!`);
  return at === undefined ? 0 : 1;
}

/** The first sector in which disks differ, in bytes; the smaller one goes on with zeros. */
function firstDifference(first: ImgImage, second: ImgImage): number | undefined {
  const [longer, shorter] = first.size >= second.size ? [first, second] : [second, first];
  const others = shorter.pieces(0, shorter.size);
  for (const { offset, bytes } of longer.pieces(0, longer.size)) {
    const { value } = others.next();
    const other = value?.bytes ?? new Uint8Array();
    for (let at = 0; at < bytes.length; at += SECTOR) {
      const part = bytes.subarray(at, at + SECTOR);
      const same = at < other.length
        ? part.every((byte, i) => byte === other[at + i])
        : isZero(part);
      if (!same) return offset + at;
    }
  }
}
