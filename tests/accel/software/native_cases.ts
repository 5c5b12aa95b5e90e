/**
 * Random sequences of user-mode instructions, made from the decoder's own list of opcodes.
 *
 * @module
 */
import {
  alternatives,
  groups,
  oneByte,
  threeByte,
  twoByte,
} from "../../../vmm/accel/software/opcodes.ts";
import { type Case, CODE, WINDOW, WINDOW_SIZE } from "./native.ts";

/** An instruction form: everything that the list says of an opcode, group member resolved. */
export interface Form {
  readonly name: string;
  readonly form: string;
  readonly size: string;
  /** Bytes before ModRM, without prefixes. */
  readonly opcode: readonly number[];
  /** ModRM.reg where it chooses the instruction. */
  readonly reg?: number;
  readonly onlyLong: boolean;
  readonly neverLong: boolean;
  readonly lockable: boolean;
}

/** What depends on the system around the program, or transfers control beyond it. */
const notHere = new Set([
  ...["pushSegment", "popSegment", "ins", "outs", "movFromSegment", "movToSegment", "callFar"],
  ...["pushf", "popf", "loadFar", "retFar", "int3", "int", "into", "iret", "inImmediate", "in"],
  ...["outImmediate", "out", "jmpFar", "int1", "hlt", "cli", "sti", "x87", "fwait", "jmpFarE"],
  ...["callFarE", "sldt", "str", "lldt", "ltr", "verr", "verw", "system1", "smsw", "lmsw", "lar"],
  ...["lsl", "syscall", "clts", "sysret", "invd", "wbinvd", "movFromControl", "movFromDebug"],
  ...["movToControl", "movToDebug", "wrmsr", "rdtsc", "rdmsr", "rdpmc", "sysenter", "sysexit"],
  ...["cpuid", "rsm", "state", "rdrand", "rdpid", "arpl", "invpcid", "callE", "jmpE", "ret"],
]);

function* formsOf(
  lines: Readonly<Record<string, string>>,
  prefix: readonly number[],
): Generator<Form> {
  for (const [code, line] of Object.entries(lines)) {
    const [name, form, size, ...flags] = line.split(" ");
    const opcode = [...prefix, Number.parseInt(code, 16)];
    const common = {
      onlyLong: flags.includes("6"),
      neverLong: flags.includes("X"),
      lockable: flags.includes("L"),
    };
    if (!name.startsWith("@")) {
      yield { name, form, size, opcode, ...common };
      continue;
    }
    for (const [reg, member] of groups[name.slice(1)].entries()) {
      const [memberName, ...words] = member.split(" ");
      if (!memberName) continue;
      yield {
        ...common,
        name: memberName,
        opcode,
        reg,
        form: words.includes("I") ? "EI" : form,
        size: words.find((word) => "qf".includes(word)) ?? size,
        lockable: common.lockable || words.includes("L"),
      };
    }
  }
}

/** Every form that a user program can execute by itself. */
export const forms: readonly Form[] = [
  ...formsOf(oneByte, []),
  ...formsOf(twoByte, [0x0f]),
  ...formsOf(threeByte, [0x0f, 0x38]),
  ...formsOf({ f0: alternatives.crc32_8, f1: alternatives.crc32 }, [0x0f, 0x38]),
].filter(({ name }) => !notHere.has(name));

