// Operations that end their block: system instructions, far transfers, string instructions.
import { state, system1 } from "./extended";
import {
  opClts,
  opInvpcid,
  opLmsw,
  opMovFromCr,
  opMovToCr,
  opWbinvd,
  } from "./control_registers";
import { opCpuid } from "./cpuid";
import { opMovFromDr, opMovToDr } from "./debug_registers";
import { raise, raiseUD, VECTOR_GP } from "./fault";
import { opSyscall, opSysenter, opSysexit, opSysret } from "./fast_calls";
import { overflow, settleFlags } from "./flags";
import { opInt, opInt1, opTrap } from "./interrupt";
import { opIret } from "./iret";
import { BUDGET } from "./derived";
import { GPR, NEXT_RIP, PAUSES } from "./layout";
import { readSized } from "./memory";
import { opRdmsr, opWrmsr } from "./msr";
import {
  linearAt,
  offsetOf,
  readDestination,
  readRegister,
  segmentOf,
  sizeOf,
  sum,
  writeRegister,
} from "./operand";
import * as ops from "./ops";
import { inPort, outPort } from "./port";
import {
  checkPopf,
  opCli,
  opHlt,
  opPopf,
  opPushf,
  opRdpmc,
  opRdtsc,
  opSti,
} from "./privileged";
import { drop, push, top } from "./push";
import { OP_DST, OP_IMMEDIATE } from "./record";
import { code64 } from "./registers";
import { opMovSreg } from "./segment";
import { opLoadFar, opPopSreg } from "./stack";
import { stringOperation } from "./string";
import { opLldt, opLtr } from "./tables";
import { opCallFar, opJmpFar, opRetFar } from "./transfer";
import { SEGMENT_SELECTOR, SEGMENT_SIZE_OF, SEGMENTS } from "./layout";

/** How many instructions PAUSE counts for. */
const PAUSE_COST: i32 = 500;

// @ts-ignore: decorator
@inline
function immediate(op: usize): u32 {
  return load<u32>(op, OP_IMMEDIATE);
}

/** The general register that a form R names by ModRM.rm. */
// @ts-ignore: decorator
@inline
function rmRegister(op: usize): usize {
  return GPR + ((load<u8>(op, OP_IMMEDIATE + 1) as usize) << 3);
}

/** The number of the segment in PUSH and POP: bits 3 to 5 of the opcode. */
function pushedSegment(op: usize): u32 {
  return (immediate(op) >> 3) & 7;
}

/** PUSH of a segment register: the bytes beyond the selector are 0 only if the stack is that wide. */
function pushSegment(op: usize): void {
  const segment = SEGMENTS + (pushedSegment(op) as usize) * SEGMENT_SIZE_OF;
  push(load<u16>(segment, SEGMENT_SELECTOR) as u64, sizeOf(op));
}

function loadFar(op: usize): void {
  const size = sizeOf(op);
  const offset = opLoadFar(immediate(op), size, segmentOf(op), offsetOf(op));
  writeRegister(load<u16>(op, OP_DST), size, offset);
}

/** Bytes of a control or debug register as an operand, whatever the prefixes. */
function fullSize(): u32 {
  return code64() ? 8 : 4;
}

/** Reads the selector after the offset of a far pointer in memory. */
function farSelector(op: usize, size: u32): u32 {
  return readSized(linearAt(op, sum(op) + size, 2, false), 2) as u32;
}

function input(op: usize, port: u32): void {
  const size = sizeOf(op);
  writeRegister(GPR, size, inPort(port, size) as u64);
}

function output(op: usize, port: u32): void {
  const size = sizeOf(op);
  outPort(port, size, readRegister(GPR, size) as u32);
}

/** PAUSE: a CPU that spins uses its slice up sooner, so that its host looks at the others. */
function pause(): void {
  store<u32>(PAUSES, load<u32>(PAUSES) + 1);
  store<i32>(BUDGET, load<i32>(BUDGET) - PAUSE_COST);
}

/** POPF, which may fault before it reads its stack. */
function popFlags(op: usize): void {
  checkPopf();
  const size = sizeOf(op);
  const value = top(size);
  opPopf(value, size);
  drop(size);
}

