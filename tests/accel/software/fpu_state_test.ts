/**
 * What saves and restores the state of x87 and SSE, as code on the software CPU and on the processor;
 * and the exceptions that say that there is no such state now.
 */
import { deepEqual, equal } from "node:assert/strict";
import { mapAnonymous } from "../../../ffi/memory.ts";
import { fxsaveIn, fxsaveOut } from "../../../vmm/accel/software/fxsave.ts";
import { TestCore } from "./core_testing.ts";
import { NativeFpu } from "./fpu_native.ts";
import { extended, FCW, FSW, FTW, MXCSR, Random, RECORD_SIZE, ST, XMM } from "./fpu_records.ts";

const CODE = 0x1000;
const AREA = 0x8000;
const AREA_SIZE = 1024;
const HLT = 0xf4;
const RCX = 1;

/** As a guest of one instruction: the image before, the area that RCX points to; both are changed. */
class Guest {
  readonly cpu = new TestCore(4 << 20);

  run(code: readonly number[], image: Uint8Array, area: Uint8Array): void {
    const { cpu } = this;
    cpu.enterLongMode();
    // OSFXSR, OSXMMEXCPT, OSXSAVE and both components.
    cpu.state.cr4 |= 0x4_0600n;
    cpu.state.xcr0 = 3n;
    cpu.state.mp_state = 0;
    cpu.state.fxsave = fxsaveIn(image);
    cpu.state.gpr.put(0, 3n);
    cpu.state.gpr.put(2, 0n);
    cpu.state.gpr.put(RCX, BigInt(AREA));
    cpu.ram.set(area, AREA);
    cpu.load(CODE, [...code, HLT]);
    cpu.core.exports.refresh();
    cpu.run(CODE);
    image.set(fxsaveOut(cpu.state.fxsave));
    area.set(cpu.ram.subarray(AREA, AREA + AREA_SIZE));
  }
}

const isIntel = (await Deno.readTextFile("/proc/cpuinfo")).includes("GenuineIntel");

/** Any registers, pointers and modes; if it may be, every other with an exception pending. */
function image(random: Random, mayPend = true): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(512);
  const data = new DataView(bytes.buffer);
  for (let i = 0; i < 8; i++) bytes.set(extended(random), ST + 16 * i);
  for (let at = XMM; at < 416; at += 4) data.setUint32(at, random.next(), true);
  const pending = mayPend && random.below(2);
  data.setUint16(FCW, (pending ? 0x37e : 0x37f) & ~(random.below(4) << 10), true);
  data.setUint16(FSW, random.next() & 0x7f00 | (pending ? 0x8081 : 0x01), true);
  bytes[FTW] = random.below(256);
  data.setUint16(6, random.below(0x800), true);
  data.setBigUint64(8, random.bits64() >> 17n, true);
  data.setBigUint64(16, random.bits64() >> 17n, true);
  data.setUint32(MXCSR, random.below(0x10000), true);
  data.setUint32(28, 0xffff, true);
  return bytes;
}

/** Sets to zero what processors keep by rules of their own: pointers, but on Intel's, and selectors. */
function blankImage(bytes: Uint8Array<ArrayBuffer>, narrow: boolean): void {
  bytes.fill(0, 28, ST).fill(0, 416, 512);
  if (!isIntel) bytes.fill(0, 6, 24);
  if (narrow) bytes.fill(0, 12, 16).fill(0, 20, 24);
}

interface Instruction {
  readonly name: string;
  readonly code: readonly number[];
  /** Pointers have 32 bits. */
  readonly narrow?: boolean;
  /** Where FNSTENV's area has the selectors. */
  readonly selectors?: readonly number[];
}

