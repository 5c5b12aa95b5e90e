/**
 * Writes `core/loop.ts`: the dispatch loop of `core/loop.template`, with a case for each operation that
 * `opcodes.ts` calls quick.
 *
 * The loop is one function with one `switch`, because a jump by one table is what dispatch costs; so its
 * cases are written, not typed.
 *
 * @module
 */
import { quick } from "./opcodes.ts";

/** What stands in the template for the cases. */
const MARK = "      // The cases.\n";

type Size = 1 | 2 | 4 | 8;
const unsigned = (size: number) => `u${size * 8}`;

/** The operators of operations whose flags are those of the result. */
const LOGIC: Readonly<Record<string, string>> = { or: "|", and: "&", xor: "^", test: "&" };
/** The functions of quick.ts of the others. */
const SUMS: Readonly<Record<string, string>> = {
  add: "add",
  adc: "adc",
  sbb: "sbb",
  sub: "sub",
  cmp: "sub",
};

const OPERANDS: Readonly<Record<string, string>> = { r: "src", i: "imm", m: "mem" };

/** Reads an operand: of the letters of `quick`, the first or the second. */
function operand(letters: string, index: number, type: string): string {
  const letter = letters[index];
  const name = index === 0 && letter === "r" ? "dst" : OPERANDS[letter];
  return `q.${name}<${type}>(op)`;
}

function set(type: string, value: string): string[] {
  return [`q.setDst<${type}>(op, ${value});`];
}

/** ADD and its like. */
function arithmetic(name: string, letters: string, type: string): string[] {
  const [a, b] = [operand(letters, 0, type), operand(letters, 1, type)];
  if (name === "add" && letters[0] === "m") {
    return [`if (!readModifyAdd<${type}>(op, ${b})) plainly(ops.OP_ADD, op);`];
  }
  const value = name in LOGIC
    ? `q.logic<${type}>((${a} ${LOGIC[name]} ${b}) as ${type})`
    : `q.${SUMS[name]}<${type}>(${a}, ${b})`;
  return name === "cmp" || name === "test" ? [`${value};`] : set(type, value);
}

function shift(name: string, type: string, bits: number): string[] {
  return [
    "{",
    `  const count = q.imm<${type}>(op) & ${bits - 1};`,
    `  const value = q.dst<${type}>(op);`,
    `  q.setDst<${type}>(op, count ? q.${name}<${type}>(value, count) : value);`,
    "}",
  ];
}

/** MOVZX, MOVSX, MOVSXD: the value of a type, extended. */
function extended(from: string, signed: boolean, letters: string, type: string): string[] {
  const value = operand(letters, 1, from);
  if (!signed) return set(type, `${value} as ${type}`);
  return set(type, `(${value} as i${type.slice(1)}) as ${type}`);
}

/** The statements of a quick operation. */
function statements(name: string, letters: string, size: Size): string[] {
  const type = unsigned(size);
  if (name in LOGIC || name in SUMS) return arithmetic(name, letters, type);
  const dst = `q.dst<${type}>(op)`;
  switch (name) {
    case "mov": {
      const value = operand(letters, 1, type);
      return letters[0] === "m" ? [`q.setMem<${type}>(op, ${value});`] : set(type, value);
    }
    case "lea":
      return set(type, `maskOffset(op, sum(op)) as ${type}`);
    case "inc":
    case "dec":
      return set(type, `q.${name}<${type}>(${dst})`);
    case "not":
      return set(type, `~${dst}`);
    case "neg":
      return set(type, `q.sub<${type}>(0, ${dst})`);
    case "shl":
    case "shr":
    case "sar":
      return shift(name, type, size * 8);
    case "rol":
    case "ror":
      return set(type, `q.rotate(${dst}, ${operand("ri", 1, type)} & 31, ${name === "rol"})`);
    case "movsxd":
      return extended("i32", true, letters, type);
    case "movzx8":
    case "movzx16":
      return extended(`u${name.slice(5)}`, false, letters, type);
    case "movsx8":
      return extended("i8", true, letters, type);
    case "push":
      return [`pushQuad(op, ${letters === "r" ? dst : `q.imm<${type}>(op)`});`];
    case "pop":
      return ["popQuad(op);"];
  }
  throw new Error(`Cannot write the case of ${name}_${letters}${size}`);
}

function caseOf(quickName: string): string[] {
  const [, name, letters, size] = /^(\w+)_([rmi]+)(\d)$/.exec(quickName)!;
  return [
    `      case ops.OP_${quickName.toUpperCase()}:`,
    ...statements(name, letters, Number(size) as Size).map((line) => `        ${line}`),
    "        op += OP_SIZE;",
    "        continue;",
  ];
}

/** JE and the like: two for each of the conditions, the second its opposite. */
function conditionCases(): string[] {
  const conditions = [
    ...["overflow()", "carry()", "zero()", "carry() || zero()", "sign()", "parity()", "less()"],
    "zero() || less()",
  ];
  return conditions.flatMap((condition, i) => {
    const opposite = condition.includes("||") ? `!(${condition})` : `!${condition}`;
    return [condition, opposite].flatMap((holds, j) => [
      `      case ops.OP_JCC${i + j === 0 ? "" : ` + ${i * 2 + j}`}:`,
      `        link = block + (${holds} ? BLOCK_TAKEN : BLOCK_LINK);`,
      "        break;",
    ]);
  });
}

/** The text of `core/loop.ts`. */
export function loopSource(template: string): string {
  if (!template.includes(MARK)) throw new Error(`core/loop.template lacks the line "${MARK}"`);
  // Those without operands are no instructions: the template has them.
  const instructions = quick.filter((name) => /_[rmi]+\d$/.test(name));
  const cases = [...instructions.flatMap(caseOf), ...conditionCases()];
  return "// Written by `deno task core` from loop.template and ../loop_cases.ts; change those.\n" +
    template.replace(MARK, cases.join("\n") + "\n");
}
