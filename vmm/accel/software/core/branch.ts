// What ends a block: jumps, calls, returns, and operations that the dispatch loop hands on.
import { jumpTarget } from "./block";
import { ATTENTION_MASK, BUDGET, CODE_LIMIT, CURRENT_OP, LINK_FROM, MODE } from "./derived";
import { executeEnding } from "./ending";
import { raiseGP } from "./fault";
import { zero } from "./flags";
import { ATTENTION, GPR, NEXT_RIP, RIP } from "./layout";
import { MODE_64, MODE_FLAT_CODE, MODE_STEP, modeChanged } from "./mode";
import {
  addressBytes,
  readDestination,
  readRegister,
  sizeOf,
  truncate,
  writeRegister,
} from "./operand";
import * as ops from "./ops";
import { executePlain } from "./plain";
import { drop, push, top } from "./push";
import * as q from "./quick";
import { BLOCK_COUNT, BLOCK_LINK, BLOCK_RIP, OP_IMMEDIATE, OP_LENGTH, OP_OFFSET } from "./record";
import { canonical } from "./access";

const RSP: usize = GPR + 32;
const RCX: usize = GPR + 8;

/** The address of an instruction, an offset in CS. */
// @ts-ignore: decorator
@inline
export function ripOf(block: usize, op: usize): u64 {
  return load<u64>(block, BLOCK_RIP) + load<u8>(op, OP_OFFSET);
}

/** The address of the instruction after. */
// @ts-ignore: decorator
@inline
export function ripAfter(block: usize, op: usize): u64 {
  return ripOf(block, op) + load<u8>(op, OP_LENGTH);
}

export function plainly(code: u32, op: usize): void {
  store<u32>(CURRENT_OP, op as u32);
  executePlain(code, op);
}

/** ADD to memory that the TLB knows; false if it does not. */
// @ts-ignore: decorator
@inline
export function readModifyAdd<T>(op: usize, value: T): bool {
  const at = q.place<T>(op);
  if (at == 0) return false;
  store<T>(at, q.add<T>(load<T>(at), value));
  return true;
}

// @ts-ignore: decorator
@inline
export function pushQuad(op: usize, value: u64): void {
  const sp = load<u64>(RSP) - 8;
  q.storeAt<u64>(op, sp, value);
  store<u64>(RSP, sp);
}

// @ts-ignore: decorator
@inline
export function popQuad(op: usize): void {
  const sp = load<u64>(RSP);
  const value = q.loadAt<u64>(op, sp);
  store<u64>(RSP, sp + 8);
  q.setDst<u64>(op, value);
}

/** Pushes a return address. */
export function pushReturn(op: usize, rip: u64): void {
  store<u32>(CURRENT_OP, op as u32);
  if (load<u32>(MODE) & MODE_64) pushQuad(op, rip);
  else push(rip, sizeOf(op));
}

/** Whether LOOP, LOOPE, LOOPNE or JCXZ jump; the first three count down. */
export function loops(code: u32, op: usize): bool {
  const bytes = addressBytes(op);
  const count = readRegister(RCX, bytes);
  if (code == ops.OP_JCXZ) return count == 0;
  writeRegister(RCX, bytes, count - 1);
  const more = truncate(count - 1, bytes) != 0;
  if (code == ops.OP_LOOPE) return more && zero();
  return code == ops.OP_LOOPNE ? more && !zero() : more;
}

/** Faults as a jump to a target beyond CS's limit, or to no address at all. */
export function checkTarget(op: usize, target: u64): void {
  const mode = load<u32>(MODE);
  store<u32>(CURRENT_OP, op as u32);
  if (mode & MODE_64) {
    if (!canonical(target)) raiseGP(0);
  } else if (!(mode & MODE_FLAT_CODE) && target > (load<u32>(CODE_LIMIT) as u64)) {
    raiseGP(0);
  }
}

/** Leaves the loop for an address that is to be looked up, and entered in a link if there is one. */
export function leave(rip: u64, link: usize): void {
  store<u64>(RIP, rip);
  store<u32>(LINK_FROM, link as u32);
}

/** Whether something wants attention at a boundary. */
// @ts-ignore: decorator
@inline
export function attention(): bool {
  return (load<u32>(ATTENTION) & load<u32>(ATTENTION_MASK)) != 0;
}

/** Takes a block's instructions from the budget; false if it is used up. */
// @ts-ignore: decorator
@inline
export function afford(block: usize): bool {
  const left = load<i32>(BUDGET) - (load<u16>(block, BLOCK_COUNT) as i32);
  store<i32>(BUDGET, left);
  return left > 0;
}

/** The block at a target that may be entered without further ado, otherwise 0. */
function known(target: u64): usize {
  return attention() || load<u32>(MODE) & MODE_STEP ? 0 : jumpTarget(target);
}

/** RET: the block it returns to if that is known, otherwise 0, and RIP says where. */
export function returned(op: usize): usize {
  store<u32>(CURRENT_OP, op as u32);
  const size = sizeOf(op);
  const target = top(size);
  const block = known(target);
  if (block == 0) checkTarget(op, target);
  drop((size + load<u32>(op, OP_IMMEDIATE)) as u64);
  if (block == 0) leave(target, 0);
  return block;
}

/** JMP and CALL by register or memory; as `returned`. */
export function jumped(code: u32, op: usize, after: u64): usize {
  store<u32>(CURRENT_OP, op as u32);
  const target = readDestination(op, sizeOf(op));
  const block = known(target);
  if (block == 0) checkTarget(op, target);
  if (code == ops.OP_CALL_E) pushReturn(op, after);
  if (block == 0) leave(target, 0);
  return block;
}

/** Checks the target of a jump that has no other effect; LOOP has, and its targets are not checked. */
export function checkJump(code: u32, op: usize, target: u64): void {
  if (code >= ops.OP_JCC && code <= ops.OP_JMP) checkTarget(op, target);
}

/** An operation after which the block ends; returns the link to go on by, or 0, and RIP is set. */
export function ending(code: u32, block: usize, op: usize): usize {
  store<u32>(CURRENT_OP, op as u32);
  const rip = ripOf(block, op), next = ripAfter(block, op);
  store<u64>(RIP, rip);
  store<u64>(NEXT_RIP, next);
  executeEnding(code, op);
  const to = load<u64>(NEXT_RIP);
  if (code >= ops.FIRST_STEADY && to == next) return block + BLOCK_LINK;
  leave(to, 0);
  if (code < ops.FIRST_STEADY) modeChanged();
  return 0;
}
