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

/** A section that may come in several versions. */
export interface FramedSection extends Section {
  /** The versions that it may come in, and their lengths; without them only the one that it has. */
  readonly forms?: readonly Pick<Section, "version" | "data">[];
}

/** One version of a section in the stream. */
interface Form {
  /** What lies before its data, the same in each stream. */
  readonly head: Uint8Array;
  /** The checksum of that. */
  readonly checksum: number;
  readonly version: number;
  /** Bytes of its data. */
  readonly length: number;
}

/** Where a section lies in the stream, in the version that it had when the frame was made. */
interface Span {
  readonly section: FramedSection;
  readonly version: number;
  /** Offset of its data. */
  readonly data: number;
  /** Offset of its checksum, behind its data. */
  readonly end: number;
  /** The checksum of what lies before its data. */
  readonly checksum: number;
  /** The versions in which it may come. */
  readonly forms: readonly Form[];
}

/** The known sections in a stream. */
export interface Framed {
  readonly sections: Section[];
  /** Bytes up to their end. */
  readonly length: number;
  /** Bytes of the stream, if it has no further sections. */
  readonly whole?: number;
}

/** A stream that begins with sections of known keys, versions and lengths. */
export class StreamFrame {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  readonly #spans: readonly Span[];
  /** Bytes of the head and of the known sections. */
  readonly #length: number;

  /** @param sections the known ones; their data may change, its length in one version may not */
  constructor(sections: readonly FramedSection[]) {
    const bytes = encodeStream(sections);
    let at = HEAD_SIZE;
    this.#spans = sections.map((section) => {
      const start = at;
      at += sectionSize(section);
      const end = at - 4;
      const data = end - section.data.length;
      const checksum = crc32(bytes.subarray(start, data));
      const forms = (section.forms ?? [section]).map((form) => formOf(section, form));
      return { section, version: section.version, data, end, checksum, forms };
    });
    this.#length = at;
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
    for (const { section, version, data, end, checksum } of this.#spans) {
      if (section.version !== version) return this.#encodeAnew(further);
      this.#bytes.set(section.data, data);
      this.#view.setUint32(end, crc32(section.data, checksum), true);
    }
    if (further.length === 0) return this.#bytes;
    return encodeFurther(this.#bytes.subarray(0, this.#length), this.#spans.length, further);
  }

  /**
   * The known sections as they are in a stream, each in one of its versions; their data is part of
   * it.
   *
   * @returns undefined if the stream does not begin with them, or is damaged there
   */
  decode(stream: Uint8Array<ArrayBuffer>): Framed | undefined {
    if (!agrees(stream, 0, this.#bytes, 0, HEAD_SIZE)) return undefined;
    const sections: Section[] = [];
    let at = HEAD_SIZE;
    for (const { section: { name, id }, forms } of this.#spans) {
      const form = findForm(forms, stream, at);
      if (!form) return undefined;
      const from = at + form.head.length;
      const end = from + form.length;
      if (end + 4 > stream.length) return undefined;
      const data = stream.subarray(from, end);
      if (u32At(stream, end) !== crc32(data, form.checksum)) return undefined;
      sections.push({ name, id, version: form.version, data });
      at = end + 4;
    }
    const rest = this.#bytes.length - this.#length;
    const isWhole = agrees(stream, at, this.#bytes, this.#length, rest);
    return { sections, length: at, whole: isWhole ? at + rest : undefined };
  }

  /** For a guest that has begun or ceased to use a feature since the frame was made. */
  #encodeAnew(further: readonly Section[]): Uint8Array<ArrayBuffer> {
    return encodeStream([...this.#spans.map(({ section }) => section), ...further]);
  }
}

function formOf({ name, id }: Section, { version, data }: Pick<Section, "version" | "data">): Form {
  const bytes = encodeStream([{ name, id, version, data }]);
  const end = HEAD_SIZE + sectionSize({ name, id, version, data }) - 4;
  const head = bytes.slice(HEAD_SIZE, end - data.length);
  return { head, checksum: crc32(head), version, length: data.length };
}

function findForm(forms: readonly Form[], stream: Uint8Array, at: number): Form | undefined {
  for (const form of forms) {
    if (agrees(stream, at, form.head, 0, form.head.length)) return form;
  }
}

/** Whether a part of one is a part of the other. */
function agrees(one: Uint8Array, at: number, other: Uint8Array, from: number, length: number) {
  if (at + length > one.length) return false;
  for (let i = 0; i < length; i++) if (one[at + i] !== other[from + i]) return false;
  return true;
}
