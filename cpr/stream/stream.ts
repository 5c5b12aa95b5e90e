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
/** Bytes of a section besides its keys and data. */
const SECTION_OVERHEAD = 4 + 2 + 2 + 4 + 4 + 4;
const END_SIZE = 12;
/** Bytes before the first section. */
export const HEAD_SIZE: number = MAGIC.length + 4;
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

/** A section as it was read. */
export interface ReadSection extends Section {
  /** Its CRC-32 in the stream, which was found right. */
  readonly checksum: number;
}

/** A section as messages name it, on one line whatever its key is. */
export function describeSection({ name, id }: Pick<Section, "name" | "id">): string {
  const [shownName, shownId] = [name, id].map((part) => JSON.stringify(part).slice(1, -1));
  return id === "" ? `'${shownName}'` : `'${shownName}' ${shownId}`;
}

/** Refuses a section whose data is laid out as no known version has it. @throws {StateError} */
export function checkVersion(section: Section, newest: number): void {
  const { version } = section;
  if (version >= 1 && version <= newest) return;
  const what = describeSection(section);
  throw new StateError(`Unsupported version ${version} for ${what}, newest known is ${newest}`);
}

/** A stream that cannot be read: cut, damaged, or not ours. */
export class StateError extends Error {
  override readonly name = "StateError";
}

/** Takes bytes of the stream, all of them or by throwing. */
export type ByteSink = (data: Uint8Array<ArrayBuffer>) => void;
/**
 * Gives exactly `length` bytes, or fewer at the end of the input. They may be part of a larger
 * buffer, but nobody writes to them any more.
 */
export type ByteSource = (length: number) => Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();
// A byte order mark is a part of the key like any other: two keys must not read as one.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Writes a stream. */
export class SectionWriter {
  readonly #sink: ByteSink;
  #count = 0;

  /** Writes the stream's head. */
  constructor(sink: ByteSink) {
    this.#sink = sink;
    sink(encodeHead());
  }

  /** Writes one section. @throws {RangeError} if it is too large */
  write(section: Section): void {
    const bytes = new Uint8Array(sectionSize(section));
    putSection(new DataView(bytes.buffer), bytes, 0, section);
    this.#sink(bytes);
    this.#count++;
  }

  /** Writes the end. */
  end(): void {
    const bytes = new Uint8Array(END_SIZE);
    putEnd(new DataView(bytes.buffer), bytes, 0, this.#count);
    this.#sink(bytes);
  }
}

/** The bytes of each key that was written: there are few, and encoding costs a call each time. */
const encodedKeys = new Map<string, Uint8Array>();

function encodeKey(key: string): Uint8Array {
  let bytes = encodedKeys.get(key);
  if (!bytes) encodedKeys.set(key, bytes = encoder.encode(key));
  return bytes;
}

/** Bytes that a section takes in a stream. @throws {RangeError} if it is too large for one */
export function sectionSize({ name, id, data }: Section): number {
  const keys = [encodeKey(name).length, encodeKey(id).length];
  if (data.length > MAX_SECTION || keys[0] > MAX_KEY || keys[1] > MAX_KEY) {
    throw new RangeError(`Section ${name}/${id} of ${data.length} bytes is too large`);
  }
  return SECTION_OVERHEAD + keys[0] + keys[1] + data.length;
}

/** Writes a section at an offset; returns the offset behind it. */
function putSection(view: DataView, bytes: Uint8Array, start: number, section: Section): number {
  const name = encodeKey(section.name);
  const id = encodeKey(section.id);
  const { length } = section.data;
  let at = start;
  view.setUint32(at, SECTION, true);
  view.setUint16(at += 4, name.length, true);
  bytes.set(name, at += 2);
  view.setUint16(at += name.length, id.length, true);
  bytes.set(id, at += 2);
  view.setUint32(at += id.length, section.version, true);
  view.setUint32(at += 4, length, true);
  bytes.set(section.data, at += 4);
  view.setUint32(at += length, crc32(bytes.subarray(start, at)), true);
  return at + 4;
}

function putEnd(view: DataView, bytes: Uint8Array, at: number, count: number): void {
  view.setUint32(at, END, true);
  view.setUint32(at + 4, count, true);
  view.setUint32(at + 8, crc32(bytes.subarray(at, at + 8)), true);
}

/**
 * Reads a stream, section by section, to its end.
 *
 * @throws {StateError} that says what is wrong and where
 */
export function* readSections(source: ByteSource): Generator<ReadSection> {
  const head = exactly(source, HEAD_SIZE, "the head of the stream");
  if (!MAGIC.every((byte, i) => head[i] === byte)) throw new StateError("Not a migration stream");
  const version = u32At(head, MAGIC.length);
  if (version !== FORMAT_VERSION) {
    throw new StateError(`Unsupported migration stream version ${version}`);
  }
  yield* readFurtherSections(source, 0);
}

/**
 * Goes on reading a stream to its end.
 *
 * @param before how many sections have been read
 * @throws {StateError} that says what is wrong and where
 */
export function* readFurtherSections(
  source: ByteSource,
  before: number,
): Generator<ReadSection> {
  const reader = new SectionReader(source, before);
  for (;; reader.count++) {
    const marker = reader.begin();
    const kind = u32At(marker, 0);
    if (kind === END) return readEnd(source, marker, reader.count);
    if (kind !== SECTION) {
      throw new StateError(
        `Unknown section type 0x${kind.toString(16)} after ${reader.count} sections`,
      );
    }
    yield reader.read();
  }
}

/** Reads sections. What an error says of the place is put together only when there is one. */
class SectionReader {
  readonly #source: ByteSource;
  #name: string | undefined;
  #id: string | undefined;
  #checksum = 0;