/** Executes an operation of the numbers from FIRST_ENDING on; it goes on at NEXT_RIP. */
export function executeEnding(code: u32, op: usize): void {
  switch (code) {
    case ops.OP_MOVS:
    case ops.OP_CMPS:
    case ops.OP_STOS:
    case ops.OP_LODS:
    case ops.OP_SCAS:
    case ops.OP_INS:
    case ops.OP_OUTS:
      return stringOperation(code, op);
    case ops.OP_PAUSE:
      return pause();
  }
  settleFlags();
  const size = sizeOf(op);
  switch (code) {
    case ops.OP_PUSH_SEGMENT:
      return pushSegment(op);
    case ops.OP_POP_SEGMENT:
      return opPopSreg(pushedSegment(op), size);
    case ops.OP_MOV_TO_SEGMENT:
      return opMovSreg(immediate(op) & 0xff, readDestination(op, 2) as u32);
    case ops.OP_LOAD_FAR:
      return loadFar(op);
    case ops.OP_CALL_FAR:
      return opCallFar(load<u16>(op, OP_IMMEDIATE + 4), immediate(op) as u64, size);
    case ops.OP_JMP_FAR:
      return opJmpFar(load<u16>(op, OP_IMMEDIATE + 4), immediate(op) as u64, size);
    case ops.OP_CALL_FAR_E: {
      const offset = readDestination(op, size);
      return opCallFar(farSelector(op, size), offset, size);
    }
    case ops.OP_JMP_FAR_E: {
      const offset = readDestination(op, size);
      return opJmpFar(farSelector(op, size), offset, size);
    }
    case ops.OP_RET_FAR:
      return opRetFar(size, returnsBytes(op));
    case ops.OP_PUSHF:
      return push(opPushf(), size);
    case ops.OP_POPF:
      return popFlags(op);
    case ops.OP_IRET:
      return opIret(size);
    case ops.OP_INT:
      return opInt(immediate(op) & 0xff);
    case ops.OP_INT3:
      return opTrap(3);
    case ops.OP_INTO:
      if (overflow()) opTrap(4);
      return;
    case ops.OP_INT1:
      return opInt1();
    case ops.OP_IN_IMMEDIATE:
      return input(op, immediate(op) & 0xff);
    case ops.OP_IN:
      return input(op, load<u16>(GPR + 16));
    case ops.OP_OUT_IMMEDIATE:
      return output(op, immediate(op) & 0xff);
    case ops.OP_OUT:
      return output(op, load<u16>(GPR + 16));
    case ops.OP_HLT:
      return opHlt();
    case ops.OP_CLI:
      return opCli();
    case ops.OP_STI:
      return opSti();
    case ops.OP_MOV_FROM_CONTROL:
      return writeRegister(rmRegister(op), fullSize(), opMovFromCr(immediate(op) & 0xff));
    case ops.OP_MOV_TO_CONTROL:
      return opMovToCr(immediate(op) & 0xff, readRegister(rmRegister(op), fullSize()));
    case ops.OP_MOV_FROM_DEBUG:
      return writeRegister(rmRegister(op), fullSize(), opMovFromDr(immediate(op) & 0xff));
    case ops.OP_MOV_TO_DEBUG:
      return opMovToDr(immediate(op) & 0xff, readRegister(rmRegister(op), fullSize()));
    case ops.OP_INVPCID:
      return opInvpcid(readRegister(load<u16>(op, OP_DST), size), segmentOf(op), offsetOf(op));
    case ops.OP_CLTS:
      return opClts();
    case ops.OP_LMSW:
      return opLmsw(readDestination(op, 2));
    case ops.OP_LLDT:
      return opLldt(readDestination(op, 2) as u32);
    case ops.OP_LTR:
      return opLtr(readDestination(op, 2) as u32);
    case ops.OP_WRMSR:
      return opWrmsr();
    case ops.OP_RDMSR:
      return opRdmsr();
    case ops.OP_RDTSC:
      return opRdtsc();
    case ops.OP_RDPMC:
      return opRdpmc();
    case ops.OP_CPUID:
      return opCpuid();
    case ops.OP_SYSCALL:
      return opSyscall();
    case ops.OP_SYSRET:
      return opSysret(size);
    case ops.OP_SYSENTER:
      return opSysenter();
    case ops.OP_SYSEXIT:
      return opSysexit(size);
    case ops.OP_INVD:
    case ops.OP_WBINVD:
      return opWbinvd();
    case ops.OP_SYSTEM1:
      return system1(op);
    case ops.OP_STATE:
      return state(op);
    case ops.OP_TOO_LONG:
      return raise(VECTOR_GP, 0);
  }
  raiseUD();
}

/** RETF with an immediate drops that many bytes as well; its other form has its opcode there. */
function returnsBytes(op: usize): u32 {
  return immediate(op);
}
