/**
 * The integer and system instructions by opcode: what the decoder's tables and the numbers of
 * operations are written from, and what the tests make instructions from.
 *
 * A line says operation, form and operand size. Forms: E is the operand that ModRM.rm names (a register
 * or memory), G the register of ModRM.reg, O that of the opcode's low bits, A the accumulator, I an
 * immediate, Is one byte sign-extended, M memory only; the first is the destination. Sizes: b byte, w word,
 * v by the operand size, y doubleword or quadword, q as v but quadword by default in 64-bit mode, f
 * always quadword there. Flags: L may be locked, X is not there in 64-bit mode, 6 only there, P not in real
 * or virtual-8086 mode. SDM 2, appendix A.
 *
 * @module
 */

const alu = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"];
const shifts = ["rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar"];

const hex = (value: number) => value.toString(16).padStart(2, "0");

/** A table of lines for eight registers or conditions in a row. */
function row(from: number, count: number, line: (i: number) => string): Record<string, string> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, i) => [hex(from + i), line(i)]),
  );
}

function aluRow(name: string, i: number): Record<string, string> {
  const lock = name === "cmp" ? "" : " L";
  return {
    [hex(i * 8)]: `${name} EG b${lock}`,
    [hex(i * 8 + 1)]: `${name} EG v${lock}`,
    [hex(i * 8 + 2)]: `${name} GE b`,
    [hex(i * 8 + 3)]: `${name} GE v`,
    [hex(i * 8 + 4)]: `${name} AI b`,
    [hex(i * 8 + 5)]: `${name} AI v`,
  };
}

const conditional = (i: number) => i;

