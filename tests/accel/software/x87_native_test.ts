/** Every x87 instruction against the processor: results, FSW, tags, faults. */
import { equal, ok } from "node:assert/strict";
import { Buffer } from "node:buffer";
import { coreModule } from "./core_testing.ts";
import { NativeFpu } from "./fpu_native.ts";
import {
  describeRecord,
  double,
  extended,
  FCW,
  fill,
  FSW,
  FTW,
  MXCSR,
  Random,
  record,
  RECORD_SIZE,
  single,
  ST,
  XMM,
} from "./fpu_records.ts";
import { SoftwareFpu } from "./fpu_software.ts";

const ARITHMETIC_FLAGS = 0x8d5n;
/** Records for each instruction. */
const COUNT = 100;
const UNDEFINED_OR_ENVIRONMENT = 0x4400;
/** ModRM of the D9 instructions whose last bits are a processor's own. */
const TRANSCENDENTAL = [0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff];

/** Eight registers: any, all the same, all near each other, or small halves and eighths. */
function fillRegisters(random: Random, bytes: Uint8Array<ArrayBuffer>): void {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let i = 0; i < 8; i++) bytes.set(extended(random), ST + 16 * i);
  const kind = random.below(6);
  for (let i = 0; i < 8; i++) {
    const at = ST + 16 * i;
    if (kind < 2) bytes.copyWithin(at, ST, ST + 10);
    if (kind === 1) {
      const sign = random.below(2) << 15;
      const exponent = (data.getUint16(at + 8, true) & 0x7fff) + random.below(130) - 65;
      bytes[at] ^= random.below(4);
      if (exponent > 0 && exponent < 0x7fff) data.setUint16(at + 8, exponent | sign, true);
    } else if (kind === 2) {
      const value = 1 + random.below(64);
      const shift = Math.clz32(value);
      data.setBigUint64(at, BigInt(value << shift >>> 0) << 32n, true);
      data.setUint16(at + 8, (16383 + 28 - shift) | random.below(2) << 15, true);
    }
  }
}

/** The operand in memory: a number of the kind that the instruction takes, for half of the records. */
function fillMemory(random: Random, opcode: number, size: number, memory: Uint8Array): void {
  const data = new DataView(memory.buffer, memory.byteOffset, memory.length);
  fill(random, memory as Uint8Array<ArrayBuffer>);
  if (size === 10 && opcode === 7) {
    for (let i = 0; i < 9; i++) memory[i] = random.below(10) | random.below(10) << 4;
    memory[9] = random.below(2) << 7;
  } else if (size === 10) {
    memory.set(extended(random));
  } else if (random.below(2)) {
    if (opcode === 0 || opcode === 1) data.setUint32(0, single(random), true);
    if (opcode === 4 || opcode === 5) data.setBigUint64(0, double(random), true);
    if (opcode === 2 || opcode === 6) data.setInt32(0, random.below(9) - 4, true);
  }
}

/** FCW and FSW: mostly all is masked; the pending summary is as the flags say. */
function setControl(random: Random, bytes: Uint8Array<ArrayBuffer>): void {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const mode = random.below(3);
  let fcw = mode ? 0x7f | random.below(4) << 10 | random.pick([0, 2, 3]) << 8 : 0x37f;
  if (mode === 2) fcw &= ~(1 << random.below(6));
  if (mode === 2 && random.below(3) === 0) fcw = (fcw & ~0x3f) | random.below(64);
  let fsw = random.below(8) << 11 | random.next() & 0x4700;
  fsw |= random.below(128) & (fcw | 0x40);
  if (random.below(20) === 0) fsw |= random.below(64);
  if (fsw & ~fcw & 0x3f) fsw |= 0x8080;
  data.setUint16(FCW, fcw, true);
  data.setUint16(FSW, fsw, true);
  bytes[FTW] = random.below(3) ? 0xff : random.below(256);
  // Room for a push.
  if (random.below(2)) bytes[FTW] &= ~(1 << ((fsw >> 11) + 7 & 7));
}

function prepare(
  random: Random,
  opcode: number,
  size: number,
  bytes: Uint8Array<ArrayBuffer>,
): void {
  const view = record.view(bytes.buffer, bytes.byteOffset);
  fillRegisters(random, bytes);
  fillMemory(random, opcode, size, bytes.subarray(512, 576));
  setControl(random, bytes);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(MXCSR, 0x1f80, true);
  view.rflags = 0x202n | BigInt(random.next()) & ARITHMETIC_FLAGS;
  view.rax = random.bits64();
}

/** Sets to zero what need not be the same. */
function blank(bytes: Uint8Array<ArrayBuffer>): void {
  const view = record.view(bytes.buffer, bytes.byteOffset);
  // FOP, FIP, FDP (whose addresses differ, and which processors keep by rules of their own).
  bytes.fill(0, FTW + 1, MXCSR).fill(0, MXCSR + 4, ST).fill(0, XMM, 512);
  for (let i = 0; i < 8; i++) bytes.fill(0, ST + 16 * i + 10, ST + 16 * i + 16);
  view.rflags &= ARITHMETIC_FLAGS;
}

