/**
 * Which operations are compiled.
 *
 * @module
 */
import { cpuState } from "../cpu_state.ts";
import { Ea } from "./layout.ts";
import type { Operation } from "./records.ts";

const ARITHMETIC = new Set(["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "test"]);
const UNARY = new Set(["inc", "dec", "not", "neg"]);
const EXTENDING = new Set(["movzx8", "movzx16", "movsx8", "movsx16", "movsxd"]);
const SHIFTS = new Set(["shl", "shr", "sar", "shlCl", "shrCl", "sarCl"]);
const WIDE = new Set([...SHIFTS, "imul", "imul3", "cbw", "cwd", "xchg", "mul", "imul1"]);

/** Whether the memory operand's address needs no segment's checks. */
function isPlainAddress({ ea }: Operation): boolean {
  return ea === Ea.FLAT64 || ea === Ea.BASE64 || ea === Ea.FLAT32;
}

/** Whether an operation that does not end a block is compiled; `flags`: the flags it leaves are seen. */
export function isCompiled(operation: Operation, flags: boolean): boolean {
  const { name, size, destination, source, locked } = operation;
  if (locked) return false;
  const memory = destination === "memory" || source === "memory";
  if (memory && !isPlainAddress(operation)) return false;
  if (ARITHMETIC.has(name) || UNARY.has(name) || name === "mov") return true;
  if (EXTENDING.has(name) || name === "cmov") return size >= 4;
  if (name === "lea") return size >= 4 && isPlainAddress(operation);
  if (name === "nop" || name === "setcc") return true;
  if (name === "push" || name === "pop" || name === "leave") return size === 8 && !memory;
  if (name === "rol" || name === "ror") return size >= 4 && !memory && !flags;
  if (SHIFTS.has(name) || name === "xchg") return size >= 4 && !memory;
  return WIDE.has(name) && size >= 4;
}

/** Operations that compiled code has the core execute: all that change registers, flags and memory alone. */
const CALLED = new Set([
  ...["simd", "x87", "fwait", "div", "idiv", "bt", "bts", "btr", "btc", "bsf", "bsr", "bswap"],
  ...[
    "popcnt",
    "cmpxchg",
    "xadd",
    "xchg",
    "shld",
    "shrd",
    "shldCl",
    "shrdCl",
    "rol",
    "ror",
    "rolCl",
  ],
  ...["rorCl", "add", "or", "and", "sub", "xor", "inc", "dec", "neg", "not", "shl", "shr", "sar"],
]);

/** Whether the core executes an operation for compiled code that has no code of its own for it. */
export function isCalled({ name }: Operation): boolean {
  return CALLED.has(name);
}

/** The number of a general register by its address in the state; -1 if it is none: nothing, or SIMD's. */
export function registerNumber(address: number): number {
  const number = (address - cpuState.offsets.gpr) >> 3;
  return number < 16 ? number : -1;
}
