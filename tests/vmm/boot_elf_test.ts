import assert from "node:assert/strict";
import { checkEntry, isElf, parseElf } from "../../vmm/boot/elf.ts";
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

function parseNotes(notes: Uint8Array, align = 4n, filesz = notes.length) {
  const header = { type: PT_NOTE, offset: BigInt(NOTES), filesz: BigInt(filesz), align };
  return parse(elf(0x10_0000n, [load, header], notes));
}

Deno.test("isElf() tells ELF from other files", () => {
  assert.equal(isElf(imageFile("k", elfKernel())), true);
  assert.equal(isElf(imageFile("k", changed(0, 0x7e))), false);
  assert.equal(isElf(imageFile("k", Uint8Array.of(0x7f, 0x45, 0x4c))), false);
});

Deno.test("parseElf() gives segments at physical addresses, with BSS, entry and PVH entry", () => {
  const image = parse(elfKernel());
  assert.equal(image.entry, 0x10_0010);
  assert.equal(image.pvhEntry, 0x10_0020);
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
  assertBootError(() => parse(changed(4, 1)), /incompatible architecture \(EI_CLASS 1/);
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

Deno.test("parseElf() finds the PVH entry among other notes, of 4 or 8 bytes, aligned to 4 or 8", () => {
  const others = [note("GNU", 3, new Uint8Array(20)), note("Linux", 257, new Uint8Array(1))];
  const short = note("Xen", 18, le64(0x10_0040n).subarray(0, 4));
  assert.equal(
    parseNotes(new Uint8Array([...others[0], ...others[1], ...short])).pvhEntry,
    0x100040,
  );
  const wide = [note("GNU", 3, new Uint8Array(20), 8), note("Xen", 18, le64(0x10_0080n), 8)];
  assert.equal(parseNotes(new Uint8Array([...wide[0], ...wide[1]]), 8n).pvhEntry, 0x10_0080);
});

Deno.test("parseElf() has no PVH entry where name or type of the note differ", () => {
  assert.equal(parseNotes(note("Xen", 17, le64(1n))).pvhEntry, undefined);
  assert.equal(parseNotes(note("Xon", 18, le64(1n))).pvhEntry, undefined);
  assert.equal(parseNotes(note("XenX", 18, le64(1n))).pvhEntry, undefined);
  assert.equal(parseNotes(new Uint8Array()).pvhEntry, undefined);
});

Deno.test("parseElf() refuses notes that are cut off or not an address", () => {
  const xen = note("Xen", 18, le64(0x10_0040n));
  assertBootError(() => parseNotes(xen, 4n, 20), /program header 1 \(PT_NOTE\): the note at 0x0/);
  const huge = note("GNU", 3, new Uint8Array());
  huge.fill(0xff, 0, 8);
  assertBootError(() => parseNotes(huge), /name 4294967295, value 4294967295 bytes\) is cut off/);
  assertBootError(() => parseNotes(note("Xen", 18, le64(1n << 32n))), /not a 32-bit address/);
  assertBootError(() => parseNotes(note("Xen", 18, new Uint8Array(2))), /\(2 bytes\) is not a 32/);
  const big = sparseFile("big", 8 << 20);
  const headers = elf(0n, [load, { type: PT_NOTE, filesz: 0x10_0001n }]);
  const file = {
    ...big,
    read: (offset: number, length: number) => headers.slice(offset, offset + length),
  };
  assertBootError(() => parseElf(file), /p_filesz 0x100001 is greater than 0x100000/);
});

Deno.test("parseElf() fails cleanly when the file shrinks while it is read", () => {
  const bytes = elfKernel();
  const file = { path: "k", size: bytes.length, read: () => bytes.subarray(0, 10) };
  assertBootError(() => parseElf(file), /error reading k: it ends at byte 10, not 8192/);
});

Deno.test("checkEntry() accepts addresses inside of segments, BSS included, and no other", () => {
  const image = parse(elfKernel());
  checkEntry(image, 0x10_0000, "e_entry");
  checkEntry(image, segmentEnd(image.segments[0]) - 1, "e_entry");
  assertBootError(() => checkEntry(image, 0x10_3000, "e_entry"), /e_entry 0x103000 lies in none/);
  assertBootError(() => checkEntry(image, 0xf_ffff, "e_entry"), /e_entry 0xfffff lies in none/);
});
