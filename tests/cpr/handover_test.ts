import assert from "node:assert/strict";
import { decodeHandover, encodeHandover } from "../../cpr/handover/handover.ts";
import { type Section, StateError } from "../../cpr/stream/stream.ts";
import { makePipe } from "../../ffi/fd.ts";
import type { Inheritance } from "../../vmm/inheritance.ts";

/** A section that names a descriptor by its position. */
function entry(name: string, id: string, number: number): Section {
  return { name, id, version: 1, data: new Uint8Array(new Uint32Array([number]).buffer) };
}

/** Runs `use` with two descriptors to be named. */
function withFds(use: (decode: (sections: Section[]) => Inheritance, fds: number[]) => void) {
  const fds = makePipe();
  const numbers = fds.map(({ fd }) => fd);
  try {
    use((sections) => {
      const taken = new Set<number>();
      const resolve = (number: number) => {
        if (taken.has(number)) return undefined;
        taken.add(number);
        return fds[number];
      };
      return decodeHandover(sections, resolve, true);
    }, numbers);
  } finally {
    for (const fd of fds) fd.close();
  }
}

const ram = entry("fd/memory", "ram", 0);
const state: Section = { name: "chardev", id: "c", version: 1, data: Uint8Array.of(1, 2) };

Deno.test("`decodeHandover()` gives what `encodeHandover()` wrote, whatever its kind", () => {
  withFds((decode, fds) => {
    const handover = {
      fds: [{ name: "disk/lock", id: "d", fd: fds[1] }, { name: "memory", id: "", fd: fds[0] }],
      values: [{ name: "disk", id: "d", data: Uint8Array.of(7) }, {
        name: "__proto__",
        id: "constructor",
        data: new Uint8Array(),
      }],
    };
    const sections = encodeHandover(handover, ({ fd }) => fds.indexOf(fd));
    assert.deepEqual(sections.map(({ name }) => name), [
      "fd/disk/lock",
      "fd/memory",
      "disk",
      "__proto__",
    ]);
    const inheritance = decode(sections);
    assert.deepEqual(inheritance.fds, handover.fds);
    assert.deepEqual(inheritance.values, handover.values);
    assert.equal(inheritance.shared, true);
  });
});

Deno.test("an optional descriptor goes as one of a character device that nobody has", () => {
  withFds((decode, fds) => {
    const handover = {
      fds: [
        { name: "lock", id: "", fd: fds[1], optional: true },
        { name: "disk/log", id: "a:b", fd: fds[0], optional: true },
      ],
      values: [],
    };
    const sections = encodeHandover(handover, ({ fd }) => fds.indexOf(fd));
    // Version 1 closes it, as it does with all that belongs to a device which it has not.
    assert.deepEqual(sections.map(({ name, id }) => `${name} ${id}`), [
      "fd/chardev/lock: -optional",
      "fd/chardev/disk/log:a:b -optional",
      "chardev -optional",
    ]);
    assert.equal(new TextDecoder().decode(sections[2].data), "{}");
    const inheritance = decode(sections);
    assert.deepEqual(inheritance.fds, handover.fds);
    assert.deepEqual(inheritance.values, []);
  });
});

const hostile: [string, Section[], string][] = [
  [
    "a name twice",
    [ram, entry("fd/memory", "ram", 1)],
    "File descriptor 'fd/memory' ram appears twice",
  ],
  [
    "a name twice, once as optional",
    [entry("fd/lock", "", 0), entry("fd/chardev/lock:", "-optional", 1)],
    "File descriptor 'fd/chardev/lock:' -optional appears twice",
  ],
  ["a value twice", [state, state], "File descriptor 'chardev' c appears twice"],
  [
    "a descriptor twice",
    [ram, entry("fd/memory", "rom", 0)],
    "File descriptor 'fd/memory' rom was not passed",
  ],
  [
    "a number that was not passed",
    [entry("fd/memory", "ram", 9)],
    "File descriptor 'fd/memory' ram was not passed",
  ],
  [
    "a huge number",
    [entry("fd/memory", "ram", 0xffff_ffff)],
    "File descriptor 'fd/memory' ram was not passed",
  ],
  [
    "no number",
    [{ ...ram, data: new Uint8Array() }],
    "File descriptor 'fd/memory' ram has no number",
  ],
  [
    "a long number",
    [{ ...ram, data: new Uint8Array(8) }],
    "File descriptor 'fd/memory' ram has no number",
  ],
  [
    "a version that is not known",
    [{ ...ram, version: 2 }],
    "Unsupported version 2 for 'fd/memory' ram, newest known is 1",
  ],
];

for (const [what, sections, message] of hostile) {
  Deno.test(`\`decodeHandover()\` refuses ${what}`, () => {
    withFds((decode) =>
      assert.throws(() => decode(sections), (error: Error) => {
        assert.ok(error instanceof StateError);
        assert.equal(error.message, message);
        return true;
      })
    );
  });
}
