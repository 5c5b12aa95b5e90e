/**
 * Ways to damage a stream of sections, for the tests of those who read it.
 *
 * @module
 */
import assert from "node:assert/strict";
import { crc32 } from "../../cpr/stream/crc32.ts";
import { type Section, SectionWriter } from "../../cpr/stream/stream.ts";

/** Bytes of a stream. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** A stream's head, each of its sections, and its end. */
export function encodeParts(sections: Iterable<Section>): Bytes[] {
  const parts: Bytes[] = [];
  const writer = new SectionWriter((part) => parts.push(part));
  for (const section of sections) writer.write(section);
  writer.end();
  return parts;
}

/** Puts parts together, whatever they are. */
export function join(parts: readonly Uint8Array[]): Bytes {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** A stream with one byte changed, and the number of the part that the byte is in. */
export interface Damaged {
  readonly bytes: Bytes;
  readonly part: number;
  /** For messages of assertions. */
  readonly what: string;
}

/** Every byte changed, one after the other: one bit, which one depends on where the byte is. */
export function* flipped(parts: readonly Bytes[], step = 1): Generator<Damaged> {
  yield* damaged(parts, step, (whole, at) => {
    const bytes = whole.slice();
    bytes[at] ^= 1 << (at & 7);
    return bytes;
  }, "changed");
}

/** A stream cut before every byte. */
export function* cut(parts: readonly Bytes[], step = 1): Generator<Damaged> {
  yield* damaged(parts, step, (whole, at) => whole.slice(0, at), "and the rest missing");
}

/**
 * Every byte twice. The last byte of all is left out: a reader that has found the end does not look
 * at what comes behind it.
 */
export function* doubled(parts: readonly Bytes[], step = 1): Generator<Damaged> {
  const change = (whole: Bytes, at: number) =>
    join([whole.subarray(0, at + 1), whole.subarray(at)]);
  const all = join(parts).length;
  for (const one of damaged(parts, step, change, "twice")) {
    if (one.bytes.length === all + 1 && !one.what.startsWith(`byte ${all - 1} `)) yield one;
  }
}

function* damaged(
  parts: readonly Bytes[],
  step: number,
  change: (whole: Bytes, at: number) => Bytes,
  word: string,
): Generator<Damaged> {
  const whole = join(parts);
  let [part, end] = [0, parts[0].length];
  for (let at = 0; at < whole.length; at += step) {
    while (at >= end) end += parts[++part].length;
    yield { bytes: change(whole, at), part, what: `byte ${at} ${word}, in part ${part}` };
  }
}

/** What can be wrong with the length that a section says it has. */
export type Length = "one less" | "one more" | "largest" | "huge";

/**
 * An encoded section that says another length, with the checksum that a reader will calculate if
 * it believes that.
 */
export function withLength(section: Bytes, dataLength: number, length: Length): Bytes {
  const bytes = section.slice();
  const at = section.length - 4 - dataLength - 4;
  const said = { "one less": dataLength - 1, "one more": dataLength + 1, largest: 16 << 20 };
  const value = length === "huge" ? 0xffff_ffff : said[length];
  const view = new DataView(bytes.buffer);
  view.setUint32(at, value >>> 0, true);
  if (length !== "one less") return bytes;
  view.setUint32(section.length - 5, crc32(bytes.subarray(0, section.length - 5)), true);
  return bytes.slice(0, -1);
}

/** Fails unless reading is refused by an error that is meant for it; gives its message. */
export function refusal(read: () => unknown, what: string): string {
  try {
    read();
  } catch (error) {
    assert.ok(error instanceof Error);
    assert.equal(error.name, "StateError", `${what}: ${error.stack}`);
    assert.ok(!error.message.includes("\n"), `${what}: ${error.message}`);
    return error.message;
  }
  assert.fail(`${what} was not refused`);
}

/** Fails unless a message about a damaged stream says in which part of it the damage is. */
export function assertNames(message: string, part: number, parts: number, what: string): void {
  const section = part - 1;
  const pattern = part === 0
    ? /^Not a migration stream$|^Unsupported migration stream version|the head of the stream/
    : part === parts - 1
    ? new RegExp(`end of the stream|after ${section} sections$|within section ${section}:`)
    : new RegExp(`section ${section}\\b|after ${section} sections$`);
  assert.match(message, pattern, what);
}
