// The dispatch loop: executes a block and those that it leads to, as long as nothing wants attention.
import { jumpTarget } from "./block";
import {
  ATTENTION_MASK,
  BUDGET,
  CODE_LIMIT,
  CURRENT_BLOCK,
  CURRENT_OP,
  EPOCH,
  LINK_FROM,
  MODE,
} from "./derived";
import { executeEnding } from "./ending";
import { raiseGP } from "./fault";
import { carry, less, overflow, parity, sign, zero } from "./flags";
import { ATTENTION, GPR, NEXT_RIP, RIP } from "./layout";
import { MODE_64, MODE_FLAT_CODE, MODE_STEP, modeChanged } from "./mode";
import { addressBytes, maskOffset, readDestination, readRegister, sizeOf, sum, truncate, writeRegister } from "./operand";
import * as ops from "./ops";
import { executePlain } from "./plain";
import { drop, push, top } from "./push";
import * as q from "./quick";
import {
  BLOCK_COUNT,
  BLOCK_LINK,
  BLOCK_RIP,
  BLOCK_SIZE,
  BLOCK_TAKEN,
  LINK_EPOCH,
  OP_CODE,
  OP_DST,
  OP_IMMEDIATE,
  OP_LENGTH,
  OP_OFFSET,
  OP_SIZE,
} from "./record";
import { canonical } from "./access";

const RSP: usize = GPR + 32;
const RCX: usize = GPR + 8;

/** The address of an instruction, an offset in CS. */
// @ts-ignore: decorator
@inline
function ripOf(block: usize, op: usize): u64 {
  return load<u64>(block, BLOCK_RIP) + load<u8>(op, OP_OFFSET);
}

/** The address of the instruction after. */
// @ts-ignore: decorator
@inline
function ripAfter(block: usize, op: usize): u64 {
  return ripOf(block, op) + load<u8>(op, OP_LENGTH);
}

function plainly(code: u32, op: usize): void {
  store<u32>(CURRENT_OP, op as u32);
  executePlain(code, op);
}

/** ADD to memory that the TLB knows; false if it does not. */
// @ts-ignore: decorator
@inline
function readModifyAdd<T>(op: usize, value: T): bool {
  const at = q.place<T>(op);
  if (at == 0) return false;
  store<T>(at, q.add<T>(load<T>(at), value));
  return true;
}

// @ts-ignore: decorator
@inline
function pushQuad(op: usize, value: u64): void {
  const sp = load<u64>(RSP) - 8;
  q.storeAt<u64>(op, sp, value);
  store<u64>(RSP, sp);
}

// @ts-ignore: decorator
@inline
function popQuad(op: usize): void {
  const sp = load<u64>(RSP);
  const value = q.loadAt<u64>(op, sp);
  store<u64>(RSP, sp + 8);
  q.setDst<u64>(op, value);
}

/** Pushes a return address. */
function pushReturn(op: usize, rip: u64): void {
  store<u32>(CURRENT_OP, op as u32);
  if (load<u32>(MODE) & MODE_64) pushQuad(op, rip);
  else push(rip, sizeOf(op));
}

/** Whether LOOP, LOOPE, LOOPNE or JCXZ jump; the first three count down. */
function loops(code: u32, op: usize): bool {
  const bytes = addressBytes(op);
  const count = readRegister(RCX, bytes);
  if (code == ops.OP_JCXZ) return count == 0;
  writeRegister(RCX, bytes, count - 1);
  const more = truncate(count - 1, bytes) != 0;
  if (code == ops.OP_LOOPE) return more && zero();
  return code == ops.OP_LOOPNE ? more && !zero() : more;
}

/** Faults as a jump to a target beyond CS's limit, or to no address at all. */
function checkTarget(op: usize, target: u64): void {
  const mode = load<u32>(MODE);
  store<u32>(CURRENT_OP, op as u32);
  if (mode & MODE_64) {
    if (!canonical(target)) raiseGP(0);
  } else if (!(mode & MODE_FLAT_CODE) && target > (load<u32>(CODE_LIMIT) as u64)) {
    raiseGP(0);
  }
}

/** Leaves the loop for an address that is to be looked up, and entered in a link if there is one. */
function leave(rip: u64, link: usize): void {
  store<u64>(RIP, rip);
  store<u32>(LINK_FROM, link as u32);
}

/** Whether something wants attention at a boundary. */
// @ts-ignore: decorator
@inline
function attention(): bool {
  return (load<u32>(ATTENTION) & load<u32>(ATTENTION_MASK)) != 0;
}

