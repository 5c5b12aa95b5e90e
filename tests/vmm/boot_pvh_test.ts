import assert from "node:assert/strict";
import { parseElf } from "../../vmm/boot/elf.ts";
import type { KernelRequest } from "../../vmm/boot/kernel_data.ts";
import { planPvh } from "../../vmm/boot/pvh.ts";
import {
  assertBootError,
  bytesOf,
  elf,
  elfKernel,
  imageFile,
  le64,
  MIB,
  note,
  NOTES,
  PT_LOAD,
  PT_NOTE,
  sparseFile,
} from "./boot_images.ts";

function plan(options: Partial<KernelRequest> = {}, bytes = elfKernel()) {
  const kernel = imageFile("kernel", bytes);
  return planPvh({ kernel, cmdline: "", ramSize: 64 * MIB, ...options }, parseElf(kernel));
}

Deno.test("planPvh() starts at the note's address in flat 32-bit protected mode without paging", () => {
  const { start: { mode, regs, sregs } } = plan();
  assert.equal(mode, "protected32");
  assert.equal(regs.rip, 0x10_0020n);
  assert.equal(regs.rbx, 0x6000n);
  assert.equal(regs.rflags, 2n);
  assert.equal(sregs.cr0, 0x11n); // PE, and ET which is always set
  assert.equal(sregs.cr4, 0n);
  assert.equal(sregs.efer, 0n);
  const flat = { base: 0n, limit: 0xffff_ffff, present: 1, dpl: 0, db: 1, s: 1, l: 0, g: 1 };
  assert.deepEqual(sregs.cs, { ...flat, selector: 0x10, type: 11 });
  for (const data of [sregs.ds, sregs.es, sregs.ss]) {
    assert.deepEqual(data, { ...flat, selector: 0x18, type: 3 });
  }
  const { base, limit, type, present, s } = sregs.tr;
  assert.deepEqual(
    { base, limit, type, present, s },
    { base: 0n, limit: 0x67, type: 11, present: 1, s: 0 },
  );
});

Deno.test("planPvh() writes hvm_start_info with command line, module and memory map", () => {
  const initrd = sparseFile("initrd", 5000);
  const { segments } = plan({ cmdline: "root=/dev/vda", initrd, ramSize: 4096 * MIB });
  const info = bytesOf(segments, "hvm_start_info");
  assert.equal(info.getUint32(0, true), 0x336ec578);
  assert.equal(info.getUint32(4, true), 1); // version
  assert.equal(info.getUint32(8, true), 0); // flags
  assert.equal(info.getUint32(12, true), 1); // nr_modules
  assert.equal(info.getBigUint64(24, true), 0x20000n); // cmdline_paddr
  assert.equal(info.getBigUint64(32, true), 0n); // rsdp_paddr
  const modules = Number(info.getBigUint64(16, true)) - 0x6000;
  assert.deepEqual(
    [0, 8, 16, 24].map((offset) => info.getBigUint64(modules + offset, true)),
    [BigInt(2048 * MIB - 8192), 5000n, 0n, 0n],
  );
  const map = Number(info.getBigUint64(40, true)) - 0x6000;
  const entries = info.getUint32(48, true);
  assert.equal(entries, 6);
  assert.equal(info.byteLength, map + entries * 24);
  const last = map + 5 * 24;
  assert.equal(info.getBigUint64(last, true), 0x1_0000_0000n);
  assert.equal(info.getBigUint64(last + 8, true), BigInt(1024 * MIB));
  assert.equal(info.getUint32(last + 16, true), 1);
  const cmdline = bytesOf(segments, "cmdline");
  assert.equal(cmdline.byteLength, "root=/dev/vda".length + 1);
});

Deno.test("planPvh() gives no module without an initrd", () => {
  const info = bytesOf(plan().segments, "hvm_start_info");
  assert.equal(info.getUint32(12, true), 0);
  assert.equal(info.getBigUint64(16, true), 0n);
});

Deno.test("planPvh() refuses a kernel without a note, or with an entry outside of it", () => {
  assertBootError(
    () => plan({}, elfKernel({ pvh: false })),
    /Error loading uncompressed kernel without PVH ELF Note: kernel needs x-boot=linux64/,
  );
  const notes = note("Xen", 18, le64(0x50_0000n));
  const outside = elf(0x10_0000n, [
    { type: PT_LOAD, offset: 0x1000n, paddr: 0x10_0000n, filesz: 0x1000n },
    { type: PT_NOTE, offset: BigInt(NOTES), filesz: BigInt(notes.length) },
  ], notes);
  assertBootError(() => plan({}, outside), /XEN_ELFNOTE_PHYS32_ENTRY 0x500000 lies in none/);
});

Deno.test("planPvh() refuses an initrd that does not fit above the kernel", () => {
  assertBootError(
    () => plan({ initrd: sparseFile("initrd", 64 * MIB) }),
    /initrd is too large, cannot support\.\(max: 66048000, need 67108864\)/,
  );
});
