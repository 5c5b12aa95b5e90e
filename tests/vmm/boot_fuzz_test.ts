import assert from "node:assert/strict";
import { programs } from "../guests/programs.ts";
import { type BootPlan, type BootRequest, planBoot } from "../../vmm/boot/boot.ts";
import { ramRanges } from "../../vmm/firmware/e820.ts";
import { BootError, segmentEnd, segmentLength } from "../../vmm/boot/image.ts";
import { bzImage, elfKernel, imageFile, MIB, sparseFile } from "./boot_images.ts";

/** Numbers that are the same in every run (xorshift32). */
function makeRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Asserts what an executor of plans relies on. */
function assertSound(plan: BootPlan, ramSize: number): void {
  const ram = ramRanges(ramSize);
  let end = 0;
  for (const segment of plan.segments) {
    assert.ok(Number.isSafeInteger(segment.gpa) && segment.gpa >= end);
    end = segmentEnd(segment);
    assert.ok(ram.some(({ addr, size }) => segment.gpa >= addr && end <= addr + size));
    if ("file" in segment) {
      assert.ok(
        segment.offset >= 0 && segment.offset + segmentLength(segment) <= segment.file.size,
      );
    }
  }
  const start = plan.starts.get(0);
  assert.ok(start);
  const entry = Number(start.sregs.cs.base + start.regs.rip);
  assert.ok(plan.segments.some((s) => entry >= s.gpa && entry < segmentEnd(s)));
}

/** Plans a boot; true if there is a plan, false if the image was refused. */
function tryPlan(request: BootRequest): boolean {
  let plan: BootPlan;
  try {
    plan = planBoot(request);
  } catch (error) {
    assert.ok(error instanceof BootError, `not a BootError: ${(error as Error).stack}`);
    return false;
  }
  assertSound(plan, request.ramSize);
  return true;
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xfe, 0xff];

/** Boots an image with up to 4 bytes of its headers changed, and now and then cut off. */
function fuzz(image: Uint8Array, ranges: readonly (readonly [number, number])[], seed: number) {
  const random = makeRandom(seed);
  const outcomes = { planned: 0, refused: 0 };
  for (let round = 0; round < 4000; round++) {
    const bytes = image.slice(0, random(8) === 0 ? random(image.length + 1) : image.length);
    for (let n = random(5); n > 0; n--) {
      const [from, to] = ranges[random(ranges.length)];
      const offset = from + random(to - from);
      if (offset >= bytes.length) continue;
      bytes[offset] = random(2) === 0 ? random(256) : INTERESTING[random(INTERESTING.length)];
    }
    const planned = tryPlan({
      ramSize: [MIB / 2, 32 * MIB, 5 * 1024 * MIB][random(3)],
      apicIds: [0],
      kernel: imageFile("fuzz", bytes),
      initrd: random(2) === 0 ? sparseFile("initrd", random(2 * MIB)) : undefined,
      boot: (["auto", "pvh", "linux64"] as const)[random(3)],
    });
    outcomes[planned ? "planned" : "refused"]++;
  }
  // The changes must reach code on both sides of the checks.
  assert.ok(outcomes.planned > 100 && outcomes.refused > 100, JSON.stringify(outcomes));
}

Deno.test("planBoot() gives a sound plan or a BootError for ELF kernels with random changes", () => {
  fuzz(elfKernel(), [[0, 64], [64, 64 + 2 * 56], [0x400, 0x420]], 1);
});

Deno.test("planBoot() gives a sound plan or a BootError for bzImages with random changes", () => {
  fuzz(bzImage(), [[0x1f1, 0x270], [0x1f1, 0x202], [0x258, 0x264]], 2);
});

Deno.test("planBoot() gives a sound plan or a BootError for multiboot kernels, changed at random", () => {
  fuzz(programs.probe_multiboot.bytes, [[0, 52], [52, 84], [84, 96]], 3);
  const raw = new Uint8Array(4096).fill(0xf4);
  [0x1bad_b002, 0x10000, 0xe451_4ffe, 0x10_0000, 0x10_0000, 0, 0, 0x10_0040].forEach((word, i) =>
    new DataView(raw.buffer).setUint32(4 * i, word, true)
  );
  fuzz(raw, [[12, 32]], 4);
});

Deno.test("planBoot() refuses an ELF kernel cut off anywhere", () => {
  const image = elfKernel();
  for (let size = 0; size < image.length; size += size < 0x500 ? 1 : 97) {
    const kernel = imageFile("cut", image.subarray(0, size));
    assert.equal(tryPlan({ ramSize: 64 * MIB, apicIds: [0], kernel }), false, `${size} bytes`);
  }
});

Deno.test("planBoot() refuses a bzImage cut off anywhere", () => {
  const image = bzImage();
  for (let size = 0; size < image.length; size += size < 0x300 ? 1 : 97) {
    const kernel = imageFile("cut", image.subarray(0, size));
    assert.equal(tryPlan({ ramSize: 64 * MIB, apicIds: [0], kernel }), false, `${size} bytes`);
  }
});

Deno.test("planBoot() gives a sound plan or a BootError for loader images with random changes", () => {
  const random = makeRandom(3);
  const image = elfKernel();
  for (let round = 0; round < 2000; round++) {
    const file = imageFile("fuzz", image.slice());
    file.read(0, 0x500)[random(0x500)] = random(256);
    const loaders = [{ file, addr: random(128 * MIB), cpuNum: 0 }];
    tryPlan({ ramSize: 64 * MIB, apicIds: [0], loaders });
  }
});
