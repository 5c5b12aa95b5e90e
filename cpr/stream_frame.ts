/**
 * A stream whose sections are known before their data is: laid out once, filled within the pause,
 * and recognized on the other side by comparing bytes.
 *
 * Its bytes are those of `stream.ts`, which reads them as well: section by section, with a string for
 * each key, in several times the time.
 *
 * @module
 */
import { crc32 } from "./crc32.ts";
import {
  encodeFurther,
  encodeStream,
  HEAD_SIZE,
  type Section,
  sectionSize,
  u32At,
} from "./stream.ts";

/** Where a section lies in the stream. */
interface Span {
  readonly section: Section;
  readonly start: number;
  /** Offset of its data; before it lies what is the same in each stream. */
  readonly data: number;
  /** Offset of its checksum, behind its data. */
  readonly end: number;
  /** The checksum of what lies before its data. */
  readonly checksum: number;
}

/** A stream that begins with sections of known keys, versions and lengths. */
export class StreamFrame {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  readonly #spans: readonly Span[];
  /** Bytes of the head and of the known sections. */
  readonly length: number;
  /** Bytes of a stream that has no others. */
  readonly whole: number;

  /** @param sections the known ones; their data may change, its length may not */
  constructor(sections: readonly Section[]) {
    const bytes = encodeStream(sections);
    let at = HEAD_SIZE;
    this.#spans = sections.map((section) => {
      const start = at;
      at += sectionSize(section);
      const end = at - 4;
      const data = end - section.data.length;
      return { section, start, data, end, checksum: crc32(bytes.subarray(start, data)) };
    });
    this.length = at;
    this.whole = bytes.length;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }

  /**
   * The stream with the known sections' data as it is now.
   *
   * @param further sections that follow
   * @returns bytes that the next call may fill anew
   */
  encode(further: readonly Section[]): Uint8Array<ArrayBuffer> {
    for (const { section, data, end, checksum } of this.#spans) {
      this.#bytes.set(section.data, data);
      this.#view.setUint32(end, crc32(section.data, checksum), true);
    }
    if (further.length === 0) return this.#bytes;
    return encodeFurther(this.#bytes.subarray(0, this.length), this.#spans.length, further);
  }

  /**
   * The known sections as they are in a stream; their data is part of it.
   *
   * @returns undefined if the stream does not begin with them, or is damaged there
   */
  decode(stream: Uint8Array<ArrayBuffer>): Section[] | undefined {
    if (stream.length < this.length || !this.#agrees(stream, 0, HEAD_SIZE)) return undefined;
    const sections: Section[] = [];
    for (
      const { section: { name, id, version }, start, data: from, end, checksum } of this.#spans
    ) {
      const data = stream.subarray(from, end);
      if (!this.#agrees(stream, start, from)) return undefined;
      if (u32At(stream, end) !== crc32(data, checksum)) return undefined;
      sections.push({ name, id, version, data });
    }
    return sections;
  }

  /** Whether a stream that begins with the known sections has no others. */
  isWhole(stream: Uint8Array): boolean {
    return stream.length >= this.whole && this.#agrees(stream, this.length, this.whole);
  }

  #agrees(stream: Uint8Array, from: number, to: number): boolean {
    for (let i = from; i < to; i++) if (stream[i] !== this.#bytes[i]) return false;
    return true;
  }
}
