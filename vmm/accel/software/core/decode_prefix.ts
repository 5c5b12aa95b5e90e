// Prefixes and the opcode after them (SDM 2A, 2.1 and 2.2), and the sizes that follow from them.
import { MODE } from "./derived";
import { fetch8 } from "./fetch";
import { GPR } from "./layout";
import { MODE_64, MODE_D } from "./mode";
import * as table from "./table";

export let rex: u32 = 0;
export let hasRex: bool = false;
/** The last of F2 and F3, or 0. */
export let repeat: u32 = 0;
export let operand66: bool = false;
let address67: bool = false;
let lock: bool = false;
/** The segment of an overriding prefix, or NO_SEGMENT. */
let overriding: u32 = 0;
const NO_SEGMENT: u32 = 0xff;
/** The opcode; of two bytes, 0x0f00 and the second. */
export let opcode: u32 = 0;

// @ts-ignore: decorator
@inline
export function long(): bool {
  return (load<u32>(MODE) & MODE_64) != 0;
}

/** Where a general register is; of the first eight byte registers without REX, 4 to 7 are AH to BH. */
export function register(number: u32, bytes: u32): u16 {
  if (bytes == 1 && !hasRex && number >= 4 && number < 8) {
    return (GPR + ((number - 4) << 3) + 1) as u16;
  }
  return (GPR + (number << 3)) as u16;
}

/** Reads prefixes; returns the first byte that is none. */
function prefixes(): u32 {
  rex = 0;
  hasRex = false;
  repeat = 0;
  operand66 = address67 = lock = false;
  overriding = NO_SEGMENT;
  // More prefixes than an instruction may have bytes are refused for its length.
  for (let i = 0; i < 15; i++) {
    const byte = fetch8();
    if (long() && (byte & 0xf0) == 0x40) {
      rex = byte;
      hasRex = true;
      continue;
    }
    if (!isPrefix(byte)) return byte;
    // REX counts only right before the opcode.
    rex = 0;
    hasRex = false;
  }
  return 0x90;
}

function isPrefix(byte: u32): bool {
  switch (byte) {
    case 0x66:
      operand66 = true;
      return true;
    case 0x67:
      address67 = true;
      return true;
    case 0xf0:
      lock = true;
      return true;
    case 0xf2:
    case 0xf3:
      repeat = byte;
      return true;
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
      if (!long()) overriding = (byte >> 3) & 3;
      return true;
    case 0x64:
    case 0x65:
      overriding = byte - 0x60;
      return true;
  }
  return false;
}

/** Reads prefixes and the opcode. */
export function readOpcode(): void {
  opcode = prefixes();
  if (opcode == 0x0f) opcode = 0x0f00 | fetch8();
}

export function locked(): bool {
  return lock;
}

/** The operand size in bytes of a size in the table. */
export function operandSize(kind: u32): u32 {
  const narrow = operand66 != ((load<u32>(MODE) & MODE_D) == 0);
  switch (kind) {
    case table.SIZE_B:
      return 1;
    case table.SIZE_W:
      return 2;
    case table.SIZE_Y:
      return rex & 8 ? 8 : 4;
    case table.SIZE_F:
      if (long()) return 8;
      break;
    case table.SIZE_Q:
      if (long()) return operand66 && !(rex & 8) ? 2 : 8;
  }
  return rex & 8 ? 8 : narrow ? 2 : 4;
}

/** Address size in bytes. */
export function addressSize(): u32 {
  if (long()) return address67 ? 4 : 8;
  return address67 != ((load<u32>(MODE) & MODE_D) == 0) ? 2 : 4;
}

/** Whether an overriding has named a segment, FS and GS in 64-bit mode. */
export function segmentOr(segment: u32): u32 {
  return overriding == NO_SEGMENT ? segment : overriding;
}
