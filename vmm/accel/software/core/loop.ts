// Written by `deno task core` from loop.template and ../loop_cases.ts; change those.
// The dispatch loop: executes a block and those that it leads to, as long as nothing wants attention.
import {
  afford,
  attention,
  checkJump,
  checkTarget,
  ending,
  jumped,
  leave,
  loops,
  plainly,
  popQuad,
  pushQuad,
  pushReturn,
  readModifyAdd,
  returned,
  ripAfter,
  ripOf,
} from "./branch";
import { enterCompiled } from "./compiled";
import { CURRENT_BLOCK, EPOCH } from "./derived";
import { carry, less, overflow, parity, sign, zero } from "./flags";
import { RIP } from "./layout";
import { maskOffset, sum } from "./operand";
import * as ops from "./ops";
import * as q from "./quick";
import {
  BLOCK_LINK,
  BLOCK_RIP,
  BLOCK_SIZE,
  BLOCK_TAKEN,
  LINK_EPOCH,
  OP_CODE,
  OP_IMMEDIATE,
  OP_SIZE,
} from "./record";

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
      case ops.OP_MOVSXD_RR8:
        q.setDst<u64>(op, (q.src<i32>(op) as i64) as u64);
        op += OP_SIZE;
        continue;
      case ops.OP_MOVSXD_RM8:
        q.setDst<u64>(op, (q.mem<i32>(op) as i64) as u64);
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
      case ops.OP_COMPILED:
        op = enterCompiled(block);
        block = load<u32>(CURRENT_BLOCK) as usize;
        continue;
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