/** The one-byte opcodes. A line `@name` is a group, chosen by ModRM.reg. */
export const oneByte: Readonly<Record<string, string>> = {
  ...Object.assign({}, ...alu.map(aluRow)),
  "06": "pushSegment N q X",
  "07": "popSegment N q X",
  "0e": "pushSegment N q X",
  "16": "pushSegment N q X",
  "17": "popSegment N q X",
  "1e": "pushSegment N q X",
  "1f": "popSegment N q X",
  "27": "daa N b X",
  "2f": "das N b X",
  "37": "aaa N b X",
  "3f": "aas N b X",
  ...row(0x40, 8, () => "inc O v X"),
  ...row(0x48, 8, () => "dec O v X"),
  ...row(0x50, 8, () => "push O q"),
  ...row(0x58, 8, () => "pop O q"),
  "60": "pusha N v X",
  "61": "popa N v X",
  "62": "bound GM v X",
  "63": "movsxd GE v",
  "68": "push I q",
  "69": "imul3 GEI v",
  "6a": "push Is q",
  "6b": "imul3 GEIs v",
  "6c": "ins N b",
  "6d": "ins N v",
  "6e": "outs N b",
  "6f": "outs N v",
  ...row(0x70, 16, (i) => `jcc Jb f :${conditional(i)}`),
  "80": "@immediate EI b",
  "81": "@immediate EI v",
  "82": "@immediate EI b X",
  "83": "@immediate EIs v",
  "84": "test EG b",
  "85": "test EG v",
  "86": "xchg EG b L",
  "87": "xchg EG v L",
  "88": "mov EG b",
  "89": "mov EG v",
  "8a": "mov GE b",
  "8b": "mov GE v",
  "8c": "movFromSegment R v",
  "8d": "lea GM v",
  "8e": "movToSegment R w",
  "8f": "@popE E q",
  "90": "nop N v",
  ...row(0x91, 7, () => "xchg OA v"),
  "98": "cbw N v",
  "99": "cwd N v",
  "9a": "callFar Ap v X",
  "9b": "fwait N b",
  "9c": "pushf N q",
  "9d": "popf N q",
  "9e": "sahf N b",
  "9f": "lahf N b",
  "a0": "mov AM b",
  "a1": "mov AM v",
  "a2": "mov MA b",
  "a3": "mov MA v",
  "a4": "movs N b",
  "a5": "movs N v",
  "a6": "cmps N b",
  "a7": "cmps N v",
  "a8": "test AI b",
  "a9": "test AI v",
  "aa": "stos N b",
  "ab": "stos N v",
  "ac": "lods N b",
  "ad": "lods N v",
  "ae": "scas N b",
  "af": "scas N v",
  ...row(0xb0, 8, () => "mov OI b"),
  ...row(0xb8, 8, () => "mov OI v"),
  "c0": "@shift EI b",
  "c1": "@shift EIs v",
  "c2": "ret Iw f",
  "c3": "ret N f",
  "c4": "loadFar GM v X :0",
  "c5": "loadFar GM v X :3",
  "c6": "@movE EI b",
  "c7": "@movE EI v",
  "c8": "enter Ew q",
  "c9": "leave N q",
  "ca": "retFar Iw v",
  "cb": "retFar N v",
  "cc": "int3 N b",
  "cd": "int Ib b",
  "ce": "into N b X",
  "cf": "iret N v",
  "d0": "@shift E1 b",
  "d1": "@shift E1 v",
  "d2": "@shiftCl E b",
  "d3": "@shiftCl E v",
  "d4": "aam Ib b X",
  "d5": "aad Ib b X",
  "d6": "salc N b X",
  "d7": "xlat N b",
  ...row(0xd8, 8, () => "x87 R v"),
  "e0": "loopne Jb f",
  "e1": "loope Jb f",
  "e2": "loop Jb f",
  "e3": "jcxz Jb f",
  "e4": "inImmediate Ib b",
  "e5": "inImmediate Ib v",
  "e6": "outImmediate Ib b",
  "e7": "outImmediate Ib v",
  "e8": "call J f",
  "e9": "jmp J f",
  "ea": "jmpFar Ap v X",
  "eb": "jmp Jb f",
  "ec": "in N b",
  "ed": "in N v",
  "ee": "out N b",
  "ef": "out N v",
  "f1": "int1 N b",
  "f4": "hlt N b",
  "f5": "cmc N b",
  "f6": "@unary E b",
  "f7": "@unary E v",
  "f8": "clc N b",
  "f9": "stc N b",
  "fa": "cli N b",
  "fb": "sti N b",
  "fc": "cld N b",
  "fd": "std N b",
  "fe": "@incDec E b",
  "ff": "@incDecCall E v",
};

/** The opcodes after 0F. What is not here is asked of the table of MMX and SSE. */
export const twoByte: Readonly<Record<string, string>> = {
  "00": "@system0 R w P",
  "01": "@system1 R v",
  "02": "lar GE v P",
  "03": "lsl GE v P",
  "05": "syscall N v",
  "06": "clts N b",
  "07": "sysret N v",
  "08": "invd N b",
  "09": "wbinvd N b",
  "0b": "ud N b",
  "0d": "nop E v",
  "18": "nop E v",
  ...row(0x19, 7, () => "nop E v"),
  "20": "movFromControl R f",
  "21": "movFromDebug R f",
  "22": "movToControl R f",
  "23": "movToDebug R f",
  "30": "wrmsr N b",
  "31": "rdtsc N b",
  "32": "rdmsr N b",
  "33": "rdpmc N b",
  "34": "sysenter N v",
  "35": "sysexit N v",
  ...row(0x40, 16, (i) => `cmov GE v :${conditional(i)}`),
  ...row(0x80, 16, (i) => `jcc J f :${conditional(i)}`),
  ...row(0x90, 16, (i) => `setcc E b :${conditional(i)}`),
  "a0": "pushSegment N q",
  "a1": "popSegment N q",
  "a2": "cpuid N b",
  "a3": "bt EG v",
  "a4": "shld EGI v",
  "a5": "shldCl EG v",
  "a8": "pushSegment N q",
  "a9": "popSegment N q",
  "aa": "rsm N b",
  "ab": "bts EG v L",
  "ac": "shrd EGI v",
  "ad": "shrdCl EG v",
  "ae": "@stateAndFences R v",
  "af": "imul GE v",
  "b0": "cmpxchg EG b L",
  "b1": "cmpxchg EG v L",
  "b2": "loadFar GM v :2",
  "b3": "btr EG v L",
  "b4": "loadFar GM v :4",
  "b5": "loadFar GM v :5",
  "b6": "movzx8 GE v",
  "b7": "movzx16 GE v",
  "b8": "popcnt GE v",
  "b9": "ud R v",
  "ba": "@bits EIs v",
  "bb": "btc EG v L",
  "bc": "bsf GE v",
  "bd": "bsr GE v",
  "be": "movsx8 GE v",
  "bf": "movsx16 GE v",
  "c0": "xadd EG b L",
  "c1": "xadd EG v L",
  "c7": "@exchange R y L",
  ...row(0xc8, 8, () => "bswap O v"),
  "ff": "ud R v",
};

