/**
 * The processor itself as an oracle: runs short sequences of instructions natively (native.s) and on the
 * software CPU, from the same registers and memory, and compares what they leave.
 *
 * @module
 */
import { images } from "../../guests/images.ts";
import { TestCore } from "./core_testing.ts";

/** Two pages of code and two of data; both programs and the software CPU have them there. */
export const CODE = 0x1000_0000;
export const DATA = 0x2000_0000;
/** The bytes that are compared: around the boundary between the two pages of data. */
export const WINDOW = DATA + 0xf00;
export const WINDOW_SIZE = 512;

/** Where a sequence starts, in what state. */
export interface Case {
  /** General registers by the processor's numbers. */
  readonly registers: readonly bigint[];
  readonly flags: number;
  /** 64-bit mode, or a 32-bit code segment. */
  readonly long: boolean;
  readonly entry: number;
  /** At most 64 bytes, HLT at their end included. */
  readonly code: Uint8Array;
  readonly data: Uint8Array;
  /** Arithmetic flags that the last instruction leaves undefined. */
  readonly undefinedFlags: number;
  /** What to call it in a report. */
  readonly name: string;
}

/** How a sequence ended. */
export interface Outcome {
  readonly registers: bigint[];
  readonly flags: number;
  readonly rip: bigint;
  readonly vector: number;
  readonly errorCode: number;
  /** Of a page fault. */
  readonly address: bigint;
  readonly data: Uint8Array;
}

const RECORD = 2048;
const GREGS = 768;
/** Where ucontext's gregs have the registers by the processor's numbers: R8 to R15 come first. */
const GREG_OF = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];

/** Whether this machine can run native.s: an x86-64 Linux. */
export const canRunNatively = Deno.build.os === "linux" && Deno.build.arch === "x86_64";

/** Runs cases on the processor; undefined for one that was interrupted by the watchdog. */
export async function runNatively(cases: readonly Case[]): Promise<(Outcome | undefined)[]> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-native-" });
  try {
    const file = new Uint8Array(4096 + cases.length * RECORD);
    const view = new DataView(file.buffer);
    view.setBigUint64(0, BigInt(cases.length), true);
    cases.forEach((one, i) => {
      const at = 4096 + i * RECORD;
      one.registers.forEach((value, n) => view.setBigUint64(at + n * 8, value, true));
      view.setBigUint64(at + 128, BigInt(one.flags | 0x202), true);
      view.setBigUint64(at + 136, one.long ? 0n : 1n, true);
      view.setBigUint64(at + 144, BigInt(one.entry), true);
      file.set(one.code, at + 160);
      file.set(one.data, at + 256);
    });
    await Deno.writeFile(`${folder}/cases`, file);
    await Deno.writeFile(`${folder}/native`, Uint8Array.fromBase64(images.native), { mode: 0o755 });
    const { code, signal } = await new Deno.Command(`${folder}/native`, {
      args: [`${folder}/cases`],
      stdin: "null",
    }).output();
    if (code !== 0) throw new Error(`The native runner ended with ${code}, signal ${signal}`);
    const results = await Deno.readFile(`${folder}/cases`);
    return cases.map((_, i) => outcome(results.subarray(4096 + i * RECORD).subarray(0, RECORD)));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const SIGALRM = 14;

function outcome(record: Uint8Array): Outcome | undefined {
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  const greg = (n: number) => view.getBigUint64(GREGS + n * 8, true);
  if (view.getUint32(960, true) === SIGALRM) return undefined;
  return {
    registers: GREG_OF.map(greg),
    rip: greg(16),
    flags: Number(greg(17)),
    errorCode: Number(greg(19)),
    vector: Number(greg(20)),
    address: greg(22),
    data: record.slice(1024, 1024 + WINDOW_SIZE),
  };
}

const RAM = 4 << 20;
/** Where the pages of code and data are in RAM. */
const PHYSICAL = 0x10_0000;
const TABLES = 0x20_0000;

/** The software CPU in user mode, with two pages of code and two of data and nothing else. */
export class SoftwareRunner {
  readonly cpu = new TestCore(RAM);
  readonly #view = new DataView(this.cpu.ram.buffer, this.cpu.ram.byteOffset, RAM);

  constructor() {
    const put = (at: number, value: number) => this.#view.setBigUint64(at, BigInt(value), true);
    put(TABLES, TABLES + 0x1007);
    put(TABLES + 0x1000, TABLES + 0x2007);
    put(TABLES + 0x2000 + (CODE >> 21) * 8, TABLES + 0x3007);
    put(TABLES + 0x2000 + (DATA >> 21) * 8, TABLES + 0x4007);
    for (const page of [0, 1]) {
      put(TABLES + 0x3000 + page * 8, PHYSICAL + page * 0x1000 + 7);
      put(TABLES + 0x4000 + page * 8, PHYSICAL + (2 + page) * 0x1000 + 7);
    }
  }

  /** Runs one case until its fault. */
  run(one: Case): Outcome {
    this.#prepare(one);
    this.cpu.core.exports.refresh();
    return this.#untilFault();
  }

  /**
   * Runs the case that was run last once more, compiled: what the TLB had to learn it knows.
   *
   * @returns undefined if there is nothing in it that is compiled
   */
  runCompiled(one: Case): Outcome | undefined {
    this.#prepare(one);
    if (!this.cpu.core.compileHere(1)) return undefined;
    return this.#untilFault();
  }

  #prepare(one: Case): void {
    const { cpu } = this;
    const { state } = cpu;
    cpu.ram.fill(0, PHYSICAL, PHYSICAL + 0x4000);
    cpu.ram.set(one.code, PHYSICAL + one.entry - CODE);
    cpu.ram.set(one.data, PHYSICAL + 0x2000 + WINDOW - DATA);
    state.cr0 = 0x8005_0033n;
    state.cr3 = BigInt(TABLES);
    state.cr4 = 0x620n;
    state.efer = 0xd01n;
    state.mp_state = 0;
    for (let i = 0; i < 6; i++) cpu.setSegment(i, 0x2b, 0n, 0xffff_ffff, 0xc0f3);
    cpu.setSegment(1, 0x33, 0n, 0xffff_ffff, one.long ? 0xa0fb : 0xc0fb);
    state.rflags = BigInt(one.flags | 0x202);
    one.registers.forEach((value, n) => state.gpr.put(n, one.long ? value : value & 0xffff_ffffn));
    state.rip = BigInt(one.entry);
  }

  #outcome(): Outcome {
    const { cpu } = this;
    const { state } = cpu;
    return {
      registers: Array.from(state.gpr),
      rip: state.rip,
      flags: Number(state.rflags),
      vector: state.fault_vector,
      errorCode: state.fault_error_code,
      address: state.fault_address,
      data: cpu.ram.slice(PHYSICAL + 0x2f00, PHYSICAL + 0x2f00 + WINDOW_SIZE),
    };
  }

  #untilFault(): Outcome {
    for (let turn = 0; turn < 1000; turn++) {
      if (!this.cpu.core.runToFault(10_000)) return this.#outcome();
    }
    throw new Error("The software CPU goes on and on");
  }
}