  /** @param count how many sections came before */
  constructor(source: ByteSource, public count: number) {
    this.#source = source;
  }

  /** Reads the mark at which a section begins, or the end. */
  begin(): Uint8Array<ArrayBuffer> {
    this.#name = this.#id = undefined;
    this.#checksum = 0;
    return this.#take(4);
  }

  /** Reads what follows the mark of a section. */
  read(): ReadSection {
    const name = this.#name = this.#takeKey();
    const id = this.#id = this.#takeKey();
    const sizes = this.#take(8);
    const length = u32At(sizes, 4);
    if (length > MAX_SECTION) throw new StateError(`Data of ${this} has ${length} bytes`);
    const data = this.#take(length);
    const checksum = this.#checksum;
    if (u32At(this.#take(4), 0) !== checksum) {
      throw new StateError(`Checksum of ${this} is wrong`);
    }
    return { name, id, version: u32At(sizes, 0), data, checksum };
  }

  /** The section's place in the stream, with what is known of its key; that may be damaged, too. */
  toString(): string {
    if (this.#name === undefined) return `section ${this.count}`;
    const key = { name: this.#name, id: this.#id ?? "" };
    return `section ${this.count} (${describeSection(key)})`;
  }

  #take(length: number): Uint8Array<ArrayBuffer> {
    const bytes = exactly(this.#source, length, this);
    this.#checksum = crc32(bytes, this.#checksum);
    return bytes;
  }

  #takeKey(): string {
    const head = this.#take(2);
    const length = head[0] | (head[1] << 8);
    if (length > MAX_KEY) throw new StateError(`Key of ${this} has ${length} bytes`);
    const bytes = this.#take(length);
    try {
      return decodeKey(bytes);
    } catch {
      throw new StateError(`Key of ${this} is not UTF-8`);
    }
  }
}

function readEnd(source: ByteSource, marker: Uint8Array<ArrayBuffer>, count: number): void {
  const rest = exactly(source, 8, "the end of the stream");
  const checksum = crc32(rest.subarray(0, 4), crc32(marker));
  if (u32At(rest, 4) !== checksum) {
    throw new StateError("Checksum of the end of the stream is wrong");
  }
  if (u32At(rest, 0) !== count) {
    throw new StateError(`Stream says ${u32At(rest, 0)} sections but has ${count}`);
  }
}

function exactly(
  source: ByteSource,
  length: number,
  where: string | SectionReader,
): Uint8Array<ArrayBuffer> {
  const bytes = source(length);
  if (bytes.length !== length) {
    throw new StateError(`Stream ends within ${where}: ${bytes.length} of ${length} bytes`);
  }
  return bytes;
}

// A DataView for each number, and a call of the decoder for each key, would be most of the time.

/** The little-endian number at an offset. */
export function u32At(bytes: Uint8Array, at: number): number {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

function decodeKey(bytes: Uint8Array<ArrayBuffer>): string {
  let text = "";
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] >= 0x80) return decoder.decode(bytes);
    text += String.fromCharCode(bytes[i]);
  }
  return text;
}

function encodeHead(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD_SIZE);
  bytes.set(MAGIC);
  new DataView(bytes.buffer).setUint32(MAGIC.length, FORMAT_VERSION, true);
  return bytes;
}

/** Encodes a whole stream into one buffer. @throws {RangeError} if a section is too large */
export function encodeStream(sections: readonly Section[]): Uint8Array<ArrayBuffer> {
  return encodeFurther(encodeHead(), 0, sections);
}

/**
 * Encodes a stream whose beginning is encoded already.
 *
 * @param beginning the head and the first sections
 * @param before how many sections that are
 * @throws {RangeError} if a section is too large
 */
export function encodeFurther(
  beginning: Uint8Array,
  before: number,
  sections: readonly Section[],
): Uint8Array<ArrayBuffer> {
  let size = beginning.length + END_SIZE;
  for (const section of sections) size += sectionSize(section);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  bytes.set(beginning);
  let at = beginning.length;
  for (const section of sections) at = putSection(view, bytes, at, section);
  putEnd(view, bytes, at, before + sections.length);
  return bytes;
}

/** A source over a buffer: what it gives are parts of it. */
export function bufferSource(bytes: Uint8Array<ArrayBuffer>): ByteSource {
  let at = 0;
  return (length) => {
    const slice = bytes.subarray(at, at + length);
    at += slice.length;
    return slice;
  };
}
