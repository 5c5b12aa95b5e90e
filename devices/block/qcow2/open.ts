/**
 * Reading what a node's file is as a qcow2 image, and what it says of the image behind it.
 *
 * @module
 */
import type { BlockNodeConfig } from "../config.ts";
import type { BlockNode } from "../node.ts";
import { openStorage } from "../open_image.ts";
import { HeaderField, type Qcow2Format, readHeader } from "./format.ts";
import type { Storage } from "./storage.ts";

const MAX_CLUSTER_BITS = 21;
/** The most images behind one another. */
const MAX_CHAIN = 100;

/** Reads the header of the image that a node is. @throws {Error} in QEMU's words, that names the file */
export function readFormat(file: Pick<BlockNode, "description" | "filename">): Qcow2Format {
  try {
    return readFormatOf(openStorage(file.description));
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    throw new Error(`Could not open '${file.filename}': ${error.message}`, { cause: error });
  }
}

/** Reads an image's header. @throws {Error} in QEMU's words */
export function readFormatOf(storage: Storage): Qcow2Format {
  // What is after the end of a file reads as zeros, and zeros say nothing.
  const start = new DataView(storage.loadBytes(0, 512).buffer);
  const bits = Math.min(start.getUint32(HeaderField.CLUSTER_BITS), MAX_CLUSTER_BITS);
  return readHeader(storage.loadBytes(0, Math.max(512, 2 ** bits)));
}

/**
 * The nodes of the image that an image has behind it, each after the one that it is made of; none if there
 * is none. They get their names from the node in front of them, and nobody writes to them.
 *
 * @param config the image's node
 * @param filename the image's file, by whose folder a relative name goes
 * @throws {Error} if it is not known what it is
 */
export function backingNodes(
  config: BlockNodeConfig,
  { backing }: Qcow2Format,
  filename: string,
): BlockNodeConfig[] {
  if (!backing) return [];
  const { format } = backing;
  if (format === undefined) {
    throw new Error(
      `Backing file format of '${filename}' was not specified: it is not guessed, ` +
        `'qemu-img rebase -u -b FILE -F FORMAT' writes it down`,
    );
  }
  if (format !== "raw" && format !== "qcow2") {
    throw new Error(`Unknown driver '${format}' of the backing file of '${filename}'`);
  }
  const nodeName = `#${config.nodeName.replace(/^#/, "")}.backing`;
  if (nodeName.split(".backing").length > MAX_CHAIN) {
    throw new Error(`Backing files of '${filename}' are more than ${MAX_CHAIN}, or form a circle`);
  }
  const common = {
    readOnly: true,
    autoReadOnly: false,
    cache: config.cache,
    discard: "ignore",
    detectZeroes: "off",
  } as const;
  const file = `${nodeName}.file`;
  const path = backingPath(filename, backing.filename);
  return [
    {
      ...common,
      driver: "file",
      eitherDriver: true,
      nodeName: file,
      filename: path,
      locking: "auto",
      aio: "threads",
    },
    format === "raw"
      ? { ...common, driver: "raw", nodeName, file, offset: 0 }
      : { ...common, driver: "qcow2", nodeName, file },
  ];
}

/** The path of a backing file. @throws {Error} for a name that is none of a file */
export function backingPath(filename: string, backing: string): string {
  const path = backing.replace(/^file:/, "");
  const [, protocol] = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(path) ?? [];
  if (protocol !== undefined) {
    throw new Error(`Unknown protocol '${protocol}' of the backing file '${backing}'`);
  }
  if (path.startsWith("/")) return path;
  return filename.slice(0, filename.lastIndexOf("/") + 1) + path;
}
