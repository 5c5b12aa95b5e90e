/**
 * Writes `core/ops.ts` and `core/table.ts`, the numbers of operations and the decoder's tables, from
 * `opcodes.ts`.
 *
 * @module
 */
import { alternatives, groups, oneByte, operations, quick, threeByte, twoByte } from "./opcodes.ts";

/** Forms, in the order of their numbers in the tables. */
const forms = [
  ...[
    "N",
    "EG",
    "GE",
    "EI",
    "EIs",
    "AI",
    "OI",
    "O",
    "E",
    "E1",
    "GEI",
    "GEIs",
    "EGI",
    "J",
    "Jb",
    "I",
  ],
  ...["Is", "Ib", "Iw", "GM", "MG", "AM", "MA", "Ap", "Ew", "R", "OA"],
];
const sizes = ["b", "w", "v", "y", "q", "f"];
const flags = { L: 1 << 17, X: 1 << 18, "6": 1 << 19, P: 1 << 20, M: 1 << 21 };
const GROUP = 2 ** 31;
/** A group's entry that keeps the form or size of the opcode. */
const INHERIT_FORM = 1 << 22;
const INHERIT_SIZE = 1 << 23;

const { numbers, firstPlain, firstEnding, firstSteady } = operations();
const groupNames = Object.keys(groups);

function wordFlags(words: readonly string[]): number {
  let bits = 0;
  for (const word of words) {
    if (word in flags) bits |= flags[word as keyof typeof flags];
    else if (word.startsWith(":")) bits |= Number(word.slice(1)) << 24;
    else throw new Error(`Cannot make a table with flag ${word}`);
  }
  return bits;
}

const index = (list: readonly string[], word: string) => {
  const at = list.indexOf(word);
  if (at < 0) throw new Error(`Cannot make a table with ${word}, which is none of ${list}`);
  return at;
};

function number(name: string): number {
  const value = numbers.get(name);
  if (value === undefined) throw new Error(`Cannot make a table with operation ${name}`);
  return value;
}

function entry(line: string): number {
  const [name, form, size, ...words] = line.split(" ");
  const rest = (index(forms, form) << 9) | (index(sizes, size) << 14) | wordFlags(words);
  if (name.startsWith("@")) return index(groupNames, name.slice(1)) + rest + GROUP;
  return number(name) + rest;
}

function groupEntry(line: string): number {
  if (line === "") return number("ud") | INHERIT_FORM | INHERIT_SIZE;
  const [name, ...words] = line.split(" ");
  let bits = number(name), inherit = INHERIT_FORM | INHERIT_SIZE;
  for (const word of words) {
    if (word === "I") {
      // TEST's immediate, in a group whose others have none.
      bits |= index(forms, "EI") << 9;
      inherit &= ~INHERIT_FORM;
    } else if (sizes.includes(word)) {
      bits |= index(sizes, word) << 14;
      inherit &= ~INHERIT_SIZE;
    } else bits |= wordFlags([word]);
  }
  return bits | inherit;
}

function table(name: string, values: readonly number[]): string {
  const lines: string[] = [];
  for (let i = 0; i < values.length; i += 8) {
    lines.push("  " + values.slice(i, i + 8).map((v) => `0x${(v >>> 0).toString(16)}`).join(", "));
  }
  return `export const ${name}: usize = memory.data<u32>([\n${lines.join(",\n")},\n]);`;
}

const constantName = (name: string) => name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toUpperCase();

/** The text of `core/ops.ts`. */
export function opsSource(): string {
  return [
    "// Written by `deno task core` from opcodes.ts; change that.",
    ...Array.from(
      numbers,
      ([name, value]) => `export const OP_${constantName(name)}: u32 = ${value};`,
    ),
    "/** Operations from here on are executed outside of the dispatch loop. */",
    `export const FIRST_PLAIN: u32 = ${firstPlain};`,
    "/** Operations from here on end their block. */",
    `export const FIRST_ENDING: u32 = ${firstEnding};`,
    "/** Those from here on change nothing that blocks rest on. */",
    `export const FIRST_STEADY: u32 = ${firstSteady};`,
    "",
  ].join("\n");
}

/** The number of the quick operation for a plain one by its operands, or 0. */
function quickTable(): number[] {
  const classes = { rr: 0, r: 0, ri: 1, i: 1, rm: 2, mr: 3, mi: 4 };
  const values = new Array<number>((number("count") as number) * 32).fill(0);
  for (const name of quick) {
    const [, operation, operands, size] = /^(.*)_([a-z]+)(\d)$/.exec(name) ?? [];
    if (!operation) continue;
    const at = number(operation) * 32 + classes[operands as keyof typeof classes] * 4 +
      Math.log2(Number(size));
    values[at] = number(name);
  }
  return values;
}

/** The text of `core/table.ts`. */
export function tableSource(): string {
  const opcodes = (lines: Readonly<Record<string, string>>, count: number, missing: number) =>
    Array.from({ length: count }, (_, i) => {
      const line = lines[i.toString(16).padStart(2, "0")];
      return line === undefined ? missing : entry(line);
    });
  const ud = entry("ud N b");
  return [
    "// Written by `deno task core` from opcodes.ts; change that.",
    ...forms.map((name, i) => `export const FORM_${constantName(name)}: u32 = ${i};`),
    ...sizes.map((name, i) => `export const SIZE_${name.toUpperCase()}: u32 = ${i};`),
    ...Object.entries(flags).map(([name, bit]) => `export const ENTRY_${name}: u32 = ${bit};`),
    `export const ENTRY_GROUP: u32 = ${GROUP};`,
    `export const ENTRY_INHERIT_FORM: u32 = ${INHERIT_FORM};`,
    `export const ENTRY_INHERIT_SIZE: u32 = ${INHERIT_SIZE};`,
    "/** By opcode; an entry is operation (9 bits), form (5), size (3), flags, extra number (5). */",
    table("ONE_BYTE", opcodes(oneByte, 256, ud)),
    "/** After 0F; 0 is none of the integer instructions. */",
    table("TWO_BYTE", opcodes(twoByte, 256, 0)),
    ...Object.entries(alternatives).map(([name, line]) =>
      `export const ENTRY_${name.toUpperCase()}: u32 = ${entry(line)};`
    ),
    `export const ENTRY_MOVBE_LOAD: u32 = ${entry(threeByte.f0)};`,
    `export const ENTRY_MOVBE_STORE: u32 = ${entry(threeByte.f1)};`,
    "/** Eight for each group. */",
    table("GROUPS", groupNames.flatMap((name) => groups[name].map(groupEntry))),
    "/** By operation * 32 + operands * 4 + log2 of the size: the quick operation, 0 if none. */",
    `export const QUICK: usize = memory.data<u16>([\n  ${quickTable().join(",")},\n]);`,
    "",
  ].join("\n");
}
