import assert from "node:assert/strict";
import { parseElf } from "../../vmm/boot/elf.ts";
import type { KernelRequest } from "../../vmm/boot/kernel_data.ts";
import { planBzImage, planLinuxElf } from "../../vmm/boot/linux.ts";
import {
  assertBootError,
  bytesOf,
  bzImage,
  elf,
  elfKernel,
  imageFile,
  MIB,
  PT_LOAD,
  type SetupField,
  sparseFile,
} from "./boot_images.ts";

function request(kernel: Uint8Array, options: Partial<KernelRequest> = {}): KernelRequest {
  return { kernel: imageFile("kernel", kernel), cmdline: "", ramSize: 64 * MIB, ...options };
}

function plan(options: Partial<KernelRequest> = {}, fields: readonly SetupField[] = []) {
  return planBzImage(request(bzImage(fields), options));
}

function planElf(options: Partial<KernelRequest> = {}, kernel = elfKernel()) {
  const whole = request(kernel, options);
  return planLinuxElf(whole, parseElf(whole.kernel));
}

Deno.test("planBzImage() loads the protected-mode code at pref_address and enters at +0x200", () => {
  const { segments, start } = plan();
  const kernel = segments.find((segment) => segment.name === "kernel");
  assert.ok(kernel && "file" in kernel);
  const { gpa, offset, length, reserveTo } = kernel;
  assert.deepEqual(
    { gpa, offset, length, reserveTo },
    { gpa: 16 * MIB, offset: 0x800, length: 0x1000, reserveTo: 16 * MIB + 0x8000 },
  );
  assert.equal(start.regs.rip, BigInt(16 * MIB + 0x200));
});

Deno.test("planBzImage() takes 4 setup sectors when setup_sects is 0", () => {
  const { segments } = plan({}, [[0x1f1, 1, 0], [0x1f4, 4, 0xe0]]);
  const kernel = segments.find((segment) => segment.name === "kernel");
  assert.ok(kernel && "file" in kernel);
  assert.equal(kernel.offset, 5 * 512);
});

Deno.test("planBzImage() reserves what is loaded when init_size is less", () => {
  const { segments } = plan({}, [[0x260, 4, 0x10]]);
  assert.equal(segments.find((s) => s.name === "kernel")?.reserveTo, 16 * MIB + 0x1000);
});

Deno.test("planBzImage() starts in 64-bit mode with zero page, page tables and GDT in memory", () => {
  const { segments, start: { mode, regs, sregs } } = plan();
  assert.equal(mode, "long64");
  assert.equal(regs.rflags, 2n);
  assert.equal(regs.rsi, 0x7000n);
  assert.equal(sregs.cr0 & 0x8000_0001n, 0x8000_0001n); // PG, PE
  assert.equal(sregs.cr4, 0x20n); // PAE
  assert.equal(sregs.efer, 0x500n); // LME, LMA
  assert.deepEqual(sregs.cs, {
    base: 0n,
    limit: 0xffff_ffff,
    selector: 0x10,
    type: 11,
    present: 1,
    dpl: 0,
    db: 0,
    s: 1,
    l: 1,
    g: 1,
  });
  for (const data of [sregs.ds, sregs.es, sregs.ss]) {
    const { selector, type, db, l, s } = data;
    assert.deepEqual({ selector, type, db, l, s }, { selector: 0x18, type: 3, db: 1, l: 0, s: 1 });
  }
  // The table in memory says the same as the loaded registers.
  const gdt = bytesOf(segments, "gdt");
  assert.deepEqual(sregs.gdt, { base: 0x500n, limit: gdt.byteLength - 1 });
  assert.equal(gdt.getBigUint64(0x10, true), 0x00af_9b00_0000_ffffn);
  assert.equal(gdt.getBigUint64(0x18, true), 0x00cf_9300_0000_ffffn);
  assert.equal(gdt.getUint8(0x25), 0x8b);
});

Deno.test("planBzImage() maps the first 4 GiB to themselves", () => {
  const { segments, start } = plan();
  const root = Number(start.sregs.cr3);
  const tables = bytesOf(segments, "page tables");
  const entry = (table: number, index: number) =>
    tables.getBigUint64(table - root + index * 8, true);
  const next = (value: bigint) => {
    assert.equal(value & 0xfffn, 3n);
    return Number(value & ~0xfffn);
  };
  const walk = (address: bigint) => {
    const pdpt = next(entry(root, Number(address >> 39n & 511n)));
    const directory = next(entry(pdpt, Number(address >> 30n & 511n)));
    const page = entry(directory, Number(address >> 21n & 511n));
    assert.equal(page & 0x1f_ffffn, 0x83n); // present, writable, 2 MiB
    return (page & ~0x1f_ffffn) + (address & 0x1f_ffffn);
  };
  for (const address of [0n, 0x7000n, 0x10_0200n, 0xbfff_ffffn, 0xfee0_0030n, 0xffff_ffffn]) {
    assert.equal(walk(address), address);
  }
  assert.equal(entry(root, 1), 0n);
});

