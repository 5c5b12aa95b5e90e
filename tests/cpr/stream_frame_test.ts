import assert from "node:assert/strict";
import { bufferSource, encodeStream, readSections, type Section } from "../../cpr/stream/stream.ts";
import { StreamFrame } from "../../cpr/stream/stream_frame.ts";

const section = (name: string, id: string, length: number, version = 1): Section => ({
  name,
  id,
  version,
  data: Uint8Array.from({ length }, (_, i) => i * 7 + length),
});
const newSections = () => [
  section("globalstate", "", 25),
  section("cpu/xsave", "0", 4096),
  section("cpu/empty", "1", 0),
  section("pít", "", 9, 3),
];
const further = [section("chardev", "serial0", 3), section("chardev", "mon", 40)];

Deno.test("a frame's stream is that of its sections with the data they have now", () => {
  const sections = newSections();
  const frame = new StreamFrame(sections);
  for (let round = 0; round < 3; round++) {
    sections.forEach(({ data }) => data.forEach((_, i) => data[i] += round * 31));
    for (const more of [[], further, []]) {
      assert.deepEqual(frame.encode(more), encodeStream([...sections, ...more]));
    }
  }
});

Deno.test("a frame finds its sections in a stream, whatever follows them", () => {
  const sections = newSections();
  const frame = new StreamFrame(sections);
  sections.forEach(({ data }) => data.reverse());
  const others = newSections();
  others.forEach(({ data }) => data.fill(0x5a));
  for (const more of [[], further]) {
    const stream = encodeStream([...others, ...more]);
    const length = encodeStream(others).length - 12;
    const whole = more.length === 0 ? stream.length : undefined;
    assert.deepEqual(frame.decode(stream), { sections: others, length, whole });
    const known = [...readSections(bufferSource(stream))].slice(0, sections.length);
    assert.deepEqual(known.map(({ checksum: _, ...rest }) => rest), others);
    // What was found is not the frame's own.
    assert.notDeepEqual(sections, others);
  }
});

Deno.test("a frame finds nothing in a stream that is cut, changed or another's", () => {
  const sections = newSections();
  const frame = new StreamFrame(sections);
  const stream = encodeStream(sections);
  for (let at = 0; at < stream.length; at++) {
    const changed = Uint8Array.from(stream);
    changed[at] ^= 1 << (at & 7);
    for (const damaged of [changed, stream.subarray(0, at)]) {
      const found = frame.decode(damaged);
      assert.equal(found === undefined, at < stream.length - 12, `byte ${at}`);
      assert.equal(found?.whole, undefined, `byte ${at}`);
    }
  }
  const strangers = [
    sections.toReversed(),
    sections.slice(1),
    sections.with(0, { ...sections[0], version: 2 }),
    sections.with(1, { ...sections[1], data: new Uint8Array(4095) }),
    sections.with(3, { ...sections[3], id: "0" }),
    sections.with(3, { ...sections[3], name: "pit" }),
  ];
  for (const others of strangers) {
    assert.equal(frame.decode(encodeStream([...others, ...further])), undefined);
  }
});

/** A section in one of three versions, of 24, 8 and 8 bytes. */
const versioned = (version: number) => {
  const forms = [3, 2, 1].map((n) => ({
    version: n,
    data: section("", "", n === 3 ? 24 : 8).data,
  }));
  return { ...section("nvram", "n", 0), ...forms.find((form) => form.version === version)!, forms };
};

Deno.test("a frame finds sections in any of their versions, whatever its own have", () => {
  const [head, ...rest] = newSections();
  for (const own of [1, 2, 3]) {
    const frame = new StreamFrame([head, versioned(own), ...rest, versioned(own)]);
    for (const [first, last] of [[1, 1], [1, 3], [3, 2], [2, 1], [3, 3]]) {
      const { forms: _, ...one } = versioned(first);
      const { forms: __, ...other } = versioned(last);
      const sections = [head, one, ...rest, other];
      for (const more of [[], further]) {
        const stream = encodeStream([...sections, ...more]);
        const found = frame.decode(stream);
        assert.deepEqual(found?.sections, sections, `${own}: ${first}, ${last}`);
        assert.equal(found.whole, more.length === 0 ? stream.length : undefined);
      }
    }
    const strangers = [{ ...versioned(3), version: 4 }, {
      ...versioned(1),
      data: new Uint8Array(9),
    }];
    for (const stranger of strangers) {
      const stream = encodeStream([head, stranger, ...rest, versioned(1)]);
      assert.equal(frame.decode(stream), undefined);
    }
  }
});

Deno.test("a frame's stream is right too when a section has come to another version", () => {
  const changing = versioned(1);
  const sections = [...newSections(), changing];
  const frame = new StreamFrame(sections);
  for (const version of [1, 3, 2, 1]) {
    Object.assign(changing, versioned(version));
    for (const more of [[], further]) {
      assert.deepEqual(frame.encode(more), encodeStream([...sections, ...more]));
    }
  }
});
