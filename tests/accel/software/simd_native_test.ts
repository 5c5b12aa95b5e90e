/** Every MMX and SSE instruction against the processor: results, flags, faults. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { Buffer } from "node:buffer";
import { parseSimd, type SimdForm, simdFormWords } from "../../../vmm/accel/software/simd_table.ts";
import { NativeFpu } from "./fpu_native.ts";
import {
  describeRecord,
  fill,
  FSW,
  FTW,
  integer,
  MXCSR,
  Random,
  record,
  RECORD_SIZE,
  single,
  ST,
  XMM,
} from "./fpu_records.ts";
import { rmOperand, SoftwareFpu } from "./fpu_software.ts";

const core = new URL("../../../vmm/accel/software/core.wasm", import.meta.url);
const ARITHMETIC_FLAGS = 0x8d5n;
/** Records for each of an instruction's forms. */
const COUNT = 112;

const hasSse42 = (await Deno.readTextFile("/proc/cpuinfo")).includes(" sse4_2 ");

/** MXCSR: half of them as programs have it, others with any rounding, masks, DAZ, FTZ and flags. */
function control(random: Random): number {
  const kind = random.below(4);
  if (kind === 0) return 0x1f80;
  if (kind === 1) return 0x1fa0;
  const modes = 0x1f80 | random.below(4) << 13 | random.below(2) << 15 | random.below(128);
  if (kind === 2) return modes;
  if (random.below(4) === 0) return (modes & ~0x1f80) | random.below(64) << 7;
  return modes & ~(1 << (7 + random.below(6)));
}

function prepare(random: Random, form: SimdForm, bytes: Uint8Array<ArrayBuffer>): void {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const view = record.view(bytes.buffer, bytes.byteOffset);
  for (let at = ST; at < 416; at += 32) fill(random, bytes.subarray(at, at + 32));
  for (let i = 0; i < 8; i++) bytes.fill(0, ST + 16 * i + 10, ST + 16 * i + 16);
  fill(random, bytes.subarray(512, 576));
  if (random.below(4) === 0) bytes.copyWithin(XMM + 32, XMM + 16, XMM + 32);
  if (random.below(4) === 0) {
    // Counts of shifts.
    for (const at of [XMM + 32, ST + 32, 512]) {
      data.setBigUint64(at, BigInt(random.below(70)), true);
    }
  }
  if (form.handler.includes("str")) {
    // Strings of few letters, and lengths near theirs.
    for (const at of [XMM + 16, XMM + 32, 512]) {
      for (let i = 0; i < 16; i++) bytes[at + i] = random.below(4);
    }
  }
  const length = () => BigInt.asUintN(64, BigInt(random.below(40) - 20));
  const register = () => form.handler.includes("str") ? length() : integer(random, 64);
  [view.rax, view.rcx, view.rdx] = [register(), register(), register()];
  data.setUint16(0, 0x37f, true);
  data.setUint16(FSW, random.below(8) << 11, true);
  bytes[FTW] = random.below(256);
  data.setUint32(MXCSR, control(random), true);
  view.rflags = 0x202n | BigInt(random.next()) & ARITHMETIC_FLAGS;
}

function encode(form: SimdForm, fromRegister: boolean, imm: number): number[] {
  const prefix = [[], [0x66], [0xf3], [0xf2]][form.prefix];
  const map = [[0x0f], [0x0f, 0x38], [0x0f, 0x3a]][form.map];
  const reg = (form.group ?? 1) << 3;
  return [
    ...prefix,
    ...(form.wide ? [0x48] : []),
    ...map,
    form.opcode,
    ...(fromRegister ? [0xc2 | reg] : [0x83 | reg, 0, 2, 0, 0]),
    ...(form.immediate ? [imm] : []),
  ];
}

/** Sets to zero what no instruction here has to leave the same. */
function blank(form: SimdForm, bytes: Uint8Array<ArrayBuffer>): void {
  const view = record.view(bytes.buffer, bytes.byteOffset);
  // FOP, FIP, FDP, MXCSR_MASK, the reserved parts.
  bytes.fill(0, FTW + 1, MXCSR).fill(0, MXCSR + 4, ST).fill(0, 416, 512);
  for (let i = 0; i < 8; i++) bytes.fill(0, ST + 16 * i + 10, ST + 16 * i + 16);
  view.rflags = form.flags && !view.fault ? view.rflags & ARITHMETIC_FLAGS : 0n;
  if (!form.handler.startsWith("dpp")) return;
  // Which of two NaNs a sum of four gets is a processor's own business.
  const data = new DataView(bytes.buffer, bytes.byteOffset + XMM + 16);
  for (let i = 0; i < 4; i++) {
    if (form.handler === "dpps" && isNaN(data.getFloat32(4 * i, true))) data.setUint32(4 * i, 0);
    const double = form.handler === "dppd" && i < 2;
    if (double && isNaN(data.getFloat64(8 * i, true))) data.setBigUint64(8 * i, 0n);
  }
}