Deno.test("planBzImage() fills the zero page from the setup header and the request", () => {
  const initrd = sparseFile("initrd", 5000);
  const { segments } = plan({ cmdline: "console=ttyS0", initrd }, [[0x1fa, 2, 0x123]]);
  const zeroPage = bytesOf(segments, "boot_params");
  assert.equal(zeroPage.byteLength, 4096);
  assert.equal(zeroPage.getUint16(0x1fa, true), 0x123); // vid_mode, copied
  assert.equal(zeroPage.getUint32(0x202, true), 0x5372_6448);
  assert.equal(zeroPage.getUint16(0x206, true), 0x020f);
  assert.equal(zeroPage.getBigUint64(0x258, true), BigInt(16 * MIB));
  assert.equal(zeroPage.getUint8(0x210), 0xff); // type_of_loader
  assert.equal(zeroPage.getUint32(0x218, true), 64 * MIB - 8192); // ramdisk_image
  assert.equal(zeroPage.getUint32(0x21c, true), 5000); // ramdisk_size
  const cmdline = bytesOf(segments, "cmdline");
  assert.equal(zeroPage.getUint32(0x228, true), 0x20000);
  assert.equal(cmdline.byteLength, 14);
  assert.equal(cmdline.getUint8(13), 0);
  // Nothing of the file outside of its header: the sentinel stays 0.
  assert.equal(zeroPage.getUint8(0x1ef), 0);
  assert.equal(zeroPage.getUint8(0x26c), 0);
  // e820
  assert.equal(zeroPage.getUint8(0x1e8), 5);
  const entry = (index: number) => [
    zeroPage.getBigUint64(0x2d0 + index * 20, true),
    zeroPage.getBigUint64(0x2d8 + index * 20, true),
    zeroPage.getUint32(0x2e0 + index * 20, true),
  ];
  assert.deepEqual(entry(0), [0n, 0x9fc00n, 1]);
  assert.deepEqual(entry(1), [0x9fc00n, 0x400n, 2]);
  assert.deepEqual(entry(3), [BigInt(MIB), BigInt(63 * MIB), 1]);
  assert.deepEqual(entry(5), [0n, 0n, 0]);
});

Deno.test("planBzImage() puts no ramdisk into the zero page without an initrd or with an empty one", () => {
  for (const initrd of [undefined, sparseFile("empty", 0)]) {
    const zeroPage = bytesOf(plan({ initrd }).segments, "boot_params");
    assert.equal(zeroPage.getUint32(0x218, true), 0);
    assert.equal(zeroPage.getUint32(0x21c, true), 0);
  }
});

Deno.test("planBzImage() places the initrd as high as RAM and initrd_addr_max allow", () => {
  const initrd = sparseFile("initrd", 4097);
  const gpa = (ramSize: number, addrMax: number) =>
    plan({ initrd, ramSize }, [[0x22c, 4, addrMax]]).segments.find((s) => s.name === "initrd")?.gpa;
  assert.equal(gpa(64 * MIB, 0x7fff_ffff), 64 * MIB - 8192);
  assert.equal(gpa(8192 * MIB, 0x7fff_ffff), 2048 * MIB - 8192);
  assert.equal(gpa(8192 * MIB, 0xffff_ffff), 3072 * MIB - 8192);
  assert.equal(gpa(64 * MIB, 0x1ff_ffff), 32 * MIB - 8192);
  assert.equal(gpa(64 * MIB, 0x1ff_f000), 32 * MIB - 8192);
  assert.equal(gpa(64 * MIB, 0x1ff_efff), 32 * MIB - 12288);
});

Deno.test("planBzImage() refuses an initrd for which there is no room above the kernel", () => {
  const max = 64 * MIB - 16 * MIB - 0x8000;
  const withInitrd = (size: number, fields: readonly SetupField[] = []) => () =>
    plan({ initrd: sparseFile("initrd", size) }, fields);
  withInitrd(max)();
  assertBootError(
    withInitrd(max + 1),
    /^initrd is too large, cannot support\.\(max: 50298880, need 50298881\)$/,
  );
  assertBootError(withInitrd(2 ** 40), /need 1099511627776\)/);
  assertBootError(withInitrd(1, [[0x22c, 4, 0]]), /max: 0, need 1\)/);
});

