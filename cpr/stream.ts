/**
 * The saved-state stream: what one VMM writes and its successor reads.
 *
 * ```text
 * stream   = magic "DENOVO\r\n"  u32 format version  section*  end
 * section  = u32 0x54434553 "SECT"  u16 length, name  u16 length, id  u32 version  u32 length, data
 *            u32 CRC-32 of everything in the section before it
 * end      = u32 0x53444e45 "ENDS"  u32 number of sections  u32 CRC-32 of the 8 bytes before it
 * ```
 *
 * All numbers are little-endian. A section is keyed by (name, id): two disks are two sections. The
 * reader takes no byte on trust: lengths are bounded, checksums verified, keys unique (except for
 * RAM pages), and an end that does not come is an error.
 *
 * @module
 */
import { crc32 } from "./crc32.ts";

const MAGIC = new TextEncoder().encode("DENOVO\r\n");
/** Version of the stream's framing; sections have versions of their own. */
export const FORMAT_VERSION = 1;
const SECTION = 0x5443_4553;
const END = 0x5344_4e45;
const MAX_KEY = 256;
/** The largest section: guest RAM travels in chunks of 1 MiB. */
export const MAX_SECTION = 16 << 20;

/** One section of a stream. */
export interface Section {
  /** What it is: a device type's name, `cpu`, `ram`, ... */
  readonly name: string;
  /** Which of several. */
  readonly id: string;
  /** Version of `data`'s layout. */
  readonly version: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A stream that cannot be read: cut, damaged, or not ours. */
export class StateError extends Error {
  override readonly name = "StateError";
}

/** Takes bytes of the stream, all of them or by throwing. */
export type ByteSink = (data: Uint8Array<ArrayBuffer>) => void;
/** Gives exactly `length` bytes, or fewer at the end of the input. */
export type ByteSource = (length: number) => Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Writes a stream. */
export class SectionWriter {
  readonly #sink: ByteSink;
  #count = 0;

  /** Writes the stream's head. */
  constructor(sink: ByteSink) {
    this.#sink = sink;
    const head = new Uint8Array(MAGIC.length + 4);
    head.set(MAGIC);
    new DataView(head.buffer).setUint32(MAGIC.length, FORMAT_VERSION, true);
    sink(head);
  }

  /** Writes one section. @throws {RangeError} if it is too large */
  write(section: Section): void {
    const name = encoder.encode(section.name);
    const id = encoder.encode(section.id);
    const { length } = section.data;
    if (length > MAX_SECTION || name.length > MAX_KEY || id.length > MAX_KEY) {
      throw new RangeError(`Section ${section.name}/${section.id} of ${length} bytes is too large`);
    }
    const bytes = new Uint8Array(4 + 2 + name.length + 2 + id.length + 4 + 4 + length + 4);
    const data = new DataView(bytes.buffer);
    let at = 0;
    const u16 = (value: number) => (data.setUint16(at, value, true), at += 2);
    const u32 = (value: number) => (data.setUint32(at, value, true), at += 4);
    const raw = (value: Uint8Array) => (bytes.set(value, at), at += value.length);
    u32(SECTION);
    u16(name.length);
    raw(name);
    u16(id.length);
    raw(id);
    u32(section.version);
    u32(length);
    raw(section.data);
    u32(crc32(bytes.subarray(0, at)));
    this.#sink(bytes);
    this.#count++;
  }

  /** Writes the end. */
  end(): void {
    const bytes = new Uint8Array(12);
    const data = new DataView(bytes.buffer);
    data.setUint32(0, END, true);
    data.setUint32(4, this.#count, true);
    data.setUint32(8, crc32(bytes.subarray(0, 8)), true);
    this.#sink(bytes);
  }
}

/**
 * Reads a stream, section by section, to its end.
 *
 * @throws {StateError} that says what is wrong and where
 */
export function* readSections(source: ByteSource): Generator<Section> {
  const head = exactly(source, MAGIC.length + 4, "the head of the stream");
  if (!MAGIC.every((byte, i) => head[i] === byte)) throw new StateError("Not a migration stream");
  const version = view(head).getUint32(MAGIC.length, true);
  if (version !== FORMAT_VERSION) {
    throw new StateError(`Unsupported migration stream version ${version}`);
  }
  for (let count = 0;; count++) {
    const marker = exactly(source, 4, `section ${count}`);
    const kind = view(marker).getUint32(0, true);
    if (kind === END) return readEnd(source, marker, count);
    if (kind !== SECTION) {
      throw new StateError(`Unknown section type 0x${kind.toString(16)} after ${count} sections`);
    }
    yield readSection(source, marker, count);
  }
}

function readSection(source: ByteSource, marker: Uint8Array<ArrayBuffer>, count: number): Section {
  let checksum = crc32(marker);
  const take = (length: number) => {
    const bytes = exactly(source, length, `section ${count}`);
    checksum = crc32(bytes, checksum);
    return bytes;
  };
  const key = () => {
    const length = view(take(2)).getUint16(0, true);
    if (length > MAX_KEY) throw new StateError(`Section ${count} has a key of ${length} bytes`);
    return take(length);
  };
  const [name, id] = [key(), key()];
  const sizes = view(take(8));
  const length = sizes.getUint32(4, true);
  if (length > MAX_SECTION) throw new StateError(`Section ${count} has ${length} bytes`);
  const data = take(length);
  const stored = view(exactly(source, 4, `section ${count}`)).getUint32(0, true);
  if (stored !== checksum) throw new StateError(`Checksum of section ${count} is wrong`);
  try {
    return {
      name: decoder.decode(name),
      id: decoder.decode(id),
      version: sizes.getUint32(0, true),
      data,
    };
  } catch {
    throw new StateError(`Key of section ${count} is not UTF-8`);
  }
}

function readEnd(source: ByteSource, marker: Uint8Array<ArrayBuffer>, count: number): void {
  const rest = exactly(source, 8, "the end of the stream");
  const checksum = crc32(rest.subarray(0, 4), crc32(marker));
  if (view(rest).getUint32(4, true) !== checksum) {
    throw new StateError("Checksum of the end of the stream is wrong");
  }
  if (view(rest).getUint32(0, true) !== count) {
    throw new StateError(
      `Stream says ${view(rest).getUint32(0, true)} sections but has ${count}`,
    );
  }
}

function exactly(source: ByteSource, length: number, where: string): Uint8Array<ArrayBuffer> {
  const bytes = source(length);
  if (bytes.length !== length) {
    throw new StateError(`Stream ends within ${where}: ${bytes.length} of ${length} bytes`);
  }
  return bytes;
}

function view(bytes: Uint8Array<ArrayBuffer>): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Encodes a whole stream into one buffer. */
export function encodeStream(sections: Iterable<Section>): Uint8Array<ArrayBuffer> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  const writer = new SectionWriter((chunk) => chunks.push(chunk));
  for (const section of sections) writer.write(section);
  writer.end();
  const out = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

/** A source over a buffer; slices are copies, so that they can be used as structs of their own. */
export function bufferSource(bytes: Uint8Array<ArrayBuffer>): ByteSource {
  let at = 0;
  return (length) => {
    const slice = bytes.slice(at, at + length);
    at += slice.length;
    return slice;
  };
}
