import assert from "node:assert/strict";
import {
  bufferSource,
  encodeStream,
  MAX_SECTION,
  readSections,
  type Section,
  StateError,
} from "../../cpr/stream/stream.ts";

const sections: Section[] = [
  { name: "machine", id: "", version: 1, data: new TextEncoder().encode("{}") },
  { name: "cpu/regs", id: "0", version: 3, data: new Uint8Array(144).map((_, i) => i) },
  { name: "serial", id: "é", version: 0xffff_ffff, data: new Uint8Array() },
];

const read = (bytes: Uint8Array<ArrayBuffer>): Section[] =>
  [...readSections(bufferSource(bytes))].map(({ checksum: _, ...section }) => section);

/** Fails unless a stream is refused; whoever reads a damaged one must not get something else. */
function assertRefused(bytes: Uint8Array<ArrayBuffer>, what: string): void {
  assert.throws(() => read(bytes), StateError, what);
}

Deno.test("`readSections()` gives what `encodeStream()` wrote", () => {
  assert.deepEqual(read(encodeStream(sections)), sections);
  assert.deepEqual(read(encodeStream([])), []);
});

Deno.test("`readSections()` refuses a stream with any one byte changed", () => {
  const stream = encodeStream(sections);
  for (let at = 0; at < stream.length; at++) {
    for (const mask of [0x01, 0x80, 0xff]) {
      const damaged = stream.slice();
      damaged[at] ^= mask;
      assertRefused(damaged, `byte ${at} ^ ${mask}`);
    }
  }
});

Deno.test("`readSections()` refuses a stream that is cut anywhere", () => {
  const stream = encodeStream(sections);
  for (let length = 0; length < stream.length; length++) {
    assertRefused(stream.slice(0, length), `${length} bytes`);
  }
});

Deno.test("`readSections()` refuses a stream in which any one byte comes twice", () => {
  // Before the marker of the end, one byte more is one section less: the end is found torn.
  const stream = encodeStream(sections);
  for (let at = 0; at < stream.length - 1; at++) {
    const longer = new Uint8Array(stream.length + 1);
    longer.set(stream.subarray(0, at + 1));
    longer.set(stream.subarray(at), at + 1);
    assertRefused(longer, `byte ${at}`);
  }
});

Deno.test("`readSections()` refuses a stream with a section left out or there twice", () => {
  const whole = encodeStream(sections);
  const head = 12;
  const first = encodeStream(sections.slice(0, 1)).length - 12 - head;
  const without = new Uint8Array([
    ...whole.subarray(0, head),
    ...whole.subarray(head + first),
  ]);
  assertRefused(without, "a section less");
  const twice = new Uint8Array([
    ...whole.subarray(0, head + first),
    ...whole.subarray(head),
  ]);
  assertRefused(twice, "a section more");
});

Deno.test("`readSections()` says what is wrong", () => {
  const stream = encodeStream(sections);
  const version = stream.slice();
  version[8] = 9;
  assert.throws(() => read(version), /^StateError: Unsupported migration stream version 9$/);
  assert.throws(
    () => read(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n")),
    /^StateError: Not a migration stream$/,
  );
  assert.throws(
    () => read(stream.slice(0, 20)),
    /^StateError: Stream ends within section 0: \d+ of \d+ bytes$/,
  );
});

Deno.test("`readSections()` asks for no more than the largest section when a length is huge", () => {
  const head = encodeStream([]).subarray(0, 12);
  const section = new Uint8Array(4 + 2 + 2 + 4 + 4);
  new DataView(section.buffer).setUint32(0, 0x5443_4553, true);
  new DataView(section.buffer).setUint32(12, 0xffff_ffff, true);
  const bytes = new Uint8Array([...head, ...section]);
  const source = bufferSource(bytes);
  let largest = 0;
  assert.throws(
    () => [...readSections((length) => {
      largest = Math.max(largest, length);
      return source(length);
    })],
    /^StateError: Data of section 0 \(''\) has 4294967295 bytes$/,
  );
  assert.ok(largest <= MAX_SECTION);
});

Deno.test("`encodeStream()` refuses sections that no reader would take", () => {
  const data = new Uint8Array(MAX_SECTION + 1);
  const tooLong = "x".repeat(257);
  for (
    const section of [
      { ...sections[0], data },
      { ...sections[0], name: tooLong },
      { ...sections[0], id: tooLong },
    ]
  ) {
    assert.throws(() => encodeStream([section]), RangeError);
  }
});