/** All instructions: opcode - D8 and ModRM, a memory operand being [rbx+512]. */
function* instructions(software: SoftwareFpu): Generator<[number, number, number]> {
  for (let opcode = 0; opcode < 8; opcode++) {
    for (let modrm = 0x83; modrm < 0x100; modrm += modrm < 0xbb ? 8 : 1) {
      if (modrm > 0xbb && modrm < 0xc0) continue;
      const form = software.exports.x87Form(opcode, modrm);
      if (form & UNDEFINED_OR_ENVIRONMENT) continue;
      yield [opcode, modrm, form & 0xff];
    }
  }
}

function records(random: Random, opcode: number, size: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(COUNT * RECORD_SIZE);
  for (let at = 0; at < all.length; at += RECORD_SIZE) {
    prepare(random, opcode, size, all.subarray(at, at + RECORD_SIZE));
  }
  return all;
}

const encode = (opcode: number, modrm: number) => [
  0xd8 + opcode,
  modrm,
  ...(modrm < 0xc0 ? [0, 2, 0, 0] : []),
];

Deno.test("the x87 instructions give what the processor gives", () => {
  using native = new NativeFpu();
  const software = new SoftwareFpu(coreModule());
  const random = new Random(8087);
  let compared = 0;
  for (const [opcode, modrm, size] of instructions(software)) {
    if (opcode === 1 && TRANSCENDENTAL.includes(modrm)) continue;
    const before = records(random, opcode, size);
    const expected = before.slice();
    const actual = before.slice();
    native.run(encode(opcode, modrm), expected);
    software.x87(opcode, modrm, actual);
    for (let at = 0; at < before.length; at += RECORD_SIZE) {
      const [from, want, got] = [before, expected, actual].map((all) =>
        all.subarray(at, at + RECORD_SIZE)
      );
      blank(want);
      blank(got);
      compared++;
      if (Buffer.from(want.buffer, at, RECORD_SIZE).equals(got)) continue;
      const name = `${(0xd8 + opcode).toString(16)} ${modrm.toString(16)}`;
      equal(describeRecord(got), describeRecord(want), `${name} from\n${describeRecord(from)}`);
    }
  }
  ok(compared > 40_000, `${compared} compared`);
});

/** Operands in the range that the SDM defines a result for. */
function prepareTranscendental(
  random: Random,
  modrm: number,
  bytes: Uint8Array<ArrayBuffer>,
): void {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  prepare(random, 1, 0, bytes);
  // Most are ordinary numbers, those of F2XM1 and FYL2XP1 always small enough.
  const small = modrm === 0xf0 || modrm === 0xf9;
  for (let i = 0; i < 2; i++) {
    if (!(small && i === 0) && random.below(3) === 0) continue;
    const exponent = small && i === 0 ? 16380 - random.below(60) : 16353 + random.below(60);
    data.setBigUint64(ST + 16 * i, random.bits64() | 1n << 63n, true);
    data.setUint16(ST + 16 * i + 8, exponent | random.below(2) << 15, true);
  }
}

/** A number of the extended format as a whole number of units of its last place. */
function units(bytes: Uint8Array<ArrayBuffer>, at: number): bigint {
  const data = new DataView(bytes.buffer, bytes.byteOffset + at, 10);
  const magnitude = BigInt(data.getUint16(8, true) & 0x7fff) << 63n |
    data.getBigUint64(0, true) & (2n ** 63n - 1n);
  return data.getUint8(9) & 0x80 ? -magnitude : magnitude;
}

Deno.test("transcendental functions are within two units of the processor's, mostly the same", () => {
  using native = new NativeFpu();
  const software = new SoftwareFpu(coreModule());
  const random = new Random(80387);
  for (const modrm of TRANSCENDENTAL) {
    const before = new Uint8Array(8 * COUNT * RECORD_SIZE);
    for (let at = 0; at < before.length; at += RECORD_SIZE) {
      prepareTranscendental(random, modrm, before.subarray(at, at + RECORD_SIZE));
    }
    const expected = before.slice();
    const actual = before.slice();
    native.run(encode(1, modrm), expected);
    software.x87(1, modrm, actual);
    let same = 0;
    for (let at = 0; at < before.length; at += RECORD_SIZE) {
      const [from, want, got] = [before, expected, actual].map((all) =>
        all.subarray(at, at + RECORD_SIZE)
      );
      let exact = true;
      for (let i = 0; i < 8; i++) {
        const difference = units(want, ST + 16 * i) - units(got, ST + 16 * i);
        if (difference === 0n) continue;
        exact = false;
        ok(
          difference >= -2n && difference <= 2n,
          `D9 ${modrm.toString(16)} from\n${describeRecord(from)}\nis\n${
            describeRecord(got)
          }\nand not\n${describeRecord(want)}`,
        );
        // The last units may differ, and with them C1.
        got.set(want.subarray(ST + 16 * i, ST + 16 * i + 10), ST + 16 * i);
      }
      if (exact) same++;
      for (const bytes of [want, got]) {
        blank(bytes);
        bytes[FSW + 1] &= ~2;
      }
      const message = `D9 ${modrm.toString(16)} from\n${describeRecord(from)}`;
      equal(describeRecord(got), describeRecord(want), message);
    }
    ok(same > 0.85 * 8 * COUNT, `${modrm.toString(16)}: ${same} are the same`);
  }
});
