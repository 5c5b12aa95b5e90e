/**
 * The header of a qcow2 image (QEMU's docs/interop/qcow2.rst): what it says, and what is refused. All
 * numbers of the format are big-endian.
 *
 * @module
 */

/** `QFI\xfb` */
export const QCOW2_MAGIC = 0x514649fb;

/** Incompatible features: who does not know one may not open the image. */
export const Incompatible = {
  /** Refcounts may be wrong, since lazy ones were not written: they are counted again. */
  DIRTY: 1,
  /** Something contradicts itself: it must not be written. */
  CORRUPT: 2,
  EXTERNAL_DATA: 4,
  /** The header says how clusters are compressed. */
  COMPRESSION: 8,
  EXTENDED_L2: 16,
} as const;
/** Compatible features: refcounts may be written late. */
export const LAZY_REFCOUNTS = 1;

/** Offsets of the header's fields. */
export const HeaderField = {
  VERSION: 4,
  BACKING_OFFSET: 8,
  BACKING_LENGTH: 16,
  CLUSTER_BITS: 20,
  SIZE: 24,
  CRYPT: 32,
  L1_SIZE: 36,
  L1_OFFSET: 40,
  REFTABLE_OFFSET: 48,
  REFTABLE_CLUSTERS: 56,
  SNAPSHOTS: 60,
  SNAPSHOTS_OFFSET: 64,
  INCOMPATIBLE: 72,
  COMPATIBLE: 80,
  AUTOCLEAR: 88,
  REFCOUNT_ORDER: 96,
  LENGTH: 100,
  COMPRESSION: 104,
} as const;
/** Bytes of the headers of versions 2 and 3. */
const V2_LENGTH = 72;
/** Bytes of a version 3 header without additional fields. */
export const V3_LENGTH = 104;

/** Header extensions. */
export const Extension = {
  END: 0,
  BACKING_FORMAT: 0xe2792aca,
  BITMAPS: 0x23852875,
} as const;

const MIN_CLUSTER_BITS = 9;
const MAX_CLUSTER_BITS = 21;
/** The most bytes of tables, as QEMU has it. */
const MAX_L1_BYTES = 32 << 20;
const MAX_REFTABLE_BYTES = 8 << 20;
const MAX_SNAPSHOTS = 65536;
const MAX_BACKING_NAME = 1023;
/** Offsets have 56 bits in tables; those beyond are not exact in a number, and no file has them. */
export const MAX_HOST_OFFSET = 2 ** 53;

