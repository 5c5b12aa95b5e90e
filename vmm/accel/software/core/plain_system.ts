// System instructions that neither transfer control nor change how code executes, and SIMD and x87.
import { settleFlags } from "./flags";
import { opSmsw } from "./control_registers";
import { hostRandom } from "./random";
import { SEGMENT_SELECTOR, SEGMENT_SIZE_OF, SEGMENTS } from "./layout";
import { readDestination, readSource, sizeOf, toMemory, writeDestination, writeRegister } from "./operand";
import * as ops from "./ops";
import { opRdpid } from "./privileged";
import { raiseUD } from "./fault";
import { OP_DST, OP_IMMEDIATE } from "./record";
import { opSldt, opStr } from "./tables";
import { opArpl, opLar, opLsl, opVerr, opVerw } from "./verify";

/** Stores a word: memory gets 16 bits, a register the operand size (SDM 2B: SLDT, STR, SMSW, MOV). */
function storeWord(op: usize, value: u64): void {
  if (toMemory(op)) writeDestination(op, 2, value & 0xffff);
  else writeRegister(load<u16>(op, OP_DST), sizeOf(op), value);
}

function moveFromSegment(op: usize): void {
  const segment = SEGMENTS + (load<u8>(op, OP_IMMEDIATE) as usize) * SEGMENT_SIZE_OF;
  storeWord(op, load<u16>(segment, SEGMENT_SELECTOR) as u64);
}

/** LAR and LSL, which may leave the destination alone. */
function loadRights(op: usize, found: i64): void {
  if (found >= 0) writeRegister(load<u16>(op, OP_DST), sizeOf(op), found as u64);
}

function adjustRpl(op: usize): void {
  const destination = readDestination(op, 2) as u32;
  const adjusted = opArpl(destination, readSource(op, 2) as u32);
  if (adjusted != destination) writeDestination(op, 2, adjusted as u64);
}

export function plainSystem(code: u32, op: usize): void {
  settleFlags();
  switch (code) {
    case ops.OP_MOV_FROM_SEGMENT:
      return moveFromSegment(op);
    case ops.OP_SLDT:
      return storeWord(op, opSldt() as u64);
    case ops.OP_STR:
      return storeWord(op, opStr() as u64);
    case ops.OP_SMSW:
      return storeWord(op, opSmsw());
    case ops.OP_LAR:
      return loadRights(op, opLar(readSource(op, 2) as u32));
    case ops.OP_LSL:
      return loadRights(op, opLsl(readSource(op, 2) as u32));
    case ops.OP_VERR:
      return opVerr(readDestination(op, 2) as u32);
    case ops.OP_VERW:
      return opVerw(readDestination(op, 2) as u32);
    case ops.OP_ARPL:
      return adjustRpl(op);
    case ops.OP_RDPID:
      return writeRegister(load<u16>(op, OP_DST), 8, opRdpid());
    case ops.OP_RDRAND:
      return hostRandom(op);
  }
  raiseUD();
}
