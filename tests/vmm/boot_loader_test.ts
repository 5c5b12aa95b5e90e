import assert from "node:assert/strict";
import { type LoaderRequest, planLoader } from "../../vmm/boot/loader.ts";
import { assertBootError, elf, elfKernel, imageFile, PT_LOAD, sparseFile } from "./boot_images.ts";

const raw = sparseFile("image.bin", 1000);

function bytes(request: LoaderRequest): number[] {
  const [segment] = planLoader(request, 1).segments;
  assert.ok("bytes" in segment);
  return [...segment.bytes];
}

Deno.test("planLoader() puts a file at addr, 0 when there is none, and starts no CPU", () => {
  const plan = planLoader({ file: raw, addr: 0x8000 }, 1);
  assert.deepEqual(plan.segments, [
    { name: "image.bin", gpa: 0x8000, file: raw, offset: 0, length: 1000 },
  ]);
  assert.equal(plan.start, undefined);
  assert.equal(planLoader({ file: raw }, 1).segments[0].gpa, 0);
});

Deno.test("planLoader() starts cpu-num in real mode at addr", () => {
  const plan = planLoader({ file: raw, addr: 0x1_2345, cpuNum: 1 }, 2);
  assert.equal(plan.start?.cpu, 1);
  const { mode, regs, sregs } = plan.start!.state;
  assert.equal(mode, "real");
  assert.equal(regs.rip, 0x2345n);
  assert.equal(sregs.cs.base, 0x1_0000n);
  assert.equal(sregs.cs.selector, 0x1000);
  assert.equal(sregs.ds.base, 0n);
  assert.equal(sregs.cr0, 0x6000_0010n);
});

Deno.test("planLoader() starts above 1 MiB with a CS base that no selector has", () => {
  const { regs, sregs } = planLoader({ file: raw, addr: 0x1234_5678, cpuNum: 0 }, 1).start!.state;
  assert.equal(sregs.cs.base + regs.rip, 0x1234_5678n);
  assert.equal(regs.rip, 0x5678n);
  assert.equal(sregs.cs.selector, 0x4000);
  const last = planLoader({ addr: 0xffff_fff0, cpuNum: 0 }, 1).start!.state;
  assert.equal(last.sregs.cs.selector, 0xf000);
  assertBootError(
    () => planLoader({ addr: 0x1_0000_0000, cpuNum: 0 }, 1),
    /CPU#0 cannot start at 0x100000000/,
  );
});

Deno.test("planLoader() loads an ELF image at its own addresses and starts at its entry", () => {
  const file = imageFile("guest.elf", elfKernel());
  const plan = planLoader({ file, addr: 0x5000, cpuNum: 0 }, 1);
  assert.deepEqual(plan.segments.map((s) => s.gpa), [0x10_0000]);
  assert.equal(plan.start?.state.sregs.cs.base, 0x10_0000n);
  assert.equal(plan.start?.state.regs.rip, 0x10n);
});

Deno.test("planLoader() needs a valid ELF entry only to start a CPU there", () => {
  const load = { type: PT_LOAD, offset: 0x1000n, paddr: 0x10_0000n, filesz: 0x1000n };
  const file = imageFile("data.elf", elf(0n, [load]));
  assert.equal(planLoader({ file }, 1).start, undefined);
  assertBootError(() => planLoader({ file, cpuNum: 0 }, 1), /e_entry 0x0 lies in none/);
});

Deno.test("planLoader() loads an ELF image as raw bytes with force-raw", () => {
  const file = imageFile("guest.elf", elfKernel());
  const [segment] = planLoader({ file, addr: 0x5000, forceRaw: true }, 1).segments;
  assert.equal(segment.gpa, 0x5000);
  assert.ok("file" in segment);
  assert.equal(segment.length, file.size);
});

Deno.test("planLoader() stores a value in either byte order", () => {
  assert.deepEqual(bytes({ addr: 0x100, data: 0x1122_3344n, dataLen: 4 }), [
    0x44,
    0x33,
    0x22,
    0x11,
  ]);
  assert.deepEqual(bytes({ data: 0x1122n, dataLen: 3, dataBe: true }), [0, 0x11, 0x22]);
  assert.deepEqual(bytes({ data: 0x1_ffn, dataLen: 1 }), [0xff]);
  assert.equal(bytes({ data: 2n ** 64n - 1n, dataLen: 8 }).length, 8);
});

Deno.test("planLoader() refuses contradicting properties with QEMU's texts", () => {
  const refused = (request: LoaderRequest, message: RegExp) =>
    assertBootError(() => planLoader(request, 2), message);
  refused({}, /^please include valid arguments$/);
  refused({ addr: 0x1000 }, /^cpu_num must be specified when setting a program counter$/);
  refused({ file: raw, cpuNum: 2 }, /^Specified boot CPU#2 is nonexistent$/);
  refused({ addr: 1, data: 1n }, /^Both data and data-len must be specified$/);
  refused({ addr: 1, data: 1n, dataLen: 9 }, /^data-len cannot be greater then 8 bytes$/);
  refused(
    { file: raw, data: 1n, dataLen: 4 },
    /^Specifying a file is not supported when loading memory values$/,
  );
  refused(
    { forceRaw: true, data: 1n, dataLen: 4 },
    /^Specifying force-raw is not supported when loading memory values$/,
  );
  refused({ forceRaw: true, addr: 0x1000, cpuNum: 0 }, /^force-raw needs a file to load$/);
});
