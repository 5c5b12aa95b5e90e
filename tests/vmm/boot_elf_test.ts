import assert from "node:assert/strict";
import { checkEntry, isElf, parseElf } from "../../vmm/boot/elf.ts";
import { findPvhEntry } from "../../vmm/boot/elf_notes.ts";
import { segmentEnd } from "../../vmm/boot/image.ts";
import {
  assertBootError,
  CODE,
  elf,
  elfKernel,
  imageFile,
  le64,
  note,
  NOTES,
  type Phdr,
  PT_LOAD,
  PT_NOTE,
  sparseFile,
} from "./boot_images.ts";

const load: Phdr = { type: PT_LOAD, offset: 0x1000n, paddr: 0x10_0000n, filesz: 0x1000n };

function parse(bytes: Uint8Array) {
  return parseElf(imageFile("kernel.elf", bytes));
}

/** A valid kernel with some bytes changed. */
function changed(offset: number, ...bytes: number[]): Uint8Array {
  const image = elfKernel();
  image.set(bytes, offset);
  return image;
}

function pvhEntry(notes: Uint8Array, align = 4n, filesz = notes.length) {
  const header = { type: PT_NOTE, offset: BigInt(NOTES), filesz: BigInt(filesz), align };
  return findPvhEntry(parse(elf(0x10_0000n, [load, header], notes)));
}

Deno.test("isElf() tells ELF from other files", () => {
  assert.equal(isElf(imageFile("k", elfKernel())), true);
  assert.equal(isElf(imageFile("k", changed(0, 0x7e))), false);
  assert.equal(isElf(imageFile("k", Uint8Array.of(0x7f, 0x45, 0x4c))), false);
});

Deno.test("parseElf() gives segments at physical addresses, with BSS, entry and PVH entry", () => {
  const image = parse(elfKernel());
  assert.equal(image.entry, 0x10_0010);
  assert.equal(findPvhEntry(image), 0x10_0020);
  assert.equal(image.segments.length, 1);
  const [{ name, gpa, offset, length, zeroTo }] = image.segments;
  assert.deepEqual(
    { name, gpa, offset, length, zeroTo },
    {
      name: "kernel.elf ELF program header segment 0",
      gpa: 0x10_0000,
      offset: CODE,
      length: 0x1000,
      zeroTo: 0x10_3000,
    },
  );
});

Deno.test("parseElf() sorts segments by address and skips empty and unknown ones", () => {
  const image = parse(elf(0x30_0000n, [
    { ...load, paddr: 0x30_0000n },
    { ...load, filesz: 0n },
    { type: 0x6474_e551, filesz: 0xffff_ffff_ffff_ffffn },
    { ...load, paddr: 0x20_0000n },
  ]));
  assert.deepEqual(image.segments.map((s) => s.gpa), [0x20_0000, 0x30_0000]);
});

Deno.test("parseElf() translates a virtual entry address and keeps a physical one", () => {
  const virtual = { ...load, vaddr: 0xffff_ffff_8010_0000n };
  assert.equal(parse(elf(0xffff_ffff_8010_0123n, [virtual])).entry, 0x10_0123);
  assert.equal(parse(elf(0x10_0123n, [virtual])).entry, 0x10_0123);
  // Both at once: the physical address wins.
  const crossed = { ...load, paddr: 0x20_0000n, vaddr: 0x10_0000n };
  assert.equal(parse(elf(0x10_0004n, [load, crossed])).entry, 0x10_0004);
});