Deno.test("planBzImage() refuses a command line longer than cmdline_size", () => {
  plan({ cmdline: "x".repeat(2047) });
  assertBootError(
    () => plan({ cmdline: "x".repeat(2048) }),
    /command line is too long: it has 2048 bytes, the kernel takes 2047/,
  );
  // Bytes count, not characters; and there is an end to our own room as well.
  assertBootError(() => plan({ cmdline: "ü".repeat(1024) }), /it has 2048 bytes/);
  const unlimited = [[0x238, 4, 0xffff_ffff]] as const;
  assertBootError(() => plan({ cmdline: "x".repeat(65536) }, unlimited), /the kernel takes 65535/);
  assertBootError(() => plan({ cmdline: "a\0b" }), /contains a zero character/);
});

Deno.test("planBzImage() refuses kernels that cannot be booted this way", () => {
  const field = (...fields: SetupField[]) => () => plan({}, fields);
  assertBootError(field([0x206, 2, 0x020b]), /kernel speaks boot protocol 0x20b/);
  assertBootError(field([0x211, 1, 0]), /is a zImage \(loadflags 0x0\)/);
  assertBootError(field([0x236, 2, 0x2a]), /no 64-bit entry point \(xloadflags 0x2a\)/);
  assertBootError(field([0x201, 1, 0x65]), /setup header that ends at 0x267/);
  assertBootError(field([0x201, 1, 0xff]), /setup header that ends at 0x301/);
  assertBootError(field([0x258, 8, 0xf_f000]), /at 0xff000 \(pref_address\)/);
  assertBootError(field([0x258, 8, 0xbfff_f000]), /between 1 MiB and 3 GiB/);
  assertBootError(field([0x258, 8, 2 ** 63]), /at 0x8000000000000000 \(pref_address\)/);
  assertBootError(field([0x260, 4, 0xffff_ffff]), /with 0xffffffff bytes \(init_size\)/);
});

Deno.test("planBzImage() refuses an image that is cut off", () => {
  const cut = (length: number) => () => planBzImage(request(bzImage().subarray(0, length)));
  assertBootError(cut(0x17f0), /is cut off: it has 6128 bytes, its header promises 6144/);
  assert.doesNotThrow(cut(0x17f1), "the last paragraph need not be full");
  assertBootError(cut(0x800), /is cut off/);
  assertBootError(cut(0x268), /setup header that ends at 0x26c/);
  assertBootError(() => plan({}, [[0x1f1, 1, 255], [0x1f4, 4, 0]]), /is cut off/);
});

Deno.test("planLinuxElf() enters a vmlinux at e_entry with a header of its own", () => {
  const { segments, start } = planElf({ cmdline: "quiet", initrd: sparseFile("initrd", 100) });
  assert.equal(start.mode, "long64");
  assert.equal(start.regs.rip, 0x10_0010n);
  assert.equal(start.regs.rsi, 0x7000n);
  const zeroPage = bytesOf(segments, "boot_params");
  assert.equal(zeroPage.getUint16(0x1fe, true), 0xaa55);
  assert.equal(zeroPage.getUint32(0x202, true), 0x5372_6448);
  assert.equal(zeroPage.getUint8(0x210), 0xff);
  assert.equal(zeroPage.getUint32(0x228, true), 0x20000);
  assert.equal(zeroPage.getUint32(0x218, true), 64 * MIB - 4096);
  assert.equal(zeroPage.getUint8(0x1e8), 5);
});

Deno.test("planLinuxElf() refuses an entry outside of the image or above 4 GiB", () => {
  const load = { type: PT_LOAD, offset: 0x1000n, paddr: 0x10_0000n, filesz: 0x1000n };
  assertBootError(
    () => planElf({}, elf(0x5000n, [load])),
    /elf image kernel: e_entry 0x5000 lies in none of its segments/,
  );
  const high = elf(0x1_0000_0000n, [{ ...load, paddr: 0x1_0000_0000n }]);
  assertBootError(() => planElf({}, high), /e_entry 0x100000000 is above 4 GiB/);
});

Deno.test("planLinuxElf() refuses a command line that a vmlinux would cut off", () => {
  assertBootError(() => planElf({ cmdline: "x".repeat(2048) }), /the kernel takes 2047/);
});
