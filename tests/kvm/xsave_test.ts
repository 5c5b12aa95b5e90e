import assert from "node:assert/strict";
import { canonicalXsave } from "./xsave.ts";

const AVX = 576;
const cpuid = [
  { function: 0xd, index: 0, flags: 1, eax: 7, ebx: 832, ecx: 832, edx: 0 },
  { function: 0xd, index: 2, flags: 1, eax: 256, ebx: AVX, ecx: 0, edx: 0 },
];

/** An area with the initial FCW, some bytes and XSTATE_BV. */
function area(xstateBv: number, bytes: Readonly<Record<number, number>> = {}): Uint8Array {
  const result = new Uint8Array(832);
  result.set([0x7f, 3]);
  for (const [at, value] of Object.entries(bytes)) result[Number(at)] = value;
  result[512] = xstateBv;
  return result;
}

Deno.test("canonicalXsave() is the same whether an initial component's bit is set", () => {
  for (let bits = 0; bits < 8; bits++) {
    assert.deepEqual(canonicalXsave(area(bits), cpuid), area(0));
  }
});

Deno.test("canonicalXsave() takes what a clear bit says for what the bytes say", () => {
  const stale = { 0: 1, 40: 2, 160: 3, [AVX]: 4 };
  assert.deepEqual(canonicalXsave(area(0, stale), cpuid), area(0));
  assert.deepEqual(canonicalXsave(area(2, stale), cpuid), area(2, { 160: 3 }));
});

Deno.test("canonicalXsave() keeps every byte of a component in use, and all that is none's", () => {
  const x87 = [0, 2, 4, 6, 8, 16, 23, 32, 159];
  const xmm = [160, 415];
  const avx = [AVX, AVX + 255];
  for (const [bit, offsets] of [[1, x87], [2, xmm], [4, avx]] as const) {
    for (const at of offsets) {
      const used = area(bit, { [at]: 0x55 });
      assert.deepEqual(canonicalXsave(used, cpuid), used, `byte ${at}`);
    }
  }
  // MXCSR and its mask, and a component that CPUID does not describe.
  const others = area(0x80, { 24: 0x80, 25: 0x1f, 28: 0xff });
  assert.deepEqual(canonicalXsave(others, cpuid), others);
});
