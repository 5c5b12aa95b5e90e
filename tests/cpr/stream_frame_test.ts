import assert from "node:assert/strict";
import { bufferSource, encodeStream, readSections, type Section } from "../../cpr/stream.ts";
import { StreamFrame } from "../../cpr/stream_frame.ts";

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
    assert.deepEqual(frame.decode(stream), others);
    assert.equal(frame.isWhole(stream), more.length === 0);
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
    const known = at < frame.length;
    assert.equal(frame.decode(changed) === undefined, known, `byte ${at}`);
    if (!known) assert.equal(frame.isWhole(changed), false, `byte ${at}`);
    const found = frame.decode(stream.subarray(0, at));
    assert.equal(found === undefined, known, `${at} bytes`);
    if (found) assert.equal(frame.isWhole(stream.subarray(0, at)), false, `${at} bytes`);
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
