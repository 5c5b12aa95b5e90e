import assert from "node:assert/strict";
import { decodeFds } from "../../cpr/handover/fd_table.ts";
import type { Section } from "../../cpr/stream/stream.ts";
import { makePipe, type OwnedFd } from "../../ffi/fd.ts";
import { addSeals, makeMemfd, Seal } from "../../ffi/memory.ts";

const SIZE = 1 << 16;

/** A section that names a descriptor by its position. */
function entry(name: string, id: string, number: number): Section {
  return { name, id, version: 1, data: new Uint8Array(new Uint32Array([number]).buffer) };
}

function state(id: string, text: string): Section {
  return { name: "chardev", id, version: 1, data: new TextEncoder().encode(text) };
}

function sealedMemfd(): OwnedFd {
  const fd = makeMemfd("ram", SIZE, { sealing: true });
  addSeals(fd.fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
  return fd;
}

/** Runs `use` with a sealed memfd, a pipe's reader, and a memfd that anyone can shrink. */
function withFds(use: (decode: (sections: Section[]) => ReturnType<typeof decodeFds>) => void) {
  const [reader, writer] = makePipe();
  const loose = makeMemfd("loose", SIZE, { sealing: true });
  const fds = [sealedMemfd(), reader, loose, sealedMemfd()];
  try {
    use((sections) => {
      const taken = new Set<number>();
      return decodeFds(sections, (number) => {
        if (taken.has(number)) return undefined;
        taken.add(number);
        return fds[number];
      });
    });
  } finally {
    for (const fd of [...fds, writer]) fd.close();
  }
}

const memory = entry("fd/memory", "ram", 0);
const page = entry("fd/ownership", "", 3);
const processors = {
  name: "processors",
  id: "",
  version: 1,
  data: new Uint8Array(new Uint16Array([1, 300]).buffer),
};
const text = '{"connected":true,"name":"x","port":1}';

Deno.test("`decodeFds()` gives memory and character devices their descriptors", () => {
  withFds((decode) => {
    const { kept, ownership, processors: left } = decode([
      memory,
      processors,
      entry("fd/chardev/socket", "serial0", 1),
      state("serial0", text),
      page,
    ]);
    assert.ok(ownership);
    assert.deepEqual(left, [1, 300]);
    assert.deepEqual([...kept.memory.keys()], ["ram"]);
    const { state: saved, fds } = kept.chardevs.get("serial0")!;
    assert.deepEqual(saved, JSON.parse(text));
    assert.deepEqual([...fds.keys()], ["socket"]);
  });
});

const hostile: [string, Section[], RegExp][] = [
  ["a name twice", [memory, entry("fd/memory", "ram", 2)], /ram appears twice|can shrink/],
  ["a descriptor twice", [memory, entry("fd/memory", "rom", 0)], /'fd\/memory' rom was not passed/],
  ["a number that was not passed", [entry("fd/memory", "ram", 9)], /ram was not passed/],
  ["a huge number", [entry("fd/memory", "ram", 0xffff_ffff)], /ram was not passed/],
  [
    "a pipe for memory",
    [entry("fd/memory", "ram", 1)],
    /^StateError: Memory 'ram' is a .*, not mem/,
  ],
  ["a pipe for the ownership page", [entry("fd/ownership", "", 1)], /Memory 'ownership' is a /],
  [
    "two ownership pages",
    [page, entry("fd/ownership", "", 2)],
    /Unknown file descriptor 'fd\/ownership'/,
  ],
  ["no ownership page", [memory], /'fd\/ownership' is missing/],
  [
    "memory that can shrink",
    [entry("fd/memory", "ram", 2)],
    /Memory 'ram' is a memfd that can shr/,
  ],
  ["an unknown kind", [entry("fd/disk", "d0", 0)], /Unknown file descriptor 'fd\/disk' d0/],
  ["an unknown section", [entry("ram", "", 0)], /Unknown file descriptor 'ram'/],
  ["no number", [{ ...memory, data: new Uint8Array() }], /'fd\/memory' ram has no number/],
  ["a long number", [{ ...memory, data: new Uint8Array(8) }], /'fd\/memory' ram has no number/],
  [
    "descriptors without state",
    [entry("fd/chardev/a", "c", 0)],
    /'c' has file descriptors but no st/,
  ],
  ["a state twice", [state("c", text), state("c", text)], /c appears twice/],
  ["a state that is not JSON", [state("c", "{")], /'c' is not JSON/],
  ["a state that is null", [state("c", "null")], /'c' is not a plain object/],
  ["a state that is an array", [state("c", "[1]")], /'c' is not a plain object/],
  ["a state with an object in it", [state("c", '{"a":{}}')], /'c' is not a plain object/],
];

for (const [what, sections, message] of hostile) {
  Deno.test(`\`decodeFds()\` refuses ${what}`, () => {
    withFds((decode) =>
      assert.throws(() => decode(sections), (error: Error) => {
        assert.equal(error.name, "StateError");
        assert.match(`${error}`, message);
        return true;
      })
    );
  });
}

Deno.test("`decodeFds()` keeps the names of objects' members apart from entries", () => {
  withFds((decode) => {
    const { kept } = decode([
      page,
      processors,
      state("__proto__", "{}"),
      state("constructor", "{}"),
    ]);
    assert.deepEqual([...kept.chardevs.keys()], ["__proto__", "constructor"]);
  });
});
