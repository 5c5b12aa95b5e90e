/**
 * `denovo img create`.
 *
 * @module
 */
import { openBase } from "../../devices/block/image.ts";
import { changeLocks, noPermissions, Permission } from "../../devices/block/permissions.ts";
import { type CreateOptions, createQcow2 } from "../../devices/block/qcow2/create.ts";
import { backingPath } from "../../devices/block/qcow2/open.ts";
import { Storage } from "../../devices/block/qcow2/storage.ts";
import { OsError } from "../../ffi/errno.ts";
import { fileStatus, O, openFile, type OwnedFd } from "../../ffi/fd.ts";
import { resizeFile } from "../../ffi/memory.ts";
import { parseOpts } from "../options/grammar.ts";
import { parseBool, parseUint } from "../options/values.ts";
import { Arguments, common, readSize } from "./arguments.ts";
import { checkFormat, ImgImage } from "./image.ts";
import { preallocate, preallocationHelp, readPreallocation } from "./preallocate.ts";

const SECTOR = 512;
const SIZE_HELP = { "size=<size>": "Virtual disk size" };
/** `-o` of each format, as its help tells them. */
const KNOWN: Readonly<Record<NewImage["format"], Readonly<Record<string, string>>>> = {
  raw: SIZE_HELP,
  qcow2: {
    "backing_file=<str>": "File name of a base image",
    "backing_fmt=<str>": "Image format of the base image",
    "cluster_size=<size>": "qcow2 cluster size",
    "compat=<str>": "Compatibility level (v2 [0.10] or v3 [1.1])",
    "compression_type=<str>": "Compression method used for image cluster compression",
    "lazy_refcounts=<bool (on/off)>": "Postpone refcount updates",
    "preallocation=<str>": preallocationHelp,
    "refcount_bits=<num>": "Width of a reference count entry in bits",
    ...SIZE_HELP,
  },
};

/** What an image is made of. */
export interface NewImage {
  readonly filename: string;
  readonly format: "raw" | "qcow2";
  /** `-o`, by name. */
  readonly options: ReadonlyMap<string, string>;
  /** Bytes; those of the image behind it unless given. */
  readonly size?: number;
  /** The image behind it need not be there. */
  readonly unsafe?: boolean;
}

/** `create` */
export function createCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, {
    ...common,
    backing: { type: "string", short: "b" },
    "backing-format": { type: "string", short: "F" },
    unsafe: { type: "boolean", short: "u" },
    options: { type: "string", short: "o", multiple: true },
  });
  const imageFormat = checkFormat(args.get("format") ?? "raw", "file format");
  const { options, help } = readOptions(args.all("options"));
  if (help) {
    console.log(optionsHelp(imageFormat));
    return 0;
  }
  const [filename, size, ...rest] = args.rest;
  if (filename === undefined) throw new Error("Expecting image file name");
  if (rest.length > 0) throw new Error(`Unexpected argument: ${rest[0]}`);
  const [backing, format] = [args.get("backing"), args.get("backing-format")];
  if (backing !== undefined) options.set("backing_file", backing);
  if (format !== undefined) options.set("backing_fmt", format);
  const line = createImage({
    ...{ filename, options, unsafe: args.has("unsafe") },
    format: imageFormat,
    ...size !== undefined && { size: readSize(size) },
  });
  if (!args.has("quiet")) console.log(line);
  return 0;
}

/** `-o`, each of which may have several, and whether one asks for help. */
export function readOptions(
  texts: readonly string[],
): { readonly options: Map<string, string>; readonly help: boolean } {
  const all = texts.map((text) => parseOpts(text));
  const options = new Map(
    all.flatMap(({ entries }) =>
      [...entries].map(([name, value]) => [name, String(value)] as const)
    ),
  );
  return { options, help: all.some(({ help }) => help) };
}

/** What `-o help` tells. */
export function optionsHelp(format: NewImage["format"]): string {
  const lines = Object.entries(KNOWN[format])
    .map(([option, text]) => `  ${option.padEnd(22)} - ${text}`);
  return [`Supported ${format} options:`, ...lines].join("\n");
}

/**
 * Makes an image.
 *
 * @returns what QEMU prints about it
 * @throws {Error} in QEMU's words
 */
export function createImage(image: NewImage): string {
  const { filename, format, options } = image;
  const known = Object.keys(KNOWN[format]).map((option) => option.split("=")[0]);
  // A raw image's is its file's, which QEMU's help does not tell of.
  known.push("preallocation");
  for (const name of options.keys()) {
    if (!known.includes(name)) throw new Error(`${filename}: Invalid parameter '${name}'`);
  }
  const given = options.get("size");
  const size = image.size ?? (given === undefined ? sizeOfBacking(image) : readSize(given));
  if (size === undefined) throw new Error(`${filename}: Image creation needs a size parameter`);
  const preallocation = readPreallocation(filename, format, options);
  const line = format === "raw" ? createRaw(image, size) : createFormat(image, size);
  preallocate(filename, format, preallocation);
  return line;
}

