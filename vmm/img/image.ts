/**
 * Images as `denovo img` opens them: a file and what its format makes of it, locked as for a guest.
 *
 * @module
 */
import type { BlockNodeConfig } from "../../devices/block/config.ts";
import { Disk } from "../../devices/block/disk.ts";
import type { BlockNode } from "../../devices/block/node.ts";
import { Qcow2Node } from "../../devices/block/qcow2/node.ts";
import { QCOW2_MAGIC } from "../../devices/block/qcow2/format.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { mapAnonymous, type MappedRegion } from "../../ffi/memory.ts";
import { BlockSet } from "../block_set.ts";

/** How an image is opened. */
export interface OpenOptions {
  /** `raw` or `qcow2`; looked for in the image unless given. */
  readonly format?: string;
  readonly writable?: boolean;
  /** Others may use it meanwhile; what is read may be out of date then (`-U`). */
  readonly share?: boolean;
  /** Only this image, without what is behind it. */
  readonly alone?: boolean;
  /** It is opened to be checked and repaired. */
  readonly check?: boolean;
  /** The image behind it can be written as well. */
  readonly writableBacking?: { readonly filename: string; readonly format: string };
}

/** Bytes that are moved at a time. */
const CHUNK = 2 << 20;

/** An open image. */
export class ImgImage implements Disposable {
  readonly filename: string;
  readonly format: "raw" | "qcow2";
  readonly node: BlockNode;
  readonly #set = new BlockSet();
  readonly #disk: Disk;
  readonly #memory: MappedRegion = mapAnonymous(CHUNK);
  readonly #vector = new IoVector(1);

  /** @throws {Error} in QEMU's words if it cannot be opened */
  constructor(filename: string, options: OpenOptions = {}) {
    this.filename = filename;
    try {
      this.format = checkFormat(options.format ?? probe(filename));
      const { writableBacking: backing } = options;
      const behind = backing && nodes("backing", backing.filename, checkFormat(backing.format), {
        ...options,
        alone: false,
      });
      this.#set.open([
        ...behind ?? [],
        ...nodes("image", filename, this.format, options, !!backing),
      ], []);
      this.node = this.#set.nodes[0];
      if (!options.share) this.#set.attach("image", { device: "img", shareWrites: false });
      this.#disk = new Disk(this.node.description);
    } catch (error) {
      this[Symbol.dispose]();
      if (!(error instanceof Error)) throw error;
      const where = `Could not open '${filename}': `;
      if (error.message.startsWith(where)) throw error;
      throw new Error(`${where}${error.message}`, { cause: error });
    }
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.#disk.sizeBytes;
  }

  /** The node, if it is a qcow2 image. */
  get qcow2(): Qcow2Node | undefined {
    return this.node instanceof Qcow2Node ? this.node : undefined;
  }

  /** The node behind it, to write to. */
  get backingDisk(): { readonly node: BlockNode; readonly disk: Disk } | undefined {
    const { backing } = this.node;
    return backing && { node: backing, disk: new Disk(backing.description) };
  }

  /** Goes through a range by pieces of memory that hold what is there. */
  *pieces(
    start: number,
    end: number,
  ): Generator<{ readonly offset: number; readonly bytes: Uint8Array<ArrayBuffer> }> {
    for (let offset = start; offset < end;) {
      const length = Math.min(CHUNK, end - offset);
      must("read", this.filename, offset, this.#disk.read(this.#piece(0, length), offset));
      yield { offset, bytes: this.#memory.bytes.subarray(0, length) };
      offset += length;
    }
  }

  /** Writes part of the piece that is in memory to another image's disk. */
  copyTo(disk: Disk, filename: string, from: number, length: number, offset: number): void {
    must("write", filename, offset, disk.write(this.#piece(from, length), offset));
  }

  /** Writes zeros to all of the disk. */
  writeZeros(): void {
    this.#memory.bytes.fill(0);
    for (let offset = 0; offset < this.size; offset += CHUNK) {
      const length = Math.min(CHUNK, this.size - offset);
      this.copyTo(this.#disk, this.filename, 0, length, offset);
    }
  }

  /** Its disk, to write to. */
  get disk(): Disk {
    return this.#disk;
  }

  [Symbol.dispose](): void {
    this.#set.close();
    this.#memory.close();
  }

  #piece(from: number, length: number): IoVector {
    this.#vector.clear();
    this.#vector.push(this.#memory.address + from, length);
    return this.#vector;
  }
}

/** @throws {Error} with the errno if a request failed */
export function must(what: string, filename: string, offset: number, result: number): void {
  if (result < 0) {
    throw new Error(`error while ${what} of '${filename}' at byte ${offset}: errno ${-result}`);
  }
}

/** Checks a format's name. @throws {Error} in QEMU's words */
export function checkFormat(format: string, what = "driver"): "raw" | "qcow2" {
  if (format === "raw" || format === "qcow2") return format;
  throw new Error(`Unknown ${what} '${format}': there are raw and qcow2`);
}

/** The format of a file whose first bytes tell it; raw else, and if it cannot be read. */
function probe(filename: string): string {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(filename);
  } catch {
    return "raw";
  }
  using _ = file;
  const start = new Uint8Array(4);
  const n = file.readSync(start) ?? 0;
  return n === 4 && new DataView(start.buffer).getUint32(0) === QCOW2_MAGIC ? "qcow2" : "raw";
}

function nodes(
  nodeName: string,
  filename: string,
  format: "raw" | "qcow2",
  { writable = false, share, alone, check }: OpenOptions,
  namedBacking = false,
): BlockNodeConfig[] {
  const common = {
    readOnly: !writable,
    autoReadOnly: false,
    cache: { direct: false, noFlush: false },
    discard: "unmap",
    detectZeroes: "off",
  } as const;
  const file = `${nodeName}.file`;
  return [
    {
      ...{ ...common, driver: "file", eitherDriver: true, nodeName: file, filename },
      ...{ locking: share ? "off" : "auto", aio: "threads" },
    },
    format === "raw" ? { ...common, driver: "raw", nodeName, file, offset: 0 } : {
      ...{ ...common, driver: "qcow2", nodeName, file },
      ...alone && { backing: null },
      ...namedBacking && { backing: "backing" },
      ...check && { check },
    },
  ];
}