const ARITHMETIC = 0x8d5;
const DIRECTION = 0x400;
const PAGE_FAULT = 14;

/** What differs between two outcomes, as text; empty if nothing does. */
export function differences(one: Case, native: Outcome, software: Outcome): string {
  const list: string[] = [];
  const note = (what: string, a: unknown, b: unknown) => list.push(`${what} ${a}, here ${b}`);
  const hex = (value: bigint | number) => value.toString(16);
  const mask = one.long ? (1n << 64n) - 1n : 0xffff_ffffn;
  const names = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" ");
  names.slice(0, one.long ? 16 : 8).forEach((name, n) => {
    const a = native.registers[n] & mask, b = software.registers[n] & mask;
    if (a !== b) note(name, hex(a), hex(b));
  });
  // The kernel's half of the address space is mapped there, and nothing here.
  const kernels = native.vector === PAGE_FAULT && native.address >> 47n !== 0n;
  const known = kernels ? ~1 : ~0;
  if (native.vector !== software.vector) note("vector", native.vector, software.vector);
  if (native.rip !== software.rip) note("rip", hex(native.rip), hex(software.rip));
  if (native.vector !== software.vector) return list.join("; ");
  if ((native.errorCode & known) !== (software.errorCode & known)) {
    note("error code", native.errorCode, software.errorCode);
  } else if (native.vector === PAGE_FAULT && native.address !== software.address) {
    note("address", hex(native.address), hex(software.address));
  }
  const flags = (ARITHMETIC | DIRECTION) & ~one.undefinedFlags;
  const a = native.flags & flags, b = software.flags & flags;
  if (a !== b) note("flags", hex(a), hex(b));
  const at = native.data.findIndex((byte, i) => byte !== software.data[i]);
  if (at >= 0) note(`byte ${hex(at)} of the window`, native.data[at], software.data[at]);
  return list.join("; ");
}
