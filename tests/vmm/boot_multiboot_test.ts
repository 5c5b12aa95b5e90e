import assert from "node:assert/strict";
import { type BootRequest, planBoot } from "../../vmm/boot/boot.ts";
import { isMultiboot, splitModules } from "../../vmm/boot/multiboot.ts";
import { segmentEnd } from "../../vmm/boot/image.ts";
import { programs } from "../guests/programs.ts";
import { assertBootError, bytesOf, bzImage, elfKernel, imageFile, MIB } from "./boot_images.ts";

const RAM = 64 * MIB;
const kernel = imageFile("k.elf", programs.probe_multiboot.bytes);

function plan(options: Partial<BootRequest> = {}) {
  return planBoot({ ramSize: RAM, apicIds: [0], kernel, ...options });
}

/** A raw image of 32 bytes whose header, at its start, has addresses. */
function raw(flags: number, addresses: readonly number[], size = 32): Uint8Array {
  const bytes = new Uint8Array(size);
  const words = [0x1bad_b002, flags, -(0x1bad_b002 + flags) >>> 0, ...addresses];
  words.forEach((word, i) => new DataView(bytes.buffer).setUint32(4 * i, word, true));
  return bytes;
}

const rawPlan = (addresses: readonly number[], size?: number) =>
  plan({ kernel: imageFile("raw", raw(1 << 16, addresses, size)) });

/** struct multiboot_info, and texts by their addresses. */
function infoOf(segments: ReturnType<typeof plan>["segments"]) {
  const view = bytesOf(segments, "multiboot_info");
  const at = (address: number) => address - 0x9500;
  const word = (address: number) => view.getUint32(at(address), true);
  const text = (address: number) => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset + at(address));
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  };
  const field = (offset: number) => word(0x9500 + offset);
  return { word, text, field };
}

Deno.test("isMultiboot() finds the header of images that no other protocol boots", () => {
  assert.equal(isMultiboot(kernel), true);
  assert.equal(isMultiboot(imageFile("raw", raw(0, []))), true);
  assert.equal(isMultiboot(imageFile("k", elfKernel())), false);
  const withHeader = (image: Uint8Array, at: number) => {
    image.set(raw(0, []).subarray(0, 12), at);
    return imageFile("k", image);
  };
  assert.equal(isMultiboot(withHeader(elfKernel(), 0x200)), false);
  assert.equal(isMultiboot(withHeader(bzImage(), 0x800)), false);
  const far = (at: number) => isMultiboot(withHeader(new Uint8Array(9000), at));
  assert.equal(far(8192 - 12), true);
  assert.equal(far(8192 - 8), false);
  assert.equal(far(2), false);
  const wrong = raw(0, []);
  wrong[8] ^= 1;
  assert.equal(isMultiboot(imageFile("k", wrong)), false);
});

Deno.test("planBoot() starts a multiboot kernel with its information", () => {
  const { segments, starts } = plan({ append: "one two" });
  const { regs, mode } = starts.get(0)!;
  assert.deepEqual([mode, regs.rax, regs.rbx], ["protected32", 0x2bad_b002n, 0x9500n]);
  const { field, text, word } = infoOf(segments);
  assert.equal(field(0), 0x247);
  assert.deepEqual([field(4), field(8)], [639, 63 * 1024]);
  assert.equal(field(12), 0x8000_ffff);
  assert.equal(text(field(16)), "k.elf one two");
  assert.equal(field(20), 0);
  const raw = bytesOf(plan({ append: "a=\udce9" }).segments, "multiboot_info");
  const bytes = new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
  assert.ok(String.fromCharCode(...bytes).includes("k.elf a=\xe9\0"), "a byte that is no UTF-8");
  assert.equal(text(field(64)), "Denovo");
  const [length, map] = [field(44), field(48)];
  assert.equal(length % 24, 0);
  const entries = Array.from({ length: length / 24 }, (_, i) => {
    const at = map + 24 * i;
    assert.equal(word(at), 20);
    assert.deepEqual([word(at + 8), word(at + 16)], [0, 0]);
    return [word(at + 4), word(at + 12), word(at + 20)];
  });
  assert.deepEqual(entries, [
    [0, 0x9fc00, 1],
    [0x9fc00, 0x400, 2],
    [0xf0000, 0x10000, 2],
    [MIB, RAM - MIB, 1],
    [0xfeff_c000, 0x4000, 2],
  ]);
});

