/**
 * `denovo img resize` and `commit`.
 *
 * @module
 */
import { backingPath } from "../../devices/block/qcow2/open.ts";
import { Arguments, common, readSize } from "./arguments.ts";
import { extents } from "./extents.ts";
import { ImgImage, must } from "./image.ts";

const SECTOR = 512;

/** `resize` */
export function resizeCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, { ...common, shrink: { type: "boolean" } });
  const [filename, text, ...rest] = args.rest;
  if (text === undefined || rest.length > 0) throw new Error("Expecting image file name and size");
  using image = new ImgImage(filename, { format: args.get("format"), writable: true });
  const sign = /^[+-]/.exec(text)?.[0];
  const given = readSize(text.slice(sign ? 1 : 0));
  const wanted = sign === "+" ? image.size + given : sign === "-" ? image.size - given : given;
  if (wanted <= 0) throw new Error("New image size must be positive");
  const size = Math.ceil(wanted / SECTOR) * SECTOR;
  if (size < image.size && !args.has("shrink")) {
    throw new Error(
      "Use the --shrink option to perform a shrink operation: it deletes all data beyond the shrunken" +
        " image's end",
    );
  }
  image.node.resize(size);
  if (!args.has("quiet")) console.log("Image resized.");
  return 0;
}

/** `commit` */
export function commitCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, { ...common, drop: { type: "boolean", short: "d" } });
  const filename = args.one();
  const backing = backingOf(filename, args.get("format"));
  using image = new ImgImage(filename, {
    format: args.get("format"),
    writable: true,
    writableBacking: backing,
  });
  const { node, disk } = image.backingDisk!;
  if (disk.sizeBytes < image.size) node.resize(image.size);
  for (const { start, length, depth, zero, present } of extents(image.node)) {
    if (depth > 0 || !present) continue;
    if (zero) {
      must("write", backing.filename, start, disk.writeZeroes(start, length, true));
      continue;
    }
    for (const { offset, bytes } of image.pieces(start, start + length)) {
      image.copyTo(disk, backing.filename, 0, bytes.length, offset);
    }
  }
  must("flush", backing.filename, 0, disk.flush());
  if (!args.has("drop")) image.qcow2!.makeEmpty();
  if (!args.has("quiet")) console.log("Image committed.");
  return 0;
}

/** The image behind an image. @throws {Error} in QEMU's words if there is none */
function backingOf(filename: string, format: string | undefined) {
  using image = new ImgImage(filename, { format, alone: true });
  const backing = image.qcow2?.format.backing;
  if (!backing) throw new Error("Image does not have a backing file");
  if (backing.format === undefined) throw new Error("Backing file format was not specified");
  return { filename: backingPath(filename, backing.filename), format: backing.format };
}
