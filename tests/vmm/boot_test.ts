import assert from "node:assert/strict";
import { type BootRequest, planBoot } from "../../vmm/boot/boot.ts";
import { segmentEnd } from "../../vmm/boot/image.ts";
import {
  assertBootError,
  bytesOf,
  bzImage,
  elf,
  elfKernel,
  imageFile,
  MIB,
  PT_LOAD,
  sparseFile,
} from "./boot_images.ts";

const kernel = imageFile("vmlinux", elfKernel());
const bios = sparseFile("bios.bin", 256 * 1024);
const base: BootRequest = { ramSize: 64 * MIB, apicIds: [0] };

function plan(request: Partial<BootRequest>) {
  return planBoot({ ...base, ...request });
}

function refused(request: Partial<BootRequest>, message: RegExp): void {
  assertBootError(() => plan(request), message);
}

function cmdline(request: Partial<BootRequest>): string {
  const bytes = bytesOf(plan({ kernel, ...request }).segments, "cmdline");
  const text = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength - 1);
  return new TextDecoder().decode(text);
}

Deno.test("planBoot() takes PVH for an ELF kernel with a note, else the Linux 64-bit protocol", () => {
  const plain = imageFile("vmlinux", elfKernel({ pvh: false }));
  const image = imageFile("bzImage", bzImage());
  const mode = (request: Partial<BootRequest>) => plan(request).starts.get(0)?.mode;
  assert.equal(mode({ kernel }), "protected32");
  assert.equal(mode({ kernel: plain }), "long64");
  assert.equal(mode({ kernel: image }), "long64");
  assert.equal(mode({ kernel, boot: "linux64" }), "long64");
  assert.equal(mode({ kernel, boot: "pvh" }), "protected32");
  assert.equal(mode({ kernel: image, boot: "linux64" }), "long64");
  refused({ kernel: plain, boot: "pvh" }, /without PVH ELF Note/);
  refused(
    { kernel: image, boot: "pvh" },
    /x-boot=pvh needs an ELF kernel, but bzImage is a bzImage/,
  );
});

Deno.test("planBoot() gives a kernel its MP table and segments in order of address", () => {
  const { segments, starts, rom } = plan({ kernel, apicIds: [0, 1], cpuSignature: 0x123456 });
  const table = bytesOf(segments, "mp table");
  assert.equal(table.getUint32(44 + 4, true), 0x123456);
  assert.equal(table.getUint8(44 + 20 + 1), 1);
  segments.slice(1).forEach((s, i) => assert.ok(segmentEnd(segments[i]) <= s.gpa));
  assert.deepEqual([...starts.keys()], [0]);
  assert.equal(rom, undefined);
});

Deno.test("planBoot() appends what auto-kernel-cmdline finds to -append", () => {
  const autoCmdline = [
    "virtio_mmio.device=512@0xfeb00000:5",
    "virtio_mmio.device=512@0xfeb00200:6",
  ];
  assert.equal(cmdline({}), "");
  assert.equal(cmdline({ append: "console=ttyS0" }), "console=ttyS0");
  assert.equal(cmdline({ autoCmdline }), autoCmdline.join(" "));
  assert.equal(
    cmdline({ append: "console=ttyS0", autoCmdline }),
    `console=ttyS0 ${autoCmdline.join(" ")}`,
  );
});

Deno.test("planBoot() starts firmware at the reset vector, with no table in RAM", () => {
  const { segments, starts, rom } = plan({ bios });
  assert.equal(starts.get(0)?.mode, "reset");
  assert.equal(rom?.gpa, 0xfffc_0000);
  assert.deepEqual(segments.map((s) => [s.name, s.gpa]), [["bios.bin", 0xe0000]]);
});

Deno.test("planBoot() starts a kernel directly when there is firmware too", () => {
  const { segments, starts, rom } = plan({ bios, kernel });
  assert.equal(starts.get(0)?.mode, "protected32");
  assert.equal(rom?.size, bios.size);
  assert.equal(segments.some((s) => s.name === "bios.bin"), false);
});

Deno.test("planBoot() starts a loader's CPU, and CPU 0 in firmware when no loader names it", () => {
  const loaders = [{ file: sparseFile("ap.bin", 100), addr: 0x8000, cpuNum: 1 }];
  const { starts, segments } = plan({ bios, loaders, apicIds: [0, 1] });
  assert.equal(starts.get(0)?.mode, "reset");
  assert.equal(starts.get(1)?.mode, "real");
  assert.deepEqual(segments.map((s) => s.name), ["ap.bin", "bios.bin"]);
  const alone = plan({ loaders: [{ ...loaders[0], cpuNum: 0 }] });
  assert.equal(alone.starts.get(0)?.mode, "real");
});