/** Takes a block's instructions from the budget; false if it is used up. */
// @ts-ignore: decorator
@inline
function afford(block: usize): bool {
  const left = load<i32>(BUDGET) - (load<u16>(block, BLOCK_COUNT) as i32);
  store<i32>(BUDGET, left);
  return left > 0;
}

/** The block at a target that may be entered without further ado, otherwise 0. */
function known(target: u64): usize {
  return attention() || load<u32>(MODE) & MODE_STEP ? 0 : jumpTarget(target);
}

/** RET: the block it returns to if that is known, otherwise 0, and RIP says where. */
function returned(op: usize): usize {
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
function jumped(code: u32, op: usize, after: u64): usize {
  store<u32>(CURRENT_OP, op as u32);
  const target = readDestination(op, sizeOf(op));
  const block = known(target);
  if (block == 0) checkTarget(op, target);
  if (code == ops.OP_CALL_E) pushReturn(op, after);
  if (block == 0) leave(target, 0);
  return block;
}

/** Checks the target of a jump that has no other effect; LOOP has, and its targets are not checked. */
function checkJump(code: u32, op: usize, target: u64): void {
  if (code >= ops.OP_JCC && code <= ops.OP_JMP) checkTarget(op, target);
}

/** An operation after which the block ends; returns the link to go on by, or 0, and RIP is set. */
function ending(code: u32, block: usize, op: usize): usize {
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

/** Executes from the beginning of a block until what follows must be looked up; RIP says where. */
export function execute(first: usize): void {
  let block = first;
  let op = block + BLOCK_SIZE;
  store<u32>(CURRENT_BLOCK, block as u32);
  afford(block);
  while (true) {
    const code = load<u16>(op, OP_CODE) as u32;
    let link: usize;
    let next: usize;
    switch (code) {
      case ops.OP_ADD_RR4:
        q.setDst<u32>(op, q.add<u32>(q.dst<u32>(op), q.src<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_RR8:
        q.setDst<u64>(op, q.add<u64>(q.dst<u64>(op), q.src<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_RI4:
        q.setDst<u32>(op, q.add<u32>(q.dst<u32>(op), q.imm<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_RI8:
        q.setDst<u64>(op, q.add<u64>(q.dst<u64>(op), q.imm<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_RM4:
        q.setDst<u32>(op, q.add<u32>(q.dst<u32>(op), q.mem<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_RM8:
        q.setDst<u64>(op, q.add<u64>(q.dst<u64>(op), q.mem<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_RR1:
        q.setDst<u8>(op, q.add<u8>(q.dst<u8>(op), q.src<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_RI1:
        q.setDst<u8>(op, q.add<u8>(q.dst<u8>(op), q.imm<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RR4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) | q.src<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RR8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) | q.src<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RI4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) | q.imm<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RI8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) | q.imm<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RM4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) | q.mem<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RM8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) | q.mem<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RR1:
        q.setDst<u8>(op, q.logic<u8>((q.dst<u8>(op) | q.src<u8>(op)) as u8));
        op += OP_SIZE;
        continue;
      case ops.OP_OR_RI1:
        q.setDst<u8>(op, q.logic<u8>((q.dst<u8>(op) | q.imm<u8>(op)) as u8));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RR4:
        q.setDst<u32>(op, q.adc<u32>(q.dst<u32>(op), q.src<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RR8:
        q.setDst<u64>(op, q.adc<u64>(q.dst<u64>(op), q.src<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RI4:
        q.setDst<u32>(op, q.adc<u32>(q.dst<u32>(op), q.imm<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RI8:
        q.setDst<u64>(op, q.adc<u64>(q.dst<u64>(op), q.imm<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RM4:
        q.setDst<u32>(op, q.adc<u32>(q.dst<u32>(op), q.mem<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RM8:
        q.setDst<u64>(op, q.adc<u64>(q.dst<u64>(op), q.mem<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RR1:
        q.setDst<u8>(op, q.adc<u8>(q.dst<u8>(op), q.src<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_ADC_RI1:
        q.setDst<u8>(op, q.adc<u8>(q.dst<u8>(op), q.imm<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RR4:
        q.setDst<u32>(op, q.sbb<u32>(q.dst<u32>(op), q.src<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RR8:
        q.setDst<u64>(op, q.sbb<u64>(q.dst<u64>(op), q.src<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RI4:
        q.setDst<u32>(op, q.sbb<u32>(q.dst<u32>(op), q.imm<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RI8:
        q.setDst<u64>(op, q.sbb<u64>(q.dst<u64>(op), q.imm<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RM4:
        q.setDst<u32>(op, q.sbb<u32>(q.dst<u32>(op), q.mem<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RM8:
        q.setDst<u64>(op, q.sbb<u64>(q.dst<u64>(op), q.mem<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RR1:
        q.setDst<u8>(op, q.sbb<u8>(q.dst<u8>(op), q.src<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SBB_RI1:
        q.setDst<u8>(op, q.sbb<u8>(q.dst<u8>(op), q.imm<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RR4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) & q.src<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RR8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) & q.src<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RI4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) & q.imm<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RI8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) & q.imm<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RM4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) & q.mem<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RM8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) & q.mem<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RR1:
        q.setDst<u8>(op, q.logic<u8>((q.dst<u8>(op) & q.src<u8>(op)) as u8));
        op += OP_SIZE;
        continue;
      case ops.OP_AND_RI1:
        q.setDst<u8>(op, q.logic<u8>((q.dst<u8>(op) & q.imm<u8>(op)) as u8));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RR4:
        q.setDst<u32>(op, q.sub<u32>(q.dst<u32>(op), q.src<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RR8:
        q.setDst<u64>(op, q.sub<u64>(q.dst<u64>(op), q.src<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RI4:
        q.setDst<u32>(op, q.sub<u32>(q.dst<u32>(op), q.imm<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RI8:
        q.setDst<u64>(op, q.sub<u64>(q.dst<u64>(op), q.imm<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RM4:
        q.setDst<u32>(op, q.sub<u32>(q.dst<u32>(op), q.mem<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RM8:
        q.setDst<u64>(op, q.sub<u64>(q.dst<u64>(op), q.mem<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RR1:
        q.setDst<u8>(op, q.sub<u8>(q.dst<u8>(op), q.src<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SUB_RI1:
        q.setDst<u8>(op, q.sub<u8>(q.dst<u8>(op), q.imm<u8>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RR4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) ^ q.src<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RR8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) ^ q.src<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RI4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) ^ q.imm<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RI8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) ^ q.imm<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RM4:
        q.setDst<u32>(op, q.logic<u32>((q.dst<u32>(op) ^ q.mem<u32>(op)) as u32));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RM8:
        q.setDst<u64>(op, q.logic<u64>((q.dst<u64>(op) ^ q.mem<u64>(op)) as u64));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RR1:
        q.setDst<u8>(op, q.logic<u8>((q.dst<u8>(op) ^ q.src<u8>(op)) as u8));
        op += OP_SIZE;
        continue;
      case ops.OP_XOR_RI1:
        q.setDst<u8>(op, q.logic<u8>((q.dst<u8>(op) ^ q.imm<u8>(op)) as u8));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RR4:
        q.sub<u32>(q.dst<u32>(op), q.src<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RR8:
        q.sub<u64>(q.dst<u64>(op), q.src<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RI4:
        q.sub<u32>(q.dst<u32>(op), q.imm<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RI8:
        q.sub<u64>(q.dst<u64>(op), q.imm<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RM4:
        q.sub<u32>(q.dst<u32>(op), q.mem<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RM8:
        q.sub<u64>(q.dst<u64>(op), q.mem<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RR1:
        q.sub<u8>(q.dst<u8>(op), q.src<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RI1:
        q.sub<u8>(q.dst<u8>(op), q.imm<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_MR8:
        if (!readModifyAdd<u64>(op, q.src<u64>(op))) plainly(ops.OP_ADD, op);
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_MR4:
        if (!readModifyAdd<u32>(op, q.src<u32>(op))) plainly(ops.OP_ADD, op);
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_MR4:
        q.sub<u32>(q.mem<u32>(op), q.src<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_MR8:
        q.sub<u64>(q.mem<u64>(op), q.src<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_MI1:
        q.sub<u8>(q.mem<u8>(op), q.imm<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_MI4:
        q.sub<u32>(q.mem<u32>(op), q.imm<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_MI8:
        q.sub<u64>(q.mem<u64>(op), q.imm<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_MI4:
        if (!readModifyAdd<u32>(op, q.imm<u32>(op))) plainly(ops.OP_ADD, op);
        op += OP_SIZE;
        continue;
      case ops.OP_ADD_MI8:
        if (!readModifyAdd<u64>(op, q.imm<u64>(op))) plainly(ops.OP_ADD, op);
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_RM1:
        q.sub<u8>(q.dst<u8>(op), q.mem<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_CMP_MR1:
        q.sub<u8>(q.mem<u8>(op), q.src<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_TEST_RR1:
        q.logic<u8>((q.dst<u8>(op) & q.src<u8>(op)) as u8);
        op += OP_SIZE;
        continue;
      case ops.OP_TEST_RR4:
        q.logic<u32>((q.dst<u32>(op) & q.src<u32>(op)) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_TEST_RR8:
        q.logic<u64>((q.dst<u64>(op) & q.src<u64>(op)) as u64);
        op += OP_SIZE;
        continue;
      case ops.OP_TEST_RI1:
        q.logic<u8>((q.dst<u8>(op) & q.imm<u8>(op)) as u8);
        op += OP_SIZE;
        continue;
      case ops.OP_TEST_RI4:
        q.logic<u32>((q.dst<u32>(op) & q.imm<u32>(op)) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_TEST_MI1:
        q.logic<u8>((q.mem<u8>(op) & q.imm<u8>(op)) as u8);
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RR4:
        q.setDst<u32>(op, q.src<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RR8:
        q.setDst<u64>(op, q.src<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RI4:
        q.setDst<u32>(op, q.imm<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RI8:
        q.setDst<u64>(op, q.imm<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RM1:
        q.setDst<u8>(op, q.mem<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RM2:
        q.setDst<u16>(op, q.mem<u16>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RM4:
        q.setDst<u32>(op, q.mem<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RM8:
        q.setDst<u64>(op, q.mem<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_MR1:
        q.setMem<u8>(op, q.src<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_MR2:
        q.setMem<u16>(op, q.src<u16>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_MR4:
        q.setMem<u32>(op, q.src<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_MR8:
        q.setMem<u64>(op, q.src<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_MI1:
        q.setMem<u8>(op, q.imm<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_MI4:
        q.setMem<u32>(op, q.imm<u32>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_MI8:
        q.setMem<u64>(op, q.imm<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RR1:
        q.setDst<u8>(op, q.src<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_MOV_RI1:
        q.setDst<u8>(op, q.imm<u8>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_LEA_RM4:
        q.setDst<u32>(op, maskOffset(op, sum(op)) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_LEA_RM8:
        q.setDst<u64>(op, maskOffset(op, sum(op)) as u64);
        op += OP_SIZE;
        continue;
      case ops.OP_INC_R4:
        q.setDst<u32>(op, q.inc<u32>(q.dst<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_INC_R8:
        q.setDst<u64>(op, q.inc<u64>(q.dst<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_DEC_R4:
        q.setDst<u32>(op, q.dec<u32>(q.dst<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_DEC_R8:
        q.setDst<u64>(op, q.dec<u64>(q.dst<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_NOT_R8:
        q.setDst<u64>(op, ~q.dst<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_NEG_R8:
        q.setDst<u64>(op, q.sub<u64>(0, q.dst<u64>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_NEG_R4:
        q.setDst<u32>(op, q.sub<u32>(0, q.dst<u32>(op)));
        op += OP_SIZE;
        continue;
      case ops.OP_SHL_RI4:
        {
          const count = q.imm<u32>(op) & 31;
          const value = q.dst<u32>(op);
          q.setDst<u32>(op, count ? q.shl<u32>(value, count) : value);
        }
        op += OP_SIZE;
        continue;
      case ops.OP_SHL_RI8:
        {
          const count = q.imm<u64>(op) & 63;
          const value = q.dst<u64>(op);
          q.setDst<u64>(op, count ? q.shl<u64>(value, count) : value);
        }
        op += OP_SIZE;
        continue;
      case ops.OP_SHR_RI4:
        {
          const count = q.imm<u32>(op) & 31;
          const value = q.dst<u32>(op);
          q.setDst<u32>(op, count ? q.shr<u32>(value, count) : value);
        }
        op += OP_SIZE;
        continue;
      case ops.OP_SHR_RI8:
        {
          const count = q.imm<u64>(op) & 63;
          const value = q.dst<u64>(op);
          q.setDst<u64>(op, count ? q.shr<u64>(value, count) : value);
        }
        op += OP_SIZE;
        continue;
      case ops.OP_SAR_RI4:
        {
          const count = q.imm<u32>(op) & 31;
          const value = q.dst<u32>(op);
          q.setDst<u32>(op, count ? q.sar<u32>(value, count) : value);
        }
        op += OP_SIZE;
        continue;
      case ops.OP_SAR_RI8:
        {
          const count = q.imm<u64>(op) & 63;
          const value = q.dst<u64>(op);
          q.setDst<u64>(op, count ? q.sar<u64>(value, count) : value);
        }
        op += OP_SIZE;
        continue;
      case ops.OP_ROL_RI4:
        q.setDst<u32>(op, q.rotate(q.dst<u32>(op), q.imm<u32>(op) & 31, true));
        op += OP_SIZE;
        continue;
      case ops.OP_ROR_RI4:
        q.setDst<u32>(op, q.rotate(q.dst<u32>(op), q.imm<u32>(op) & 31, false));
        op += OP_SIZE;
        continue;
      case ops.OP_MOVSXD_RR8:
        q.setDst<u64>(op, (q.src<i32>(op) as i64) as u64);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVSXD_RM8:
        q.setDst<u64>(op, (q.mem<i32>(op) as i64) as u64);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVZX8_RR4:
        q.setDst<u32>(op, q.src<u8>(op) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVZX8_RM4:
        q.setDst<u32>(op, q.mem<u8>(op) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVZX16_RR4:
        q.setDst<u32>(op, q.src<u16>(op) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVZX16_RM4:
        q.setDst<u32>(op, q.mem<u16>(op) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVSX8_RR4:
        q.setDst<u32>(op, (q.src<i8>(op) as i32) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVSX8_RM4:
        q.setDst<u32>(op, (q.mem<i8>(op) as i32) as u32);
        op += OP_SIZE;
        continue;
      case ops.OP_PUSH_R8:
        pushQuad(op, q.dst<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_POP_R8:
        popQuad(op);
        op += OP_SIZE;
        continue;
      case ops.OP_PUSH_I8:
        pushQuad(op, q.imm<u64>(op));
        op += OP_SIZE;
        continue;
      case ops.OP_JCC:
        link = block + (overflow() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 1:
        link = block + (!overflow() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 2:
        link = block + (carry() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 3:
        link = block + (!carry() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 4:
        link = block + (zero() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 5:
        link = block + (!zero() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 6:
        link = block + (carry() || zero() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 7:
        link = block + (!(carry() || zero()) ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 8:
        link = block + (sign() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 9:
        link = block + (!sign() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 10:
        link = block + (parity() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 11:
        link = block + (!parity() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 12:
        link = block + (less() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 13:
        link = block + (!less() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 14:
        link = block + (zero() || less() ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JCC + 15:
        link = block + (!(zero() || less()) ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_JMP:
        link = block + BLOCK_TAKEN;
        break;
      case ops.OP_CALL:
        link = block + BLOCK_TAKEN;
        if (load<u32>(link, LINK_EPOCH) != load<u32>(EPOCH)) checkTarget(op, load<u64>(op, OP_IMMEDIATE));
        pushReturn(op, ripAfter(block, op));
        break;
      case ops.OP_RET:
        next = returned(op);
        if (next == 0) return;
        block = next;
        op = block + BLOCK_SIZE;
        store<u32>(CURRENT_BLOCK, block as u32);
        if (afford(block)) continue;
        leave(load<u64>(block, BLOCK_RIP), 0);
        return;
      case ops.OP_JMP_E:
      case ops.OP_CALL_E:
        next = jumped(code, op, ripAfter(block, op));
        if (next == 0) return;
        block = next;
        op = block + BLOCK_SIZE;
        store<u32>(CURRENT_BLOCK, block as u32);
        if (afford(block)) continue;
        leave(load<u64>(block, BLOCK_RIP), 0);
        return;
      case ops.OP_LOOP:
      case ops.OP_LOOPE:
      case ops.OP_LOOPNE:
      case ops.OP_JCXZ:
        link = block + (loops(code, op) ? BLOCK_TAKEN : BLOCK_LINK);
        break;
      case ops.OP_FALL_THROUGH:
        link = block + BLOCK_LINK;
        break;
      case ops.OP_LEAVE_BLOCK:
        leave(ripOf(block, op), 0);
        return;
      default:
        if (code < ops.FIRST_ENDING) {
          plainly(code, op);
          op += OP_SIZE;
          continue;
        }
        link = ending(code, block, op);
        if (link == 0) return;
    }
    if (load<u32>(link, LINK_EPOCH) == load<u32>(EPOCH) && !attention()) {
      block = load<u32>(link) as usize;
      op = block + BLOCK_SIZE;
      store<u32>(CURRENT_BLOCK, block as u32);
      if (afford(block)) continue;
      leave(load<u64>(block, BLOCK_RIP), 0);
      return;
    }
    if (link == block + BLOCK_TAKEN) {
      const target = load<u64>(op, OP_IMMEDIATE);
      checkJump(code, op, target);
      leave(target, link);
    } else {
      leave(ripAfter(block, op), link);
    }
    return;
  }
}