/** The opcodes after 0F 38 that are integer: F0 and F1 are CRC32 with F2, MOVBE without. */
export const threeByte: Readonly<Record<string, string>> = {
  "f0": "movbe GM v",
  "f1": "movbe MG v",
};

/** The instructions of groups by ModRM.reg; "" is #UD. */
export const groups: Readonly<Record<string, readonly string[]>> = {
  immediate: alu.map((name) => name === "cmp" ? name : `${name} L`),
  shift: shifts,
  shiftCl: shifts.map((name) => `${name}Cl`),
  movE: ["mov", "", "", "", "", "", "", ""],
  popE: ["pop", "", "", "", "", "", "", ""],
  unary: ["test I", "test I", "not L", "neg L", "mul", "imul1", "div", "idiv"],
  incDec: ["inc L", "dec L", "", "", "", "", "", ""],
  incDecCall: ["inc L", "dec L", "callE f", "callFarE M", "jmpE f", "jmpFarE M", "push q", ""],
  bits: ["", "", "", "", "bt", "bts L", "btr L", "btc L"],
  system0: ["sldt v", "str v", "lldt", "ltr", "verr", "verw", "", ""],
  system1: ["system1", "system1", "system1", "system1", "smsw", "", "lmsw", "system1"],
  exchange: ["", "cmpxchg8b L", "", "", "", "", "rdrand", "rdrand"],
  stateAndFences: ["state", "state", "state", "state", "state", "state", "state", "state"],
};

/** Operations that a whole range of numbers belongs to, one for each condition. */
export const conditionals: readonly string[] = ["jcc", "cmov", "setcc"];

/** Operations after which a block ends, since they transfer control or may change what blocks rest on. */
export const ending: readonly string[] = [
  ...["jcc", "jmp", "call", "ret", "jmpE", "callE", "loop", "loope", "loopne", "jcxz"],
  ...["popSegment", "movToSegment", "callFar", "popf", "loadFar", "retFar", "int3", "int", "into"],
  ...["iret", "jmpFar", "int1", "hlt", "cli", "sti", "lldt", "ltr", "system1", "lmsw", "syscall"],
  ...[
    "clts",
    "sysret",
    "invd",
    "wbinvd",
    "movFromControl",
    "movToControl",
    "movFromDebug",
    "invpcid",
  ],
  ...["movToDebug", "wrmsr", "rdmsr", "sysenter", "sysexit", "rsm", "state", "callFarE", "jmpFarE"],
];

/** Those that end a block, but change nothing that it rests on. */
export const steady: readonly string[] = [
  ...["movs", "cmps", "stos", "lods", "scas", "ins", "outs", "in", "out", "inImmediate"],
  ...["outImmediate", "rdtsc", "rdpmc", "cpuid", "pushf", "pushSegment", "ud", "tooLong", "pause"],
];