const instructions: readonly Instruction[] = [
  { name: "FNSTENV", code: [0xd9, 0x31], selectors: [16, 17, 24, 25], narrow: true },
  { name: "FNSTENV of 16 bits", code: [0x66, 0xd9, 0x31], selectors: [8, 9, 12, 13] },
  { name: "FLDENV", code: [0xd9, 0x21], narrow: true },
  { name: "FLDENV of 16 bits", code: [0x66, 0xd9, 0x21], narrow: true },
  { name: "FNSAVE", code: [0xdd, 0x31], selectors: [16, 17, 24, 25], narrow: true },
  { name: "FNSAVE of 16 bits", code: [0x66, 0xdd, 0x31], selectors: [8, 9, 12, 13] },
  { name: "FRSTOR", code: [0xdd, 0x21], narrow: true },
  { name: "FRSTOR of 16 bits", code: [0x66, 0xdd, 0x21], narrow: true },
  { name: "FXSAVE", code: [0x0f, 0xae, 0x01], selectors: [12, 13, 14, 15, 20, 21, 22, 23] },
  { name: "FXSAVE64", code: [0x48, 0x0f, 0xae, 0x01] },
  { name: "FXRSTOR", code: [0x0f, 0xae, 0x09], narrow: true },
  { name: "FXRSTOR64", code: [0x48, 0x0f, 0xae, 0x09] },
  { name: "STMXCSR", code: [0x0f, 0xae, 0x19] },
  { name: "LDMXCSR", code: [0x0f, 0xae, 0x11] },
  { name: "XSAVE64", code: [0x48, 0x0f, 0xae, 0x21] },
  { name: "XRSTOR64", code: [0x48, 0x0f, 0xae, 0x29] },
  { name: "FNINIT", code: [0xdb, 0xe3] },
  { name: "FNCLEX", code: [0xdb, 0xe2] },
];

/** The area that an instruction finds: what the one that it undoes has stored, of another image. */
function prepareArea(guest: Guest, { name }: Instruction, random: Random): Uint8Array<ArrayBuffer> {
  const area = new Uint8Array(AREA_SIZE);
  const saver = instructions.find((one) =>
    one.name ===
      name.replace("LDENV", "NSTENV").replace("FRSTOR", "FNSAVE").replace("RSTOR", "SAVE")
  );
  if (name === "LDMXCSR") new DataView(area.buffer).setUint32(0, random.below(0x10000), true);
  else if (saver && saver.name !== name) guest.run(saver.code, image(random), area);
  if (name === "XRSTOR64") area[512] = random.below(4);
  return area;
}

Deno.test("the x87's and SSE's state is saved and restored as the processor does it", () => {
  using native = new NativeFpu();
  using area = mapAnonymous(4096);
  const guest = new Guest();
  const random = new Random(1993);
  for (const instruction of instructions) {
    for (let n = 0; n < 12; n++) {
      const before = prepareArea(guest, instruction, random);
      const records = new Uint8Array(RECORD_SIZE);
      // FLDENV and FRSTOR wait: a pending exception would keep them from executing.
      const actual = image(random, !/^F(LD|RST)/.test(instruction.name));
      const actualArea = before.slice();
      records.set(actual);
      const data = new DataView(records.buffer);
      data.setBigUint64(576, 3n, true);
      data.setBigUint64(584, BigInt(area.address), true);
      data.setBigUint64(600, 2n, true);
      area.write(0, before);
      native.run(instruction.code, records);
      guest.run(instruction.code, actual, actualArea);
      const expected = records.slice(0, 512);
      const expectedArea = area.read(0, AREA_SIZE);
      for (const bytes of [expected, actual]) blankImage(bytes, instruction.narrow ?? false);
      for (const bytes of [expectedArea, actualArea]) {
        for (const at of instruction.selectors ?? []) bytes[at] = 0;
        // A component that is in its initial state need not be marked (SDM volume 1, 13.6).
        if (instruction.name === "XSAVE64") bytes[512] = 0;
        if (/^F?XSAVE/.test(instruction.name)) bytes.fill(0, 416, 512);
        if (!isIntel) bytes.fill(0, 6, 28);
      }
      equal(guest.cpu.state.mp_state, 3, `${instruction.name} reaches HLT`);
      equal(actual.toHex(), expected.toHex(), `${instruction.name}, the registers`);
      equal(actualArea.toHex(), expectedArea.toHex(), `${instruction.name}, the area`);
    }
  }
});

/** The vector of the exception that code raises in long mode, after `change`; undefined if none. */
function exceptionOf(
  code: readonly number[],
  change: (cpu: TestCore) => void,
  host: { fpuError?: () => void } = {},
): number | undefined {
  const cpu = new TestCore(4 << 20, host);
  cpu.enterLongMode();
  cpu.state.cr4 |= 0x4_0600n;
  cpu.state.xcr0 = 3n;
  cpu.state.gpr.put(0, 3n);
  cpu.state.gpr.put(RCX, BigInt(AREA));
  change(cpu);
  cpu.core.exports.refresh();
  cpu.load(CODE, [...code, HLT]);
  cpu.state.rip = BigInt(CODE);
  if (cpu.core.runToFault(1000)) return undefined;
  equal(cpu.state.rip, BigInt(CODE), "RIP is the instruction's");
  return cpu.state.fault_vector;
}