Deno.test("parseElf() refuses a header that is not ELF64 x86-64 executable", () => {
  const file = imageFile("kernel.elf", elfKernel().subarray(0, 63));
  assertBootError(() => parseElf(file), /elf image kernel\.elf: the file has 63 bytes/);
  assertBootError(() => parse(changed(4, 3)), /incompatible architecture \(EI_CLASS 3/);
  assertBootError(() => parse(changed(4, 1)), /e_machine 62, i386 is 3/);
  const short = imageFile("kernel.elf", elfKernel().subarray(0, 51));
  assertBootError(() => parseElf(short), /the file has 51 bytes, an ELF header 52/);
  assertBootError(() => parse(changed(5, 2)), /incorrect endianness \(EI_DATA 2\)/);
  assertBootError(() => parse(changed(18, 183)), /incompatible architecture \(e_machine 183/);
  assertBootError(() => parse(changed(16, 4)), /not an executable \(e_type 4/);
});

Deno.test("parseElf() refuses a program header table that is not in the file", () => {
  assertBootError(() => parse(changed(56, 0, 0)), /e_phnum is 0/);
  assertBootError(() => parse(changed(56, 0xff, 0xff)), /e_phnum is 65535/);
  assertBootError(() => parse(changed(54, 32)), /e_phentsize is 32, not 56/);
  assertBootError(() => parse(changed(33, 0x20)), /program headers .* end outside of the file/);
  assertBootError(
    () => parse(changed(32, ...le64(0xffff_ffff_ffff_ffc0n))),
    /program headers \(112 bytes at 0xffffffffffffffc0\) end outside/,
  );
});

Deno.test("parseElf() refuses segments outside of the file, too big, or overlapping", () => {
  const one = (phdr: Partial<Phdr>) => () => parse(elf(0n, [{ ...load, ...phdr }]));
  assertBootError(one({ type: 2 }), /no segment to load/);
  assertBootError(one({ offset: 0x1001n }), /p_offset 0x1001 \+ p_filesz 0x1000 is outside/);
  assertBootError(one({ offset: 2n ** 64n - 0x1000n }), /header 0: p_offset 0xf{13}000 .*outside/);
  assertBootError(one({ memsz: 0xfffn }), /p_filesz 0x1000 is greater than p_memsz 0xfff/);
  assertBootError(one({ memsz: 2n ** 64n - 1n }), /p_memsz 0xf{16} is too big to load/);
  assertBootError(one({ paddr: 2n ** 64n - 0x1000n }), /p_paddr 0xf{13}000 .* too big to load/);
  assertBootError(
    () => parse(elf(0n, [load, { ...load, paddr: 0x10_0fffn }])),
    /segment 0 \(addresses 0x0+100000 - 0x0+101000\) overlaps .*segment 1 \(addresses 0x0+100fff/,
  );
});

Deno.test("findPvhEntry() finds the entry among other notes, of 4 or 8 bytes, aligned to 4 or 8", () => {
  const others = [note("GNU", 3, new Uint8Array(20)), note("Linux", 257, new Uint8Array(1))];
  const short = note("Xen", 18, le64(0x10_0040n).subarray(0, 4));
  assert.equal(pvhEntry(new Uint8Array([...others[0], ...others[1], ...short])), 0x100040);
  const wide = [note("GNU", 3, new Uint8Array(20), 8), note("Xen", 18, le64(0x10_0080n), 8)];
  assert.equal(pvhEntry(new Uint8Array([...wide[0], ...wide[1]]), 8n), 0x10_0080);
});

Deno.test("findPvhEntry() finds the entry whatever alignment the segment declares", () => {
  const [narrow, wide] = ([4, 8] as const).map((align) =>
    new Uint8Array([
      ...note("GNU", 3, new Uint8Array(20), align),
      ...note("Xen", 18, le64(0x10_0080n), align),
    ])
  );
  for (const align of [0n, 1n, 2n, 4n, 8n, 16n, 4096n, 2n ** 64n - 1n]) {
    assert.equal(pvhEntry(narrow, align), 0x10_0080, `4, declared ${align}`);
    assert.equal(pvhEntry(wide, align), 0x10_0080, `8, declared ${align}`);
  }
});

Deno.test("findPvhEntry() finds none where name or type of the note differ", () => {
  assert.equal(pvhEntry(note("Xen", 17, le64(1n))), undefined);
  assert.equal(pvhEntry(note("Xon", 18, le64(1n))), undefined);
  assert.equal(pvhEntry(note("XenX", 18, le64(1n))), undefined);
  assert.equal(pvhEntry(new Uint8Array()), undefined);
});

Deno.test("findPvhEntry() passes over notes that are cut off, huge or outside of the file", () => {
  const xen = note("Xen", 18, le64(0x10_0040n));
  assert.equal(pvhEntry(xen, 4n, 20), undefined);
  const huge = note("GNU", 3, new Uint8Array());
  huge.fill(0xff, 0, 8);
  assert.equal(pvhEntry(huge), undefined);
  assert.equal(pvhEntry(xen, 4n, 0x10_0000), undefined);
  // A segment of notes that makes no sense does not hide one that does.
  const notes = new Uint8Array([...huge, ...xen]);
  const header = (offset: number, filesz: number) => ({
    type: PT_NOTE,
    offset: BigInt(NOTES + offset),
    filesz: BigInt(filesz),
  });
  const headers = [load, header(0, huge.length), header(huge.length, xen.length)];
  assert.equal(findPvhEntry(parse(elf(0x10_0000n, headers, notes))), 0x10_0040);
  const big = sparseFile("big", 8 << 20);
  const start = elf(0n, [load, { type: PT_NOTE, offset: BigInt(NOTES), filesz: 0x20_0000n }], xen);
  const read = (offset: number, length: number) => {
    assert.ok(length <= 1 << 20, `${length} bytes are read at once`);
    const bytes = new Uint8Array(length);
    bytes.set(start.subarray(offset, offset + length));
    return bytes;
  };
  assert.equal(findPvhEntry(parseElf({ ...big, read })), 0x10_0040);
});

Deno.test("findPvhEntry() refuses an entry that is not an address", () => {
  const refused = (value: Uint8Array, message: RegExp) =>
    assertBootError(() => pvhEntry(note("Xen", 18, value)), message);
  refused(le64(1n << 32n), /kernel\.elf: XEN_ELFNOTE_PHYS32_ENTRY \(8 bytes\) is not a 32-bit/);
  refused(new Uint8Array(2), /\(2 bytes\) is not a 32/);
});

/** What a strange image differs in from one that nobody would look at twice. */
const strange: Record<string, () => Uint8Array> = {
  "a section table that is not in the file": () => changed(40, ...le64(2n ** 63n)),
  "sections counted, none there": () => changed(60, 0xff, 0x7f, 0xff, 0x7f),
  "bytes behind the end": () => new Uint8Array([...elfKernel(), ...new Uint8Array(999).fill(7)]),
  "an ABI and flags of its own": () => changed(7, 0xff, 0xff),
  "an ELF version that does not exist": () => changed(20, 9),
  "a note segment outside of the file": () => withHeader({ type: PT_NOTE, offset: 2n ** 63n }),
  "an empty segment outside of the file": () =>
    withHeader({ ...load, offset: 2n ** 63n, filesz: 0n, memsz: 0n }),
  "an empty segment at an impossible address": () =>
    withHeader({ ...load, paddr: 2n ** 64n - 1n, filesz: 0n }),
  "zeros whose file offset is behind the end": () =>
    withHeader({ ...load, paddr: 0x20_0000n, offset: 0x10_0000n, filesz: 0n, memsz: 0x1000n }),
  "a type that is unknown, full of ones": () =>
    withHeader({ type: 0x6fff_ffff, filesz: 2n ** 64n - 1n, align: 2n ** 64n - 1n }),
  "alignments that are no powers of two": () => withHeader({ ...load, align: 3n }),
};

function withHeader(header: Phdr): Uint8Array {
  return elf(0x10_0010n, [{ ...load, memsz: 0x3000n }, header]);
}

for (const [what, image] of Object.entries(strange)) {
  Deno.test(`parseElf() takes ${what}`, () => {
    const { segments, entry } = parse(image());
    assert.equal(entry, 0x10_0010);
    assert.equal(segments[0].gpa, 0x10_0000);
    assert.equal(segments[0].length, 0x1000);
  });
}

Deno.test("parseElf() steps over program headers that are longer than needed", () => {
  const image = elf(0x10_0010n, []);
  const one = elf(0x10_0010n, [load]).subarray(64, 64 + 56);
  image.set(one, 64);
  image.set(one, 64 + 80);
  image.set(le64(0x30_0000n), 64 + 80 + 24);
  image[54] = 80;
  image[56] = 2;
  assert.deepEqual(parse(image).segments.map((s) => s.gpa), [0x10_0000, 0x30_0000]);
});

/** Guest memory as the segments make it, by address; what is not written is undefined. */
function memoryOf(bytes: Uint8Array): Map<number, number> {
  const memory = new Map<number, number>();
  for (const { gpa, offset, length, zeroTo = gpa + length } of parse(bytes).segments) {
    for (let at = gpa; at < zeroTo; at++) {
      assert.ok(!memory.has(at), `0x${at.toString(16)} is written twice`);
      memory.set(at, at < gpa + length ? bytes[offset + at - gpa] : 0);
    }
  }
  return memory;
}

Deno.test("parseElf() takes overlapping segments that contradict each other nowhere", () => {
  const at = (paddr: number, offset: number, filesz: number, memsz = filesz): Phdr => ({
    type: PT_LOAD,
    paddr: BigInt(paddr),
    offset: BigInt(offset),
    filesz: BigInt(filesz),
    memsz: BigInt(memsz),
  });
  const same = [at(0x1000, CODE, 0x20), at(0x1010, CODE + 0x10, 0x20)];
  const inside = [at(0x1000, CODE, 0x30), at(0x1010, CODE + 0x10, 0x10)];
  const zeros = [at(0x1000, CODE, 0x10, 0x40), at(0x1020, CODE + 0x70, 0x10)];
  const both = [at(0x1000, CODE, 0x10, 0x30), at(0x1018, CODE, 0, 0x30)];
  const cases: [headers: Phdr[], expected: [from: number, to: number, byte: number][]][] = [
    [same, [[0x1000, 0x1030, 0xf4]]],
    [inside, [[0x1000, 0x1030, 0xf4]]],
    [zeros, [[0x1000, 0x1010, 0xf4], [0x1010, 0x1020, 0], [0x1020, 0x1030, 0xf4], [
      0x1030,
      0x1040,
      0,
    ]]],
    [both, [[0x1000, 0x1010, 0xf4], [0x1010, 0x1048, 0]]],
  ];
  for (const [headers, expected] of cases) {
    for (const order of [headers, headers.toReversed()]) {
      const memory = memoryOf(elf(0x1000n, order));
      const bytes = expected.flatMap(([from, to, byte]) =>
        Array.from({ length: to - from }, (_, i) => [from + i, byte])
      );
      assert.deepEqual([...memory].sort(([a], [b]) => a - b), bytes);
    }
  }
});

Deno.test("parseElf() fails cleanly when the file shrinks while it is read", () => {
  const bytes = elfKernel();
  const read = (offset: number, length: number) =>
    bytes.subarray(0, 10).slice(offset, offset + length);
  const file = { path: "k", size: bytes.length, read };
  assertBootError(() => parseElf(file), /error reading k: it ends at byte 10, not 8192/);
});

Deno.test("checkEntry() accepts addresses inside of segments, BSS included, and no other", () => {
  const image = parse(elfKernel());
  checkEntry(image, 0x10_0000, "e_entry");
  checkEntry(image, segmentEnd(image.segments[0]) - 1, "e_entry");
  assertBootError(() => checkEntry(image, 0x10_3000, "e_entry"), /e_entry 0x103000 lies in none/);
  assertBootError(() => checkEntry(image, 0xf_ffff, "e_entry"), /e_entry 0xfffff lies in none/);
});