function createRaw({ filename, options }: NewImage, size: number): string {
  using file = openTarget(filename);
  resizeFile(file.fd, size);
  const given = options.get("preallocation");
  const shown = given === undefined ? "" : ` preallocation=${given}`;
  return `Formatting '${filename}', fmt=raw size=${size}${shown}`;
}

function createFormat(image: NewImage, bytes: number): string {
  const { filename, options } = image;
  const size = Math.ceil(bytes / SECTOR) * SECTOR;
  const backing = readBacking(image);
  if (backing && !image.unsafe) {
    using _ = openBacking(filename, backing);
  }
  const create = readCreate(options, size, backing);
  using file = openTarget(filename);
  const base = openBase({
    ...{ kind: "file", fd: file.fd, alignment: 1, uring: false },
    mutex: new SharedArrayBuffer(4),
  });
  createQcow2(new Storage(base, 0, undefined, false), create);
  const preallocation = options.get("preallocation");
  const shown = [
    `cluster_size=${2 ** create.clusterBits} extended_l2=off`,
    ...preallocation !== undefined ? [`preallocation=${preallocation}`] : [],
    `compression_type=${create.compression}`,
    `size=${size}`,
    ...backing ? [`backing_file=${backing.filename} backing_fmt=${backing.format}`] : [],
    ...options.has("compat") ? [`compat=${options.get("compat")}`] : [],
    `lazy_refcounts=${create.lazyRefcounts ? "on" : "off"} refcount_bits=${
      2 ** create.refcountOrder
    }`,
  ];
  return `Formatting '${filename}', fmt=qcow2 ${shown.join(" ")}`;
}

/**
 * Opens a file to be an image, and empties it.
 *
 * @throws {Error} in QEMU's words if somebody uses the image that it is
 */
function openTarget(filename: string): OwnedFd {
  const file = openFile(filename, O.RDWR | O.CREAT, 0o644);
  try {
    const reason = lockTarget(file.fd);
    if (reason !== undefined) {
      throw new Error(
        `${filename}: ${reason}\nIs another process using the image [${filename}]?`,
      );
    }
    if (fileStatus(file.fd).kind === "file") resizeFile(file.fd, 0);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Says why a file cannot be written, if it is an image that is in use. */
function lockTarget(fd: number): string | undefined {
  const bits = Permission.WRITE | Permission.RESIZE;
  try {
    return changeLocks(fd, noPermissions, { used: bits, unshared: bits });
  } catch (error) {
    // There are no locks on this file system.
    if (!(error instanceof OsError)) throw error;
  }
}

function readBacking({ filename, options }: NewImage): CreateOptions["backing"] {
  const [backing, format] = [options.get("backing_file"), options.get("backing_fmt")];
  if (backing === undefined) return undefined;
  if (format === undefined) {
    throw new Error(
      `${filename}: Backing file specified without backing format: say -F raw or -F qcow2`,
    );
  }
  return { filename: backing, format: checkFormat(format) };
}

function openBacking(filename: string, backing: NonNullable<CreateOptions["backing"]>): ImgImage {
  const path = backingPath(filename, backing.filename);
  return new ImgImage(path, { format: backing.format, share: true });
}

function sizeOfBacking(image: NewImage): number | undefined {
  const backing = readBacking(image);
  if (!backing) return undefined;
  using opened = openBacking(image.filename, backing);
  return opened.size;
}

/** @throws {Error} in QEMU's words if there is no such image */
function readCreate(
  options: ReadonlyMap<string, string>,
  size: number,
  backing: CreateOptions["backing"],
): CreateOptions {
  const compat = options.get("compat") ?? "1.1";
  const version = { "0.10": 2, v2: 2, "1.1": 3, v3: 3 }[compat];
  if (version !== 2 && version !== 3) throw new Error(`Invalid parameter '${compat}'`);
  const clusterBits = Math.log2(readSize(options.get("cluster_size") ?? "64k", "cluster_size"));
  if (!Number.isInteger(clusterBits) || clusterBits < 9 || clusterBits > 21) {
    throw new Error("Cluster size must be a power of two between 512 and 2048k");
  }
  const refcountOrder = Math.log2(
    parseUint("refcount_bits", options.get("refcount_bits") ?? "16", 32),
  );
  if (!Number.isInteger(refcountOrder) || refcountOrder > 6) {
    throw new Error("Refcount width must be a power of two and may not exceed 64 bits");
  }
  const lazyRefcounts = parseBool("lazy_refcounts", options.get("lazy_refcounts") ?? "off");
  const compression = options.get("compression_type") ?? "zlib";
  if (compression !== "zlib" && compression !== "zstd") {
    throw new Error(`Invalid parameter '${compression}'`);
  }
  const needs = (what: string) =>
    new Error(`${what} compatibility level 1.1 and above (use version=v3 or greater)`);
  if (version === 2 && lazyRefcounts) throw needs("Lazy refcounts only supported with");
  if (version === 2 && refcountOrder !== 4) {
    throw needs("Different refcount widths than 16 bits require");
  }
  if (version === 2 && compression !== "zlib") throw needs("Non-zlib compression type requires");
  return {
    ...{ size, version, clusterBits, refcountOrder, lazyRefcounts, compression },
    ...backing && { backing },
  };
}