/** Operations without a line of their own in the tables. */
const others = ["tooLong", "pause", "rdpid", "simd"];

/** What ARPL's opcode is where it is not MOVSXD's; CRC32 with F2; INVPCID. */
export const alternatives: Readonly<Record<string, string>> = {
  arpl: "arpl EG w P",
  crc32_8: "crc32 GE b",
  crc32: "crc32 GE v",
  invpcid: "invpcid GM f",
};

/**
 * Operations for which the dispatch loop has code of its own: operation, operands (r register, m memory,
 * i immediate; the destination first), and size in bytes.
 */
export const quick: readonly string[] = [
  // Before an instruction whose bytes have changed, and where a block ends for want of room.
  ...["leaveBlock", "fallThrough"],
  // In place of a block that is compiled.
  "compiled",
  ...alu.flatMap((name) =>
    ["rr4", "rr8", "ri4", "ri8", "rm4", "rm8", "rr1", "ri1"].map((form) => `${name}_${form}`)
  ),
  ...["add_mr8", "add_mr4", "cmp_mr4", "cmp_mr8", "cmp_mi1", "cmp_mi4", "cmp_mi8", "add_mi4"],
  ...["add_mi8", "cmp_rm1", "cmp_mr1"],
  ...["test_rr1", "test_rr4", "test_rr8", "test_ri1", "test_ri4", "test_mi1"],
  ...["mov_rr4", "mov_rr8", "mov_ri4", "mov_ri8", "mov_rm1", "mov_rm2", "mov_rm4", "mov_rm8"],
  ...["mov_mr1", "mov_mr2", "mov_mr4", "mov_mr8", "mov_mi1", "mov_mi4", "mov_mi8", "mov_rr1"],
  ...["mov_ri1"],
  ...["lea_rm4", "lea_rm8", "inc_r4", "inc_r8", "dec_r4", "dec_r8", "not_r8", "neg_r8", "neg_r4"],
  ...["shl_ri4", "shl_ri8", "shr_ri4", "shr_ri8", "sar_ri4", "sar_ri8"],
  ...["movsxd_rr8", "movsxd_rm8", "rol_ri4", "ror_ri4"],
  ...["movzx8_rr4", "movzx8_rm4", "movzx16_rr4", "movzx16_rm4", "movsx8_rr4", "movsx8_rm4"],
  ...["push_r8", "pop_r8", "push_i8"],
];

/** What the generated sources say of operations. */
export interface Operations {
  /** Operation numbers by name. */
  readonly numbers: ReadonlyMap<string, number>;
  /** The first numbers of operations that are not quick, of those that end a block, and of steady ones. */
  readonly firstPlain: number;
  readonly firstEnding: number;
  readonly firstSteady: number;
}

/** Numbers all operations, densely: quick ones, plain ones, ending ones. */
export function operations(): Operations {
  const names = new Set(others);
  const lines = [oneByte, twoByte, threeByte, alternatives].flatMap((table) =>
    Object.values(table)
  );
  for (const line of [...lines, ...Object.values(groups).flat()]) {
    const name = line.split(" ")[0];
    if (name && !name.startsWith("@")) names.add(name);
  }
  const numbers = new Map<string, number>();
  let next = 0;
  const give = (name: string, count = 1) => {
    numbers.set(name, next);
    next += count;
  };
  quick.forEach((name) => give(name));
  const firstPlain = next;
  const width = (name: string) => conditionals.includes(name) ? 16 : 1;
  for (const name of names) {
    if (!ending.includes(name) && !steady.includes(name)) give(name, width(name));
  }
  const firstEnding = next;
  for (const name of ending) give(name, width(name));
  const firstSteady = next;
  for (const name of steady) give(name);
  numbers.set("count", next);
  return { numbers, firstPlain, firstEnding, firstSteady };
}