const EM = 4n, TS = 8n, NE = 0x20n;
const UD = 6, NM = 7, GP = 13, MF = 16, XM = 19;
const ADDPS = [0x0f, 0x58, 0xc1];
const PADDB_MMX = [0x0f, 0xfc, 0xc1];
const FADD = [0xd8, 0xc1];
const FWAIT = [0x9b];

/** An invalid operation of x87 is pending. */
function pending(cpu: TestCore): void {
  const bytes = cpu.state.fxsave;
  bytes.set([0x7e, 3, 0x81, 0x80]);
}

/** 1 / 0 in XMM0 by XMM1, with divide-by-zero not masked. */
function unmasked(cpu: TestCore): void {
  const data = new DataView(cpu.state.fxsave.buffer, cpu.state.fxsave.byteOffset);
  data.setUint32(MXCSR, 0x1f80 & ~0x200, true);
  for (let i = 0; i < 4; i++) data.setFloat32(XMM + 4 * i, 1, true);
}

Deno.test("x87 and SSE raise #NM, #UD, #MF, #XM and #GP where there is no state, or a pending error", () => {
  const none = () => {};
  const cr0 = (bit: bigint) => (cpu: TestCore) => void (cpu.state.cr0 |= bit);
  const off = (bit: bigint) => (cpu: TestCore) => void (cpu.state.cr4 &= ~bit);
  const misaligned = (cpu: TestCore) => cpu.state.gpr.put(RCX, BigInt(AREA + 8));
  const both = (a: (cpu: TestCore) => void, b: (cpu: TestCore) => void) => (cpu: TestCore) => {
    a(cpu);
    b(cpu);
  };
  const area = (at: number, value: number) => (cpu: TestCore) => void (cpu.ram[AREA + at] = value);
  const cases: [number | undefined, readonly number[], (cpu: TestCore) => void][] = [
    [undefined, ADDPS, none],
    [UD, ADDPS, cr0(EM)],
    [NM, ADDPS, cr0(TS)],
    [UD, ADDPS, off(0x200n)],
    [undefined, PADDB_MMX, off(0x200n)],
    [UD, PADDB_MMX, cr0(EM)],
    [NM, PADDB_MMX, cr0(TS)],
    [MF, PADDB_MMX, both(cr0(NE), pending)],
    [undefined, FADD, none],
    [NM, FADD, cr0(EM)],
    [NM, FADD, cr0(TS)],
    [MF, FADD, both(cr0(NE), pending)],
    [MF, FWAIT, both(cr0(NE), pending)],
    [NM, FWAIT, cr0(TS)],
    // FNSTSW AX and FNCLEX do not wait.
    [undefined, [0xdf, 0xe0], both(cr0(NE), pending)],
    [undefined, [0xdb, 0xe2], both(cr0(NE), pending)],
    // DIVPS xmm0, xmm1
    [XM, [0x0f, 0x5e, 0xc1], unmasked],
    [UD, [0x0f, 0x5e, 0xc1], both(unmasked, off(0x400n))],
    // MOVAPS xmm0, [rcx]; MOVUPS; MOVNTI [rcx], eax needs no SSE state
    [GP, [0x0f, 0x28, 0x01], misaligned],
    [undefined, [0x0f, 0x10, 0x01], misaligned],
    [undefined, [0x0f, 0xc3, 0x01], cr0(TS)],
    // FXSAVE, XSAVE, XRSTOR, LDMXCSR
    [GP, [0x0f, 0xae, 0x01], misaligned],
    [NM, [0x0f, 0xae, 0x01], cr0(EM)],
    [GP, [0x0f, 0xae, 0x21], misaligned],
    [UD, [0x0f, 0xae, 0x21], off(0x4_0000n)],
    [NM, [0x0f, 0xae, 0x29], cr0(TS)],
    [GP, [0x0f, 0xae, 0x29], area(512, 4)],
    [GP, [0x0f, 0xae, 0x29], area(520, 1)],
    [GP, [0x0f, 0xae, 0x29], area(26, 1)],
    [GP, [0x0f, 0xae, 0x11], area(2, 1)],
    [undefined, [0x0f, 0xae, 0x11], none],
  ];
  for (const [vector, code, change] of cases) {
    equal(exceptionOf(code, change), vector, `${code.map((byte) => byte.toString(16))}`);
  }
});

Deno.test("with CR0.NE = 0 a pending x87 exception is told to the chips, and execution goes on", () => {
  let told = 0;
  const change = (cpu: TestCore) => {
    cpu.state.cr0 &= ~NE;
    pending(cpu);
  };
  equal(exceptionOf(FADD, change, { fpuError: () => void told++ }), undefined);
  deepEqual(told, 1);
});