/** Reproducible random numbers (xorshift). */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 1) >>> 0 || 1;
  }
  /** A number from 0 to below `limit`. */
  below(limit: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return (this.#state >>> 0) % limit;
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
  bits64(): bigint {
    const high = BigInt(this.below(65536) * 65536 + this.below(65536));
    return (high << 32n) | BigInt(this.below(65536) * 65536 + this.below(65536));
  }
}

const interesting = [
  0n,
  1n,
  2n,
  7n,
  8n,
  15n,
  16n,
  31n,
  32n,
  63n,
  64n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
];
const edges = [
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  1n << 63n,
  (1n << 63n) - 1n,
];

/** A register's value: an address in the window, an edge, or anything. */
function value(random: Random): bigint {
  const choice = random.below(10);
  if (choice < 5) return BigInt(WINDOW + 0x40 + random.below(WINDOW_SIZE - 0x80));
  if (choice < 7) return interesting[random.below(interesting.length)];
  if (choice < 8) return edges[random.below(edges.length)];
  if (choice < 9) return -interesting[random.below(interesting.length)] & 0xffff_ffff_ffff_ffffn;
  return random.bits64();
}

const ARITHMETIC = 0x8d5;
const CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800;

const shiftNames = ["rol", "ror", "rcl", "rcr", "shl", "shr", "sar", "shld", "shrd"];

/** The flags that an operation leaves undefined (SDM 1, appendix A, table A-1); counts are not known. */
export function undefinedFlags(name: string): number {
  if (["and", "or", "xor", "test"].includes(name)) return AF;
  const base = name.replace(/Cl$/, "");
  if (["rol", "ror", "rcl", "rcr"].includes(base)) return OF;
  if (shiftNames.includes(base)) return AF | OF | CF;
  if (["mul", "imul", "imul1", "imul3"].includes(name)) return SF | ZF | AF | PF;
  if (name === "div" || name === "idiv") return ARITHMETIC;
  if (["bt", "bts", "btr", "btc"].includes(name)) return OF | SF | AF | PF;
  if (name === "bsf" || name === "bsr") return CF | OF | SF | AF | PF;
  if (name === "aaa" || name === "aas") return OF | SF | ZF | PF;
  if (name === "daa" || name === "das") return OF;
  if (name === "aam" || name === "aad") return OF | AF | CF;
  return 0;
}

/** ModRM, SIB and displacement. */
function operandBytes(
  random: Random,
  reg: number,
  long: boolean,
  word: boolean,
  aligned: boolean,
): number[] {
  if (aligned && !word) {
    const at = WINDOW + 0x40 + 16 * random.below((WINDOW_SIZE - 0x80) / 16);
    const bytes = [at & 0xff, (at >> 8) & 0xff, (at >> 16) & 0xff, (at >>> 24) & 0xff];
    return long ? [(reg << 3) | 4, 0x25, ...bytes] : [(reg << 3) | 5, ...bytes];
  }
  const low = random.below(8), kind = random.below(10);
  const modrm = (mod: number, rm: number) => (mod << 6) | (reg << 3) | rm;
  if (kind < 4) return [modrm(3, low)];
  const byte = random.below(64);
  if (word) {
    const mod = random.below(3);
    const bytes = [modrm(mod, low)];
    if (mod === 1) bytes.push(byte);
    if (mod === 2 || (mod === 0 && low === 6)) bytes.push(random.below(256), random.below(256));
    return bytes;
  }
  const displacement = (from: number) => {
    const to = WINDOW + 0x40 + random.below(WINDOW_SIZE - 0x80) - from;
    return [to & 0xff, (to >> 8) & 0xff, (to >> 16) & 0xff, (to >>> 24) & 0xff];
  };
  if (kind < 5) return [modrm(0, 5), ...displacement(long ? CODE + 0x800 : 0)];
  const mod = random.below(3);
  const bytes = [modrm(mod, low)];
  let base = low;
  if (low === 4) {
    const sib = random.below(256);
    bytes.push(sib);
    base = sib & 7;
  }
  if (mod === 1) bytes.push(byte);
  if (mod === 2) bytes.push(byte, 0, 0, 0);
  if (mod === 0 && base === 5) bytes.push(...displacement(0));
  return bytes;
}

function immediateBytes(random: Random, count: number): number[] {
  const choice = random.below(4);
  return Array.from(
    { length: count },
    (_, i) =>
      choice === 0 ? random.below(4) * (i === 0 ? 1 : 0) : choice === 1 ? 0xff : random.below(256),
  );
}

/** How many immediate bytes a form has. */
function immediateSize(form: Form, wide: boolean, narrow: boolean): number {
  const bySize = form.size === "b" ? 1 : narrow ? 2 : 4;
  switch (form.form) {
    case "EI":
    case "AI":
    case "GEI":
    case "I":
      return bySize;
    case "OI":
      return form.size === "b" ? 1 : wide ? 8 : narrow ? 2 : 4;
    case "EIs":
    case "GEIs":
    case "EGI":
    case "Is":
    case "Ib":
      return 1;
    case "Iw":
      return 2;
    case "Ew":
      return 3;
  }
  return 0;
}

const withModrm = new Set([
  "EG",
  "GE",
  "EI",
  "EIs",
  "E",
  "E1",
  "GEI",
  "GEIs",
  "EGI",
  "GM",
  "MG",
  "R",
]);
const strings = new Set(["movs", "cmps", "stos", "lods", "scas"]);

/** One instruction of a form with random prefixes and operands. */
export function instruction(random: Random, form: Form, long: boolean): number[] {
  const bytes: number[] = [];
  const narrow = random.chance(20), word = random.chance(long ? 5 : 15);
  if (narrow) bytes.push(0x66);
  if (word) bytes.push(0x67);
  if (random.chance(3)) bytes.push([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65][random.below(6)]);
  const isString = strings.has(form.name);
  if (form.name === "popcnt") bytes.push(0xf3);
  if (form.name === "crc32") bytes.push(0xf2);
  if (isString && random.chance(60)) bytes.push(random.chance(50) ? 0xf3 : 0xf2);
  // A locked operand across cache lines costs the host tens of milliseconds, on purpose.
  const locked = random.chance(form.lockable && !(word && !long) ? 20 : 1);
  if (locked) bytes.push(0xf0);
  const aligned = locked || form.name === "xchg";
  let rex = 0;
  if (long && !aligned && random.chance(60)) {
    rex = 0x40 | random.below(16);
    bytes.push(rex);
  }
  const reg = form.reg ?? random.below(8);
  bytes.push(...form.opcode);
  if (withModrm.has(form.form)) {
    bytes.push(...operandBytes(random, reg, long, word && !long, aligned));
  }
  if (form.form === "AM" || form.form === "MA") {
    const at = BigInt(WINDOW + 0x40 + random.below(WINDOW_SIZE - 0x80));
    const width = long ? (word ? 4 : 8) : word ? 2 : 4;
    for (let i = 0n; i < width; i++) bytes.push(Number((at >> (i * 8n)) & 0xffn));
  }
  if (form.form === "Jb") bytes.push(2, 0xb0 | random.below(8), random.below(256));
  if (form.form === "J") {
    // As far as the operand size says (64-bit mode knows one), over an instruction of two bytes.
    bytes.push(...(narrow && !long ? [2, 0] : [2, 0, 0, 0]));
    bytes.push(0xb0 | random.below(8), random.below(256));
  }
  bytes.push(...immediateBytes(random, immediateSize(form, (rex & 8) !== 0, narrow && !(rex & 8))));
  return bytes;
}

/** Whether the processor has another instruction where denovo64 has this one or none. */
function differs(bytes: readonly number[], long: boolean): boolean {
  const text = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  // XBEGIN and XABORT; VEX, EVEX where LES, LDS, BOUND have a register operand.
  if (/^(?:.. )*c[67] f8/.test(text)) return true;
  // A fault of REP with 32-bit addresses leaves the upper halves of its registers cleared or not.
  if (long && /^(?:.. )*67 (?:.. )*f[23] (?:.. )*a[4-7a-f]$/.test(text)) return true;
  return !long && /62 [c-f]/.test(text);
}

/** A case of `count` instructions of chosen forms. */
export function makeCase(random: Random, chosen: readonly Form[], long: boolean): Case {
  const code: number[] = [];
  for (const form of chosen) {
    let bytes = instruction(random, form, long);
    while (differs(bytes, long)) bytes = instruction(random, form, long);
    if (code.length + bytes.length <= 60) code.push(...bytes);
  }
  code.push(0xf4);
  const registers = Array.from({ length: 16 }, () => value(random));
  // RSP is most often an aligned address, RCX most often small.
  if (random.chance(90)) registers[4] = BigInt(WINDOW + 0x80 + 8 * random.below(32));
  if (random.chance(70)) registers[1] = BigInt(random.below(70));
  const crossing = random.chance(10);
  const entry = crossing ? CODE + 0x1000 - random.below(code.length + 1) : CODE + 0x800;
  return {
    registers: long ? registers : registers.map((register) => register & 0xffff_ffffn),
    flags: (random.below(0x1000) & (ARITHMETIC | (random.chance(30) ? 0x400 : 0))) | 2,
    long,
    entry,
    code: Uint8Array.from(code),
    data: Uint8Array.from({ length: WINDOW_SIZE }, () => random.below(256)),
    undefinedFlags: undefinedFlags(chosen[chosen.length - 1].name),
    name: `${long ? 64 : 32} ${chosen.map(({ name, form, size }) => `${name} ${form} ${size}`)}: ` +
      code.map((byte) => byte.toString(16).padStart(2, "0")).join(" "),
  };
}

/** Whether a form can be in the middle of a sequence: no flag is undefined after it. */
export function definesFlags(form: Form): boolean {
  return undefinedFlags(form.name) === 0;
}

/** Cases of one instruction for every form, then of sequences. */
export function* cases(seed: number, each: number, sequences: number): Generator<Case> {
  const random = new Random(seed);
  for (const form of forms) {
    for (let i = 0; i < each; i++) {
      const long = form.neverLong ? false : form.onlyLong ? true : random.chance(70);
      yield makeCase(random, [form], long);
    }
  }
  const middle = forms.filter(definesFlags);
  for (let i = 0; i < sequences; i++) {
    const long = random.chance(80);
    const usable = middle.filter(({ neverLong }) => !long || !neverLong);
    const count = 2 + random.below(6);
    yield makeCase(
      random,
      Array.from({ length: count }, () => usable[random.below(usable.length)]),
      long,
    );
  }
}
