import assert from "node:assert/strict";
import { resetStart } from "../../vmm/boot/cpu_start.ts";
import { planFirmware } from "../../vmm/firmware/firmware.ts";
import { assertBootError, MIB, sparseFile } from "./boot_images.ts";

const KIB = 1024;

Deno.test("planFirmware() ends the ROM at 4 GiB and copies its last 128 KiB below 1 MiB", () => {
  const file = sparseFile("bios.bin", 256 * KIB);
  const { rom, lowCopy } = planFirmware(file);
  assert.deepEqual(rom, { gpa: 0xfffc_0000, size: 256 * KIB, file });
  assert.deepEqual(
    lowCopy,
    { name: "bios.bin", gpa: 0xe0000, file, offset: 128 * KIB, length: 128 * KIB },
  );
});

Deno.test("planFirmware() copies the whole of a ROM of less than 128 KiB", () => {
  const { rom, lowCopy } = planFirmware(sparseFile("small.bin", 64 * KIB));
  assert.equal(rom.gpa, 0xffff_0000);
  assert.equal(lowCopy.gpa, 0xf0000);
  assert.equal(lowCopy.offset, 0);
  assert.equal(lowCopy.length, 64 * KIB);
});

Deno.test("planFirmware() refuses sizes that are not a multiple of 64 KiB or above 16 MiB", () => {
  planFirmware(sparseFile("x", 16 * MIB));
  for (const size of [0, 1, 64 * KIB - 1, 65 * KIB]) {
    assertBootError(
      () => planFirmware(sparseFile("x", size)),
      /^could not load PC BIOS 'x': its size 0x[0-9a-f]+ is not a multiple of 64 KiB$/,
    );
  }
  for (const size of [16 * MIB + 64 * KIB, 2 ** 40]) {
    assertBootError(
      () => planFirmware(sparseFile("x", size)),
      /^could not load PC BIOS 'x': its size 0x[0-9a-f]+ is greater than 16 MiB$/,
    );
  }
});

Deno.test("resetStart() is the processor's reset state", () => {
  const { mode, regs, sregs } = resetStart();
  assert.equal(mode, "reset");
  assert.equal(regs.rip, 0xfff0n);
  assert.equal(regs.rflags, 2n);
  const { base, selector, limit, type, s, db } = sregs.cs;
  assert.deepEqual(
    { base, selector, limit, type, s, db },
    { base: 0xffff_0000n, selector: 0xf000, limit: 0xffff, type: 11, s: 1, db: 0 },
  );
  assert.equal(sregs.cr0, 0x6000_0010n);
  assert.equal(sregs.efer, 0n);
  assert.deepEqual(sregs.idt, { base: 0n, limit: 0xffff });
});
