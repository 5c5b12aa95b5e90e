/**
 * Boot images made by the tests, byte by byte.
 *
 * @module
 */
import assert from "node:assert/strict";
import { BootError, type ImageFile, type Segment } from "../../vmm/boot/image.ts";

export const MIB = 1 << 20;

/** An image file in memory. */
export function imageFile(path: string, bytes: Uint8Array): ImageFile {
  return {
    path,
    size: bytes.length,
    read: (offset, length) => bytes.subarray(offset, offset + length),
  };
}

/** A file of which only the size matters. */
export function sparseFile(path: string, size: number): ImageFile {
  return {
    path,
    size,
    read: (offset, length) => new Uint8Array(Math.max(0, Math.min(length, size - offset))),
  };
}

/** A program header; what is left out is 0, p_memsz is p_filesz, p_vaddr is p_paddr. */
export interface Phdr {
  readonly type: number;
  readonly offset?: bigint;
  readonly vaddr?: bigint;
  readonly paddr?: bigint;
  readonly filesz?: bigint;
  readonly memsz?: bigint;
  readonly align?: bigint;
}

export const PT_LOAD = 1;
export const PT_NOTE = 4;

/** Where {@linkcode elf} puts notes and the loaded bytes. */
export const NOTES = 0x400;
export const CODE = 0x1000;

/** An ELF64 file of 8 KiB with these program headers; `notes` go to offset {@linkcode NOTES}. */
export function elf(
  entry: bigint,
  phdrs: readonly Phdr[],
  notes: Uint8Array = new Uint8Array(),
): Uint8Array {
  const bytes = new Uint8Array(0x2000).fill(0xf4, CODE);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, entry, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, phdrs.length, true);
  phdrs.forEach((phdr, index) => {
    const at = 64 + index * 56;
    const { paddr = 0n, filesz = 0n } = phdr;
    view.setUint32(at, phdr.type, true);
    const { offset = 0n, vaddr = paddr, memsz = filesz, align = 4n } = phdr;
    [offset, vaddr, paddr, filesz, memsz, align].forEach((value, field) =>
      view.setBigUint64(at + 8 + field * 8, value, true)
    );
  });
  bytes.set(notes, NOTES);
  return bytes;
}

/** One ELF note. */
export function note(name: string, type: number, desc: Uint8Array, align = 4): Uint8Array {
  const pad = (size: number) => Math.ceil(size / align) * align;
  const at = pad(12 + name.length + 1);
  const bytes = new Uint8Array(at + pad(desc.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, name.length + 1, true);
  view.setUint32(4, desc.length, true);
  view.setUint32(8, type, true);
  bytes.set(new TextEncoder().encode(name), 12);
  bytes.set(desc, at);
  return bytes;
}

/** A little-endian 64-bit number as bytes. */
export function le64(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

/** A small kernel at 1 MiB: 4 KiB of code, a BSS behind it, with or without a PVH note. */
export function elfKernel(options: { pvh?: boolean; paddr?: bigint } = {}): Uint8Array {
  const { pvh = true, paddr = 0x10_0000n } = options;
  const notes = note("Xen", 18, le64(paddr + 0x20n));
  const load = {
    type: PT_LOAD,
    offset: BigInt(CODE),
    paddr,
    filesz: 0x1000n,
    memsz: 0x3000n,
  };
  const noteHeader = { type: PT_NOTE, offset: BigInt(NOTES), filesz: BigInt(notes.length) };
  return elf(paddr + 0x10n, pvh ? [load, noteHeader] : [load], notes);
}

/** A field of a bzImage's setup header: offset, bytes, value. */
export type SetupField = readonly [offset: number, bytes: 1 | 2 | 4 | 8, value: number];

/** A bzImage of protocol 2.15: 2 KiB of setup, 4 KiB of protected-mode code. */
export function bzImage(fields: readonly SetupField[] = []): Uint8Array {
  const bytes = new Uint8Array(0x800 + 0x1000).fill(0x90, 0x800);
  const view = new DataView(bytes.buffer);
  const all: readonly SetupField[] = [
    [0x1f1, 1, 3], // setup_sects
    [0x1f4, 4, 0x100], // syssize, in units of 16 bytes
    [0x1fe, 2, 0xaa55],
    [0x200, 2, 0x6aeb], // jump: the header ends at 0x202 + 0x6a
    [0x202, 4, 0x5372_6448],
    [0x206, 2, 0x020f],
    [0x211, 1, 1], // LOADED_HIGH
    [0x22c, 4, 0x7fff_ffff], // initrd_addr_max
    [0x230, 4, 0x20_0000], // kernel_alignment
    [0x234, 1, 1], // relocatable_kernel
    [0x236, 2, 0x2b], // xloadflags with XLF_KERNEL_64
    [0x238, 4, 2047], // cmdline_size
    [0x258, 8, 0x100_0000], // pref_address
    [0x260, 4, 0x8000], // init_size
    ...fields,
  ];
  for (const [offset, size, value] of all) {
    if (size === 1) view.setUint8(offset, value);
    else if (size === 2) view.setUint16(offset, value, true);
    else if (size === 4) view.setUint32(offset, value, true);
    else view.setBigUint64(offset, BigInt(value), true);
  }
  return bytes;
}

/** Asserts that `action` throws a BootError with a message that matches. */
export function assertBootError(action: () => unknown, message: RegExp): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof BootError, `not a BootError: ${error}`);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\.$/);
    return true;
  });
}

/** The bytes of a segment with this name. */
export function bytesOf(segments: readonly Segment[], name: string): DataView {
  const segment = segments.find((segment) => segment.name === name);
  assert.ok(segment && "bytes" in segment, `no segment ${name} made by the VMM`);
  return new DataView(segment.bytes.buffer, segment.bytes.byteOffset, segment.bytes.length);
}
