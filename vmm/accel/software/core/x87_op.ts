// Operands of x87 instructions: what x87() takes as pointers and flags.
import { BOUNCE, CURRENT_BLOCK } from "./derived";
import { arithmeticFlags, setArithmetic } from "./flags";
import { GPR } from "./layout";
import { probeWrite, read16, read32, read64, write16, write32, write64 } from "./memory";
import { addressOf, offsetOf, sizeOf } from "./operand";
import { BLOCK_RIP, OP_IMMEDIATE, OP_OFFSET } from "./record";
import { checkX87, x87 } from "./x87";
import { x87Environment } from "./x87_environment";
import {
  X87_ENVIRONMENT,
  X87_GIVES_AX,
  X87_GIVES_FLAGS,
  X87_SIZE,
  X87_STORE,
} from "./x87_table";

/** Reads an operand of 2, 4, 8 or 10 bytes into the buffer. */
function loadOperand(linear: u64, size: u32): void {
  switch (size) {
    case 2:
      store<u16>(BOUNCE, read16(linear) as u16);
      return;
    case 4:
      store<u32>(BOUNCE, read32(linear));
      return;
  }
  store<u64>(BOUNCE, read64(linear));
  if (size == 10) store<u16>(BOUNCE, read16(linear + 8) as u16, 8);
}

function storeOperand(linear: u64, size: u32): void {
  switch (size) {
    case 2:
      return write16(linear, load<u16>(BOUNCE));
    case 4:
      return write32(linear, load<u32>(BOUNCE));
  }
  write64(linear, load<u64>(BOUNCE));
  if (size == 10) write16(linear + 8, load<u16>(BOUNCE, 8));
}

/** FLDENV, FNSTENV, FRSTOR, FNSAVE: 14 or 28 bytes, the last two with 80 more. */
function environment(op: usize, opcode: u32, modrm: u32, stores: bool): void {
  const narrow = sizeOf(op) == 2;
  const bytes: u32 = (narrow ? 14 : 28) + (opcode == 5 ? 80 : 0);
  x87Environment(opcode, modrm, addressOf(op, bytes, stores), narrow);
}

/** An x87 instruction: the record has opcode, ModRM and form. */
export function x87Operation(op: usize): void {
  const word = load<u32>(op, OP_IMMEDIATE);
  const opcode = word & 7, modrm = (word >> 8) & 0xff, form = word >> 16;
  checkX87(form);
  const size = form & X87_SIZE, stores = (form & X87_STORE) != 0;
  if (form & X87_ENVIRONMENT) return environment(op, opcode, modrm, stores);
  let linear: u64 = 0, offset: u64 = 0;
  if (size) {
    linear = addressOf(op, size, stores);
    offset = offsetOf(op);
    if (stores) probeWrite(linear, size);
    else loadOperand(linear, size);
  }
  const rip = load<u64>(load<u32>(CURRENT_BLOCK), BLOCK_RIP) + load<u8>(op, OP_OFFSET);
  const result = x87(opcode, modrm, BOUNCE, arithmeticFlags(), rip, offset);
  if (stores && result) storeOperand(linear, size);
  if (form & X87_GIVES_AX) store<u16>(GPR, result as u16);
  if (form & X87_GIVES_FLAGS) setArithmetic(result);
}
