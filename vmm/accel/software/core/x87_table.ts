// The memory operands of the x87 instructions, and what the register forms exchange with the integer
// side: what the decoder has to know of opcodes D8 to DF.

/** The low byte of an entry: bytes in memory; 0 is none. */
export const X87_SIZE: u32 = 0xff;
/** The operand is written. */
export const X87_STORE: u32 = 0x100;
/** It neither waits for a pending exception nor raises #MF. */
export const X87_NO_WAIT: u32 = 0x200;
/** FLDENV, FNSTENV, FRSTOR, FNSAVE: call x87Environment(); the operand's size is by mode. */
export const X87_ENVIRONMENT: u32 = 0x400;
/** FCMOVcc: x87() takes RFLAGS. */
export const X87_TAKES_FLAGS: u32 = 0x800;
/** FCOMI and the like: x87() returns the new ZF, PF and CF; OF, SF and AF become 0. */
export const X87_GIVES_FLAGS: u32 = 0x1000;
/** FNSTSW AX: x87() returns AX. */
export const X87_GIVES_AX: u32 = 0x2000;
/** There is no such instruction. */
export const X87_UNDEFINED: u32 = 0x4000;

const UD: u16 = 0x4000;

/** By opcode - D8 and ModRM.reg. */
const MEMORY: StaticArray<u16> = [
  4, 4, 4, 4, 4, 4, 4, 4, // D8: arithmetic, m32fp
  4, UD, 0x104, 0x104, 0x400, 2, 0x700, 0x302, // D9: FLD FST FSTP m32fp, FLDENV FLDCW FNSTENV FNSTCW
  4, 4, 4, 4, 4, 4, 4, 4, // DA: arithmetic, m32int
  4, 0x104, 0x104, 0x104, UD, 10, UD, 0x10a, // DB: FILD FISTTP FIST FISTP m32int, FLD FSTP m80fp
  8, 8, 8, 8, 8, 8, 8, 8, // DC: arithmetic, m64fp
  8, 0x108, 0x108, 0x108, 0x400, UD, 0x700, 0x302, // DD: FLD FISTTP FST FSTP, FRSTOR FNSAVE FNSTSW
  2, 2, 2, 2, 2, 2, 2, 2, // DE: arithmetic, m16int
  2, 0x102, 0x102, 0x102, 10, 8, 0x10a, 0x108, // DF: FILD FISTTP FIST FISTP m16int, FBLD FILD FBSTP FISTP
];

/** By opcode - D8 and ModRM.reg, for mod = 3; where rm matters as well, see x87Form. */
const REGISTER: StaticArray<u16> = [
  0, 0, 0, 0, 0, 0, 0, 0, // D8
  0, 0, 0, 0, 0, 0, 0, 0, // D9
  0x800, 0x800, 0x800, 0x800, UD, 0, UD, UD, // DA: FCMOVcc, FUCOMPP
  0x800, 0x800, 0x800, 0x800, 0, 0x1000, 0x1000, UD, // DB: FCMOVNcc, FNCLEX FNINIT, FUCOMI FCOMI
  0, 0, 0, 0, 0, 0, 0, 0, // DC
  0, 0, 0, 0, 0, 0, UD, UD, // DD
  0, 0, 0, 0, 0, 0, 0, 0, // DE
  0, 0, 0, 0, 0, 0x1000, 0x1000, UD, // DF: FNSTSW AX, FUCOMIP FCOMIP
];

/** What an x87 instruction needs; opcode is D8 to DF minus D8. */
export function x87Form(opcode: u32, modrm: u32): u32 {
  const index = opcode * 8 + ((modrm >> 3) & 7);
  if (modrm < 0xc0) return unchecked(MEMORY[index]);
  const both = (opcode << 8) | modrm;
  // D9 D1-D7, D9 E2 E3 E6 E7, D9 EF, DA E8 EA-EF, DB E5-E7, DE D8 DA-DF, DF E1-E7
  if (opcode == 1) {
    if (modrm > 0xd0 && modrm < 0xd8) return X87_UNDEFINED;
    if (modrm == 0xe2 || modrm == 0xe3 || modrm == 0xe6 || modrm == 0xe7) return X87_UNDEFINED;
    if (modrm == 0xef) return X87_UNDEFINED;
  }
  if (opcode == 2 && modrm >= 0xe8) return modrm == 0xe9 ? 0 : X87_UNDEFINED;
  if (opcode == 3 && modrm >= 0xe0 && modrm < 0xe8) {
    return modrm > 0xe4 ? X87_UNDEFINED : X87_NO_WAIT;
  }
  if (opcode == 6 && modrm >= 0xd8 && modrm < 0xe0) return modrm == 0xd9 ? 0 : X87_UNDEFINED;
  if (both == 0x7e0) return X87_GIVES_AX | X87_NO_WAIT;
  if (opcode == 7 && modrm > 0xe0 && modrm < 0xe8) return X87_UNDEFINED;
  return unchecked(REGISTER[index]);
}