Deno.test("planBoot() refuses a request with nothing for CPU 0 to run", () => {
  const message = /^there is nothing to boot: give -kernel, -bios or -device loader,.*cpu-num=0$/;
  refused({}, message);
  refused({ loaders: [{ file: sparseFile("data", 100), addr: 0x8000 }] }, message);
});

Deno.test("planBoot() refuses two start addresses for one CPU", () => {
  const loader = { file: sparseFile("a", 100), addr: 0x8000, cpuNum: 0 };
  refused({ kernel, loaders: [loader] }, /^CPU#0 has two start addresses/);
  refused({ loaders: [loader, { ...loader, addr: 0x9000 }] }, /^CPU#0 has two start addresses/);
});

Deno.test("planBoot() refuses -append and -initrd without -kernel", () => {
  refused({ bios, append: "quiet" }, /^-append only allowed with -kernel option$/);
  refused({ bios, initrd: sparseFile("i", 1) }, /^-initrd only allowed with -kernel option$/);
});

Deno.test("planBoot() refuses a kernel that is neither ELF nor bzImage", () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(3), new Uint8Array(70000)]) {
    refused(
      { kernel: imageFile("small", bytes) },
      /^invalid kernel header: small is neither an ELF image nor a bzImage nor a multiboot kernel$/,
    );
  }
});

Deno.test("planBoot() refuses images that overlap, by name and addresses", () => {
  const small = sparseFile("small", 3);
  const loaders = [{ file: small, addr: 0x1000, cpuNum: 0 }, { file: small, addr: 0x1002 }];
  refused(
    { loaders },
    /^Some ROM regions are overlapping: small \(addresses 0x0{12}1000 - 0x0{12}1003\) and small \(addresses 0x0{12}1002 - 0x0{12}1005\)$/,
  );
  plan({ loaders: [loaders[0], { file: small, addr: 0x1003 }] });
});

Deno.test("planBoot() refuses images over boot data, the BSS, and what a kernel unpacks into", () => {
  const small = sparseFile("small", 3);
  const at = (addr: number) => [{ file: small, addr }];
  refused({ kernel, loaders: at(0x6010) }, /overlapping: hvm_start_info .* and small/);
  refused({ kernel, loaders: at(0x10_2fff) }, /overlapping: vmlinux ELF .* and small/);
  const image = imageFile("bzImage", bzImage());
  refused({ kernel: image, loaders: at(16 * MIB + 0x7fff) }, /overlapping: bzImage .* and small/);
  plan({ kernel: image, loaders: at(16 * MIB + 0x8000) });
  const low = imageFile("low", elfKernel({ paddr: 0x6000n }));
  refused({ kernel: low }, /overlapping: .*hvm_start_info/);
});

Deno.test("planBoot() refuses images outside of RAM", () => {
  const small = sparseFile("small", 3);
  const at = (addr: number, ramSize = 64 * MIB) => ({
    ramSize,
    loaders: [{ file: small, addr, cpuNum: 0 }],
  });
  refused(
    at(64 * MIB - 2),
    /^small \(addresses 0x0+3fffffe - 0x0+4000001\) does not fit into RAM, which has 0x4000000 bytes: give more with -m$/,
  );
  refused(at(0xc000_0000 - 2, 4096 * MIB), /does not fit into RAM/);
  refused(at(0xd000_0000, 4096 * MIB), /does not fit into RAM/);
  plan({ kernel, ramSize: 4096 * MIB, loaders: [{ file: small, addr: 0x1_0000_0000 }] });
  refused({ kernel, ramSize: MIB }, /vmlinux ELF program header segment 0 .* does not fit/);
  refused({ kernel: imageFile("b", bzImage()), ramSize: 16 * MIB }, /^b .* does not fit into RAM/);
  const bss = elf(0x10_0000n, [
    { type: PT_LOAD, offset: 0x1000n, paddr: 0x10_0000n, filesz: 0x1000n, memsz: 2n ** 52n },
  ]);
  refused({ kernel: imageFile("bss", bss) }, /^bss ELF program header segment 0 .* does not fit/);
});

Deno.test("planBoot() puts code at real mode's reset vector, unless the user has something there", () => {
  const code = bytesOf(plan({ kernel }).segments, "reset vector");
  const bytes = new Uint8Array(code.buffer, code.byteOffset, code.byteLength);
  assert.deepEqual([...bytes], [0xfa, 0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd]);
  const loaders = [{ file: sparseFile("own.bin", 0x100), addr: 0xfff00 }];
  assert.equal(plan({ kernel, loaders }).segments.some((s) => s.name === "reset vector"), false);
  assert.equal(plan({ bios }).segments.some((s) => s.name === "reset vector"), false);
});