Deno.test("planBoot() puts a multiboot kernel's modules behind it, on pages", () => {
  const modules = [5000, 0, 3].map((size, i) => ({
    file: imageFile(`m${i}`, new Uint8Array(size)),
    text: `m${i} text`,
  }));
  const { segments } = plan({ modules });
  const { field, text, word } = infoOf(segments);
  assert.equal(field(0) & 8, 8);
  assert.equal(field(20), 3);
  const image = segments.find(({ name }) => name.startsWith("k.elf"))!;
  let least = segmentEnd(image);
  modules.forEach(({ file, text: expected }, i) => {
    const at = field(24) + 16 * i;
    const [start, end] = [word(at), word(at + 4)];
    assert.equal(start, Math.ceil(least / 4096) * 4096);
    assert.equal(end - start, file.size);
    assert.equal(text(word(at + 8)), expected);
    assert.equal(word(at + 12), 0);
    if (file.size > 0) {
      assert.ok(segments.some(({ name, gpa }) => name === file.path && gpa === start));
    }
    least = end;
  });
});

Deno.test("splitModules() reads -initrd as QEMU does", () => {
  const split = (text: string) => splitModules(text).map(({ path, text }) => `${path}|${text}`);
  assert.deepEqual(split("a"), ["a|a"]);
  assert.deepEqual(split("a b c,d"), ["a|a b c", "d|d"]);
  assert.deepEqual(split("a x,,y, b"), ["a|a x,y", "b|b"]);
  assert.deepEqual(split(""), []);
});

Deno.test("planBoot() loads a raw multiboot image where its header says", () => {
  const [header, load] = [0x10_0000, 0x10_0000];
  const { segments, starts } = rawPlan([header, load, 0, 0, 0x10_0010]);
  const image = segments.find(({ name }) => name === "raw multiboot image")!;
  assert.deepEqual([image.gpa, segmentEnd(image)], [0x10_0000, 0x10_0020]);
  assert.equal(starts.get(0)!.regs.rip, 0x10_0010n);
  const cut = rawPlan([header, load, 0x10_0010, 0x10_1000, 0x10_0100]).segments
    .find(({ name }) => name === "raw multiboot image")!;
  assert.ok("length" in cut);
  assert.deepEqual([cut.offset, cut.length, cut.zeroTo], [0, 0x10, 0x10_1000]);
});

Deno.test("planBoot() refuses a multiboot header that makes no sense", () => {
  const wrong: [addresses: number[], reason: RegExp][] = [
    [[0x10_0000, 0x10_0004, 0, 0, 0x10_0010], /header_addr 0x100000, load_addr 0x100004/],
    [[0x10_0004, 0x10_0000, 0, 0, 0x10_0010], /header_addr 0x100004, load_addr 0x100000/],
    [[0x10_0000, 0x10_0000, 0x10_0021, 0, 0x10_0010], /load_end_addr 0x100021/],
    [[0x10_0000, 0x10_0000, 0x1000, 0, 0x10_0010], /load_end_addr 0x1000/],
    [[0x10_0000, 0x10_0000, 0, 0x10_0010, 0x10_0010], /bss_end_addr 0x100010/],
    [[0x10_0000, 0x10_0000, 0, 0, 0x10_0020], /entry_addr 0x100020/],
    [[0x10_0000, 0x10_0000, 0, 0, 0], /entry_addr 0x0/],
  ];
  for (const [addresses, reason] of wrong) assertBootError(() => rawPlan(addresses), reason);
  assertBootError(
    () => plan({ kernel: imageFile("raw", raw(1 << 16, [], 20)) }),
    /it ends outside of the file/,
  );
  assertBootError(
    () => plan({ kernel: imageFile("raw", raw(0, [])) }),
    /raw is a multiboot kernel without addresses, and no ELF image/,
  );
  assertBootError(
    () => plan({ kernel: imageFile("raw", raw(0x18, [])) }),
    /raw is a multiboot kernel that requires what is not known: flags 0x18/,
  );
});

Deno.test("planBoot() refuses modules that do not fit, and texts that are too long", () => {
  const big = { path: "big", size: RAM, read: () => new Uint8Array() };
  assertBootError(
    () => plan({ modules: [{ file: big, text: "big" }] }),
    /^big \(addresses .* does not fit into RAM/,
  );
  assertBootError(
    () => plan({ append: "x".repeat(620_000) }),
    /command line and modules of a multiboot kernel are too long/,
  );
  assertBootError(() => plan({ append: "a\0b" }), /contains a zero character/);
});

Deno.test("planBoot() starts a 32-bit ELF image only by multiboot or PVH", () => {
  const plain = programs.probe_multiboot.bytes.slice();
  const at = 84;
  assert.equal(new DataView(plain.buffer).getUint32(at, true), 0x1bad_b002);
  plain[at] = 0;
  assertBootError(
    () => plan({ kernel: imageFile("k32", plain) }),
    /^k32 is a 32-bit ELF image with neither a multiboot header nor a PVH note$/,
  );
  assertBootError(() => plan({ boot: "pvh" }), /without PVH ELF Note/);
});