function compare(
  fpu: { native: NativeFpu; software: SoftwareFpu; random: Random },
  form: SimdForm,
  word: number,
  fromRegister: boolean,
  imm: number,
  count: number,
): void {
  const before = new Uint8Array(count * RECORD_SIZE);
  for (let at = 0; at < before.length; at += RECORD_SIZE) {
    prepare(fpu.random, form, before.subarray(at, at + RECORD_SIZE));
  }
  const expected = before.slice();
  const actual = before.slice();
  fpu.native.run(encode(form, fromRegister, imm), expected);
  fpu.software.simd(form, word, fromRegister, imm, actual);
  for (let at = 0; at < before.length; at += RECORD_SIZE) {
    const [from, want, got] = [before, expected, actual].map((records) =>
      records.subarray(at, at + RECORD_SIZE)
    );
    blank(form, want);
    blank(form, got);
    if (Buffer.from(want.buffer, at, RECORD_SIZE).equals(got)) continue;
    const source = fromRegister ? "register" : "memory";
    equal(
      describeRecord(got),
      describeRecord(want),
      `${form.mnemonic} ${form.operands} imm ${imm} ${source} from\n${describeRecord(from)}`,
    );
  }
}

const forms = parseSimd();
const words = simdFormWords(forms);
const isApproximate = (form: SimdForm) => /^r(cp|sqrt)/.test(form.handler);

function* modesOf(form: SimdForm): Generator<boolean> {
  const rm = rmOperand(form);
  if (rm[0] !== "M") yield true;
  if (!"UN".includes(rm[0])) yield false;
}

Deno.test({
  name: "MMX and SSE to SSE4.2 give what the processor gives",
  ignore: !hasSse42,
  fn() {
    using native = new NativeFpu();
    const module = new WebAssembly.Module(Deno.readFileSync(core));
    const fpu = { native, software: new SoftwareFpu(module), random: new Random(20261129) };
    let compared = 0;
    forms.forEach((form, i) => {
      if (form.special || isApproximate(form)) return;
      for (const fromRegister of modesOf(form)) {
        const immediates = form.immediate ? 16 : 1;
        for (let n = 0; n < immediates; n++) {
          const imm = fpu.random.below(fpu.random.pick([20, 256]));
          compare(fpu, form, words[i], fromRegister, imm, COUNT / immediates);
          compared += COUNT / immediates;
        }
      }
    });
    ok(compared > 50_000, `${compared} compared`);
  },
});

/** Relative error of an approximation. */
function errorOf(handler: string, bits: number, result: number): number {
  const values = new DataView(new ArrayBuffer(8));
  values.setUint32(0, bits);
  values.setUint32(4, result);
  const x = values.getFloat32(0);
  const exact = handler.startsWith("rcp") ? 1 / x : 1 / Math.sqrt(x);
  return Math.abs(values.getFloat32(4) - exact) / Math.abs(exact);
}

Deno.test({
  name: "RCPPS and RSQRTPS are the processor's but for an error that both may have",
  ignore: !hasSse42,
  fn() {
    using native = new NativeFpu();
    const software = new SoftwareFpu(new WebAssembly.Module(Deno.readFileSync(core)));
    const random = new Random(5);
    forms.forEach((form, i) => {
      if (!isApproximate(form)) return;
      const records = new Uint8Array(RECORD_SIZE * 400);
      for (let at = 0; at < records.length; at += RECORD_SIZE) {
        prepare(random, form, records.subarray(at, at + RECORD_SIZE));
        new DataView(records.buffer).setUint32(at + XMM + 32, single(random), true);
      }
      const expected = records.slice();
      const actual = records.slice();
      native.run(encode(form, true, 0), expected);
      software.simd(form, words[i], true, 0, actual);
      for (let at = 0; at < records.length; at += RECORD_SIZE) {
        const [x, want, got] = [
          [records, XMM + 32],
          [expected, XMM + 16],
          [actual, XMM + 16],
        ].map(([bytes, offset]) =>
          new DataView((bytes as typeof records).buffer).getUint32(at + (offset as number), true)
        );
        const ordinary = (want & 0x7f800000) !== 0 && (want & 0x7f800000) !== 0x7f800000;
        const message = `${form.mnemonic} of ${x.toString(16)}: ${got.toString(16)}`;
        // A result about the least normal number may count as one below it, which is 0.
        if ((x & 0x7fffffff) >= 0x7e800000 && form.handler.startsWith("rcp")) {
          ok((got & 0x7fffffff) <= 0x800000 || got === want, message);
        } else if (ordinary) ok(errorOf(form.handler, x, got) <= 1.5 * 2 ** -12, message);
        else equal(got, want, message);
        deepEqual(
          actual.subarray(at + MXCSR, at + MXCSR + 4),
          records.subarray(at + MXCSR, at + MXCSR + 4),
        );
      }
    });
  },
});