/** A range of an image's file. */
export interface Range {
  readonly what: string;
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** What does not change of an image while it is open, and where its tables were when it was opened. */
export interface Qcow2Format {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** Refcounts have 2^n bits. */
  readonly refcountOrder: number;
  readonly compression: "zlib" | "zstd";
  /** Bytes of the guest's disk. */
  readonly size: number;
  readonly l1Offset: number;
  /** Entries. */
  readonly l1Size: number;
  readonly reftableOffset: number;
  readonly reftableClusters: number;
  readonly snapshots: number;
  readonly snapshotsOffset: number;
  readonly dirty: boolean;
  readonly corrupt: boolean;
  readonly lazyRefcounts: boolean;
  /** Whether there are dirty bitmaps, which a writer would have to keep. */
  readonly bitmaps: boolean;
  readonly backing?: { readonly filename: string; readonly format?: string };
}

/** Bytes of a cluster. */
export function clusterSize({ clusterBits }: Pick<Qcow2Format, "clusterBits">): number {
  return 2 ** clusterBits;
}

/** Entries that an L1 table needs for a disk of `size` bytes. */
export function l1EntriesFor(size: number, clusterBits: number): number {
  return Math.ceil(size / 2 ** (2 * clusterBits - 3));
}

/** The largest disk that an L1 table of the largest size has, in bytes. */
export function largestSize(clusterBits: number): number {
  return Math.min(Number.MAX_SAFE_INTEGER, (MAX_L1_BYTES / 8) * 2 ** (2 * clusterBits - 3));
}

/** A number of 64 bits. @throws {Error} unless it is exact in a number */
export function readU64(view: DataView, at: number, what: string): number {
  const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  if (Number.isSafeInteger(value)) return value;
  throw new Error(`${what} is too large: 0x${view.getBigUint64(at).toString(16)}`);
}

/**
 * Reads an image's header.
 *
 * @param bytes the image's first cluster, or as much as there is of it; 2 MiB are always enough
 * @throws {Error} in QEMU's words, if this is no image, or none that can be opened
 */
export function readHeader(bytes: Uint8Array<ArrayBuffer>): Qcow2Format {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < V2_LENGTH || view.getUint32(0) !== QCOW2_MAGIC) {
    throw new Error("Image is not in qcow2 format");
  }
  const version = view.getUint32(HeaderField.VERSION);
  if (version !== 2 && version !== 3) throw new Error(`Unsupported qcow2 version ${version}`);
  const clusterBits = view.getUint32(HeaderField.CLUSTER_BITS);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    throw new Error(`Unsupported cluster size: 2^${clusterBits}`);
  }
  if (bytes.length < V3_LENGTH) throw new Error("qcow2 header is cut off");
  const features = version === 3 ? readFeatures(view, bytes, clusterBits) : noFeatures;
  if (view.getUint32(HeaderField.CRYPT) !== 0) {
    throw new Error("Encrypted qcow2 images are not supported");
  }
  const size = readU64(view, HeaderField.SIZE, "Image size");
  const tables = readTables(view, clusterBits, size);
  const { headerLength, ...rest } = features;
  const extensions = readExtensions(view, bytes, headerLength, clusterBits);
  const filename = readBackingName(view, bytes, clusterBits);
  return {
    ...{ version, clusterBits, size },
    ...rest,
    ...tables,
    bitmaps: extensions.bitmaps && version === 3 &&
      (view.getUint32(HeaderField.AUTOCLEAR + 4) & 1) === 1,
    ...filename !== undefined && {
      backing: {
        filename,
        ...extensions.format !== undefined && { format: extensions.format },
      },
    },
  };
}

const noFeatures = {
  refcountOrder: 4,
  headerLength: V2_LENGTH,
  compression: "zlib",
  dirty: false,
  corrupt: false,
  lazyRefcounts: false,
} as const;

function readFeatures(view: DataView, bytes: Uint8Array<ArrayBuffer>, clusterBits: number) {
  const headerLength = view.getUint32(HeaderField.LENGTH);
  if (headerLength < V3_LENGTH) throw new Error("qcow2 header too short");
  if (headerLength > 2 ** clusterBits || headerLength > bytes.length) {
    throw new Error("qcow2 header exceeds cluster size");
  }
  const incompatible = view.getBigUint64(HeaderField.INCOMPATIBLE);
  const known = Incompatible.DIRTY | Incompatible.CORRUPT | Incompatible.COMPRESSION;
  refuseFeatures(incompatible & ~BigInt(known));
  const refcountOrder = view.getUint32(HeaderField.REFCOUNT_ORDER);
  if (refcountOrder > 6) {
    throw new Error("Reference count entry width too large; may not exceed 64 bits");
  }
  const bits = Number(incompatible);
  const compression = headerLength > HeaderField.COMPRESSION ? bytes[HeaderField.COMPRESSION] : 0;
  if (compression > 1) throw new Error(`qcow2: unknown compression type: ${compression}`);
  if ((compression !== 0) !== ((bits & Incompatible.COMPRESSION) !== 0)) {
    throw new Error(
      "qcow2: Compression type incompatible feature bit must be set exactly where the type is not zlib",
    );
  }
  return {
    refcountOrder,
    headerLength,
    compression: compression === 1 ? "zstd" as const : "zlib" as const,
    dirty: (bits & Incompatible.DIRTY) !== 0,
    corrupt: (bits & Incompatible.CORRUPT) !== 0,
    lazyRefcounts: (view.getUint32(HeaderField.COMPATIBLE + 4) & LAZY_REFCOUNTS) !== 0,
  };
}

