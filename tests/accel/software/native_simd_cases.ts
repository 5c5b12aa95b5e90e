/**
 * Cases of MMX and SSE instructions for the processor and the software CPU, made from their list: the
 * decoder, operands in registers and memory, and faults. What they compute is tested elsewhere.
 *
 * @module
 */
import { parseSimd, type SimdForm } from "../../../vmm/accel/software/simd_table.ts";
import { type Case, CODE, WINDOW, WINDOW_SIZE } from "./native.ts";
import type { Random } from "./native_cases.ts";

/** Approximations, of which every processor has its own; and those with an implied address. */
const notHere = /^(?:RCP|RSQRT|MASKMOV)/;

/** The forms that are compared. */
export const simdForms: readonly SimdForm[] = parseSimd().filter(({ mnemonic }) =>
  !notHere.test(mnemonic)
);

const PREFIXES = [[], [0x66], [0xf3], [0xf2]];
const MAPS = [[0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
const A = WINDOW + 0x40, B = WINDOW + 0x80, C = WINDOW + 0xc0;

const absolute = (reg: number, address: number) => [
  (reg << 3) | 4,
  0x25,
  ...[0, 8, 16, 24].map((shift) => (address >>> shift) & 0xff),
];
const loadXmm = (reg: number, address: number) => [0x0f, 0x10, ...absolute(reg, address)];
const storeXmm = (reg: number, address: number) => [0x0f, 0x11, ...absolute(reg, address)];
const loadMm = (reg: number, address: number) => [0x0f, 0x6f, ...absolute(reg, address)];
const storeMm = (reg: number, address: number) => [0x0f, 0x7f, ...absolute(reg, address)];

/** The operand that ModRM.rm is: the letters are those of `simd_table.ts`. */
function rmOperand(form: SimdForm): string | undefined {
  return form.operands.find((operand) => "UNWQEM".includes(operand[0]));
}

function usesMmx(form: SimdForm): boolean {
  return form.operands.some((operand) => "PNQ".includes(operand[0]));
}

/** Whether an instruction can have its operand in memory, in a register. */
function places(form: SimdForm): { memory: boolean; register: boolean } {
  const kind = rmOperand(form)?.[0] ?? "U";
  return { memory: "WQEM".includes(kind), register: kind !== "M" };
}

/** A case: registers 1 and 2 are loaded, one instruction executes, both are stored. */
export function simdCase(random: Random, form: SimdForm): Case {
  const mmx = usesMmx(form);
  const { memory, register } = places(form);
  const inMemory = memory && (!register || random.chance(50));
  const reg = form.group ?? 1;
  // Mostly aligned; across the boundary between the pages now and then.
  const address = random.chance(85) ? C : C + random.below(16);
  const rm = inMemory ? absolute(reg, address) : [0xc0 | (reg << 3) | 2];
  const instruction = [
    ...PREFIXES[form.prefix],
    ...(form.wide ? [0x48] : []),
    ...MAPS[form.map],
    form.opcode,
    ...rm,
    ...(form.immediate ? [random.below(256)] : []),
  ];
  // Conversions have an MMX register on one side only.
  const load = [loadMm(1, A), loadMm(2, B), loadXmm(2, B), loadXmm(1, A)].flat();
  const store = [storeMm(1, A + 16), storeMm(2, B + 16), [0x0f, 0x77]].flat();
  const code = mmx
    ? [...load, ...instruction, ...store]
    : [...loadXmm(1, A), ...loadXmm(2, B), ...instruction, ...storeXmm(1, A), ...storeXmm(2, B)];
  code.push(0xf4);
  const registers = Array.from({ length: 16 }, () => random.bits64());
  return {
    registers,
    flags: 2,
    long: true,
    entry: CODE + 0x800,
    code: Uint8Array.from(code),
    data: Uint8Array.from({ length: WINDOW_SIZE }, () => random.below(256)),
    undefinedFlags: 0,
    name: `${form.mnemonic} ${form.operands} ${inMemory ? "memory" : "register"}: ` +
      code.map((byte) => byte.toString(16).padStart(2, "0")).join(" "),
  };
}
