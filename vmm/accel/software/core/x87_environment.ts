// FNSTENV, FLDENV, FNSAVE, FRSTOR (SDM 1, 8.1.10): four formats of the environment, then the registers.
import { CR0, RFLAGS } from "./layout";
import { probeRead, probeWrite, read16, read32, read64, write16, write32, write64 } from "./memory";
import { fninit } from "./x87";
import {
  st,
  updateSummary,
  X87_FCW,
  X87_FDP,
  X87_FIP,
  X87_FOP,
  X87_FSW,
  X87_REGISTERS,
  X87_TAGS,
} from "./x87_state";

const CR0_PE: u64 = 1;
const RFLAGS_VM: u64 = 1 << 17;
const RESERVED_ONES: u32 = 0xffff0000;

/** Real-address and virtual-8086 mode have formats of their own. */
function realFormat(): bool {
  return (load<u64>(CR0) & CR0_PE) == 0 || (load<u64>(RFLAGS) & RFLAGS_VM) != 0;
}

/** Two bits for each physical register: 0 valid, 1 zero, 2 special, 3 empty. */
export function tagWord(): u32 {
  let word: u32 = 0;
  const inUse = load<u8>(X87_TAGS) as u32;
  for (let i: u32 = 0; i < 8; i++) {
    let tag: u32 = 0;
    const register = X87_REGISTERS + (i << 4);
    const exponent = (load<u16>(register, 8) as u32) & 0x7fff;
    const significand = load<u64>(register);
    if ((inUse & (1 << i)) == 0) tag = 3;
    else if (exponent == 0 && significand == 0) tag = 1;
    else if (exponent == 0 || exponent == 0x7fff || (significand >> 63) == 0) tag = 2;
    word |= tag << (i << 1);
  }
  return word;
}

function setTagWord(word: u32): void {
  let inUse: u32 = 0;
  for (let i: u32 = 0; i < 8; i++) {
    if (((word >> (i << 1)) & 3) != 3) inUse |= 1 << i;
  }
  store<u8>(X87_TAGS, inUse);
}

function storeEnvironment32(at: u64, real: bool): void {
  const ip = load<u64>(X87_FIP) as u32;
  const dp = load<u64>(X87_FDP) as u32;
  const opcode = (load<u16>(X87_FOP) as u32) & 0x7ff;
  write32(at, load<u16>(X87_FCW) | RESERVED_ONES);
  write32(at + 4, load<u16>(X87_FSW) | RESERVED_ONES);
  write32(at + 8, tagWord() | RESERVED_ONES);
  if (real) {
    write32(at + 12, (ip & 0xffff) | RESERVED_ONES);
    write32(at + 16, opcode | ((ip >> 16) << 12));
    write32(at + 20, (dp & 0xffff) | RESERVED_ONES);
    write32(at + 24, (dp >> 16) << 12);
  } else {
    // CS and DS are not kept (CPUID.(7,0).EBX[13]).
    write32(at + 12, ip);
    write32(at + 16, opcode << 16);
    write32(at + 20, dp);
    write32(at + 24, RESERVED_ONES);
  }
}

function storeEnvironment16(at: u64, real: bool): void {
  const ip = load<u64>(X87_FIP) as u32;
  const dp = load<u64>(X87_FDP) as u32;
  const opcode = (load<u16>(X87_FOP) as u32) & 0x7ff;
  write16(at, load<u16>(X87_FCW));
  write16(at + 2, load<u16>(X87_FSW));
  write16(at + 4, tagWord());
  write16(at + 6, ip & 0xffff);
  write16(at + 8, real ? opcode | (((ip >> 16) & 15) << 12) : 0);
  write16(at + 10, dp & 0xffff);
  write16(at + 12, real ? ((dp >> 16) & 15) << 12 : 0);
}

/** FNSTENV's 28 or 14 bytes. */
function storeEnvironment(at: u64, operand16: bool): void {
  if (operand16) storeEnvironment16(at, realFormat());
  else storeEnvironment32(at, realFormat());
}

function loadEnvironment32(at: u64, real: bool): void {
  const low = read32(at + 12);
  const middle = read32(at + 16);
  const high = read32(at + 20);
  const last = read32(at + 24);
  if (real) {
    store<u64>(X87_FIP, ((low & 0xffff) | (((middle >> 12) & 0xffff) << 16)) as u64);
    store<u64>(X87_FDP, ((high & 0xffff) | (((last >> 12) & 0xffff) << 16)) as u64);
    store<u16>(X87_FOP, middle & 0x7ff);
  } else {
    store<u64>(X87_FIP, low as u64);
    store<u64>(X87_FDP, high as u64);
    store<u16>(X87_FOP, (middle >> 16) & 0x7ff);
  }
}

function loadEnvironment16(at: u64, real: bool): void {
  const middle = real ? read16(at + 8) : 0;
  const last = real ? read16(at + 12) : 0;
  store<u64>(X87_FIP, (read16(at + 6) | ((middle >> 12) << 16)) as u64);
  store<u64>(X87_FDP, (read16(at + 10) | ((last >> 12) << 16)) as u64);
  store<u16>(X87_FOP, middle & 0x7ff);
}

function loadEnvironment(at: u64, operand16: bool): void {
  const unit: u64 = operand16 ? 2 : 4;
  const fcw = read16(at);
  const fsw = read16(at + unit);
  const tags = read16(at + 2 * unit);
  if (operand16) loadEnvironment16(at, realFormat());
  else loadEnvironment32(at, realFormat());
  store<u16>(X87_FCW, (fcw & 0x1f3f) | 0x40);
  store<u16>(X87_FSW, fsw);
  setTagWord(tags);
  updateSummary();
}

/** Executes D9 or DD (minus D8) /4 or /6; `at` is linear. */
export function x87Environment(opcode: u32, modrm: u32, at: u64, operand16: bool): void {
  const environment: u64 = operand16 ? 14 : 28;
  const all = opcode == 5;
  const size = (environment + (all ? 80 : 0)) as u32;
  if (((modrm >> 3) & 7) == 4) {
    probeRead(at, size);
    loadEnvironment(at, operand16);
    for (let i: u32 = 0; all && i < 8; i++) {
      const register = at + environment + i * 10;
      store<u64>(st(i), read64(register));
      store<u16>(st(i), read16(register + 8), 8);
    }
    return;
  }
  probeWrite(at, size);
  storeEnvironment(at, operand16);
  if (!all) {
    // FNSTENV masks all exceptions.
    store<u16>(X87_FCW, load<u16>(X87_FCW) | 0x3f);
    updateSummary();
    return;
  }
  for (let i: u32 = 0; i < 8; i++) {
    const register = at + environment + i * 10;
    write64(register, load<u64>(st(i)));
    write16(register + 8, load<u16>(st(i), 8));
  }
  fninit();
}