function refuseFeatures(unknown: bigint): void {
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if ((unknown >> BigInt(bit) & 1n) === 0n) continue;
    names.push(
      1 << bit === Incompatible.EXTERNAL_DATA && bit < 31
        ? "external data file"
        : 1 << bit === Incompatible.EXTENDED_L2 && bit < 31
        ? "extended L2 entries"
        : `Unknown incompatible feature: ${(1n << BigInt(bit)).toString(16)}`,
    );
  }
  if (names.length > 0) throw new Error(`Unsupported qcow2 feature(s): ${names.join(", ")}`);
}

function readTables(view: DataView, clusterBits: number, size: number) {
  const cluster = 2 ** clusterBits;
  const checked = (at: number, bytes: number, most: number, what: string): number => {
    if (bytes > most) throw new Error(`${what} too large`);
    const offset = readU64(view, at, `${what} offset`);
    if (offset % cluster !== 0 || offset + bytes > MAX_HOST_OFFSET || (bytes > 0 && offset === 0)) {
      throw new Error(`${what} offset invalid`);
    }
    return offset;
  };
  const reftableClusters = view.getUint32(HeaderField.REFTABLE_CLUSTERS);
  if (reftableClusters === 0) throw new Error("Image does not contain a reference count table");
  const reftableBytes = reftableClusters * cluster;
  const { REFTABLE_OFFSET, L1_OFFSET, SNAPSHOTS_OFFSET } = HeaderField;
  const reftableOffset = checked(
    REFTABLE_OFFSET,
    reftableBytes,
    MAX_REFTABLE_BYTES,
    "Reference count table",
  );
  const snapshots = view.getUint32(HeaderField.SNAPSHOTS);
  if (snapshots > MAX_SNAPSHOTS) throw new Error("Snapshot table too large");
  const snapshotsOffset = snapshots === 0
    ? 0
    : checked(SNAPSHOTS_OFFSET, snapshots, MAX_SNAPSHOTS, "Snapshot table");
  const l1Size = view.getUint32(HeaderField.L1_SIZE);
  const l1Offset = checked(L1_OFFSET, l1Size * 8, MAX_L1_BYTES, "Active L1 table");
  if (size > largestSize(clusterBits)) throw new Error("Image is too big");
  if (l1Size < l1EntriesFor(size, clusterBits)) throw new Error("L1 table is too small");
  return { reftableOffset, reftableClusters, snapshots, snapshotsOffset, l1Size, l1Offset };
}

function readExtensions(
  view: DataView,
  bytes: Uint8Array<ArrayBuffer>,
  headerLength: number,
  clusterBits: number,
): { format?: string; bitmaps: boolean } {
  // A version 2 header may be followed by extensions as well; a backing file's name ends them.
  const name = readU64(view, HeaderField.BACKING_OFFSET, "Backing file offset");
  const end = Math.min(bytes.length, name === 0 ? 2 ** clusterBits : name);
  let format: string | undefined;
  let bitmaps = false;
  for (let at = headerLength; at + 8 <= end;) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === Extension.END) break;
    at += 8;
    if (length > end - at) throw new Error("Header extension too large");
    if (type === Extension.BACKING_FORMAT) format = text(bytes.subarray(at, at + length));
    if (type === Extension.BITMAPS) bitmaps = true;
    at += Math.ceil(length / 8) * 8;
  }
  return { bitmaps, ...format !== undefined && { format } };
}

function readBackingName(
  view: DataView,
  bytes: Uint8Array<ArrayBuffer>,
  clusterBits: number,
): string | undefined {
  const offset = readU64(view, HeaderField.BACKING_OFFSET, "Backing file offset");
  const length = view.getUint32(HeaderField.BACKING_LENGTH);
  if (offset === 0) return undefined;
  if (offset > 2 ** clusterBits) throw new Error("Invalid backing file offset");
  if (length > MAX_BACKING_NAME || offset + length > Math.min(2 ** clusterBits, bytes.length)) {
    throw new Error("Backing file name too long");
  }
  return length === 0 ? undefined : text(bytes.subarray(offset, offset + length));
}

/** Names are bytes; those that are no UTF-8 name no file that could be opened by a string. */
function text(bytes: Uint8Array<ArrayBuffer>): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error("Backing file name or format is not UTF-8");
  }
}
