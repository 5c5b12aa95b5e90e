/**
 * Which registers of a local APIC can be read and written, by mode (Intel SDM volume 3, tables 12-1
 * and 12-6). Reads of the remote read register and of the EOI register are not offered, as in KVM.
 *
 * @module
 */
import { Register } from "./lapic_registers.ts";

const READ = 1;
const WRITE = 2;
/** Access in x2APIC mode is two bits further up than that in xAPIC mode. */
const X2APIC_SHIFT = 2;
const BOTH = (access: number) => access | access << X2APIC_SHIFT;

/** Access bits by register number, a register each 16 bytes. */
const access = new Uint8Array(0x100);

function allow(bits: number, ...registers: readonly number[]): void {
  for (const register of registers) access[register >> 4] |= bits;
}

const eight = (first: number) => Array.from({ length: 8 }, (_, i) => first + 16 * i);

allow(BOTH(READ), Register.VERSION, Register.PPR, Register.TIMER_CURRENT);
allow(BOTH(READ), ...eight(Register.ISR), ...eight(Register.TMR), ...eight(Register.IRR));
allow(BOTH(READ), Register.ID, Register.LDR);
allow(WRITE, Register.ID, Register.LDR);
allow(READ, Register.APR);
allow(READ | WRITE, Register.DFR, Register.ICR_HIGH);
allow(BOTH(WRITE), Register.EOI);
allow(WRITE << X2APIC_SHIFT, Register.SELF_IPI);
allow(
  BOTH(READ | WRITE),
  Register.TPR,
  Register.SVR,
  Register.ESR,
  Register.ICR_LOW,
  Register.LVT_TIMER,
  Register.LVT_THERMAL,
  Register.LVT_PERFORMANCE,
  Register.LVT_LINT0,
  Register.LVT_LINT1,
  Register.LVT_ERROR,
  Register.TIMER_INITIAL,
  Register.TIMER_DIVIDE,
);

function allows(register: number, isX2apic: boolean, bits: number): boolean {
  return ((access[register >> 4] >> (isX2apic ? X2APIC_SHIFT : 0)) & bits) !== 0;
}

/** Whether the register at an offset that is a multiple of 16 can be read. */
export function isReadable(register: number, isX2apic: boolean): boolean {
  return allows(register, isX2apic, READ);
}

/** Whether the register at an offset that is a multiple of 16 can be written. */
export function isWritable(register: number, isX2apic: boolean): boolean {
  return allows(register, isX2apic, WRITE);
}

/** Whether there is no register at an offset in xAPIC mode: touching it is an error (12.5.3). */
export function isReserved(register: number): boolean {
  return !allows(register, false, READ | WRITE);
}
