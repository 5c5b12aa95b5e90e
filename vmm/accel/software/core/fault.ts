// Exceptions of the guest: they leave WebAssembly by a JavaScript exception that env.raise() throws,
// so that whoever calls what can fault goes on only if it did not.
import { CURRENT_BLOCK, CURRENT_OP } from "./derived";
import {
  FAULT_ADDRESS,
  FAULT_ERROR_CODE,
  FAULT_HAS_ERROR_CODE,
  FAULT_VECTOR,
  RIP,
} from "./layout";
import { settleFlags } from "./flags";
import { BLOCK_RIP, OP_OFFSET } from "./record";

export const VECTOR_DE: u32 = 0;
export const VECTOR_DB: u32 = 1;
export const VECTOR_NMI: u32 = 2;
export const VECTOR_BP: u32 = 3;
export const VECTOR_OF: u32 = 4;
export const VECTOR_BR: u32 = 5;
export const VECTOR_UD: u32 = 6;
export const VECTOR_NM: u32 = 7;
export const VECTOR_DF: u32 = 8;
export const VECTOR_TS: u32 = 10;
export const VECTOR_NP: u32 = 11;
export const VECTOR_SS: u32 = 12;
export const VECTOR_GP: u32 = 13;
export const VECTOR_PF: u32 = 14;
export const VECTOR_MF: u32 = 16;
export const VECTOR_AC: u32 = 17;
export const VECTOR_MC: u32 = 18;
export const VECTOR_XM: u32 = 19;

/** Vectors that push an error code: 8, 10 to 14, 17 (SDM 3A, table 6-1). */
const WITH_ERROR_CODE: u32 = (1 << 8) | (0x1f << 10) | (1 << 17);

@external("env", "raise")
declare function throwOut(): void;

/** Sets rip to the instruction that executes; without one (between two), rip is right already. */
export function syncRip(): void {
  const op = load<u32>(CURRENT_OP) as usize;
  if (op == 0) return;
  const block = load<u32>(CURRENT_BLOCK) as usize;
  store<u64>(RIP, load<u64>(block, BLOCK_RIP) + load<u8>(op, OP_OFFSET));
}

/** Raises an exception, with an error code if the vector has one; never returns. */
export function raise(vector: u32, errorCode: u32): void {
  syncRip();
  settleFlags();
  store<u32>(FAULT_VECTOR, vector);
  store<u32>(FAULT_ERROR_CODE, errorCode);
  store<u32>(FAULT_HAS_ERROR_CODE, (WITH_ERROR_CODE >> vector) & 1);
  throwOut();
  unreachable();
}

/** Raises #PF for a linear address; CR2 is written when it is delivered. */
export function raisePageFault(linear: u64, errorCode: u32): void {
  store<u64>(FAULT_ADDRESS, linear);
  raise(VECTOR_PF, errorCode);
}

export function raiseUD(): void {
  raise(VECTOR_UD, 0);
}

export function raiseGP(errorCode: u32): void {
  raise(VECTOR_GP, errorCode);
}
