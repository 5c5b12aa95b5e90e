/**
 * The local APIC's registers by name, and one LAPIC's state as words that any thread may look at.
 *
 * Names and offsets are those of Intel's SDM, volume 3, chapter 12 "Advanced Programmable Interrupt
 * Controller (APIC)".
 *
 * @module
 */
import { lapicOffset, lapicState } from "./state.ts";

/** Register offsets in the page (SDM, table 12-1); the number of an x2APIC MSR is 0x800 + offset / 16. */
export const Register = {
  ID: 0x020,
  VERSION: 0x030,
  TPR: 0x080,
  APR: 0x090,
  PPR: 0x0a0,
  EOI: 0x0b0,
  LDR: 0x0d0,
  DFR: 0x0e0,
  SVR: 0x0f0,
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ESR: 0x280,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  LVT_TIMER: 0x320,
  LVT_THERMAL: 0x330,
  LVT_PERFORMANCE: 0x340,
  LVT_LINT0: 0x350,
  LVT_LINT1: 0x360,
  LVT_ERROR: 0x370,
  TIMER_INITIAL: 0x380,
  TIMER_CURRENT: 0x390,
  TIMER_DIVIDE: 0x3e0,
  SELF_IPI: 0x3f0,
} as const;

/** Delivery modes (12.5.1, 12.6.1). */
export const Delivery = {
  FIXED: 0,
  LOWEST_PRIORITY: 1,
  SMI: 2,
  NMI: 4,
  INIT: 5,
  STARTUP: 6,
  EXTINT: 7,
} as const;

/** Bits of the ICR's low word (12.6.1), of an LVT entry (12.5.1) and of messages. */
export const Command = {
  VECTOR: 0xff,
  MODE_SHIFT: 8,
  MODE: 7 << 8,
  LOGICAL: 1 << 11,
  /** Delivery status. */
  BUSY: 1 << 12,
  ASSERT: 1 << 14,
  LEVEL: 1 << 15,
  /** Of an LVT entry. */
  MASK: 1 << 16,
  SHORTHAND: 3 << 18,
  SELF: 1 << 18,
  ALL: 2 << 18,
  ALL_BUT_SELF: 3 << 18,
} as const;

/** Bits of the spurious interrupt vector register (12.9). */
export const Svr = { VECTOR: 0xff, ENABLE: 0x100, WRITABLE: 0x3ff } as const;

/** Bits of the error status register (12.5.3). */
export const LapicError = { SEND_VECTOR: 0x20, RECEIVE_VECTOR: 0x40, REGISTER: 0x80 } as const;

/** Bits of IA32_APIC_BASE (12.4.4, 12.12.1). */
export const ApicBase = { BSP: 1 << 8, X2APIC: 1 << 10, ENABLE: 1 << 11 } as const;
/** Bytes that a LAPIC's registers take. */
export const LAPIC_SIZE = 0x1000;

/** The page's words in the words of a LAPIC's state; the others follow. */
const word = (field: keyof typeof lapicState.offsets) => lapicState.offsets[field] >> 2;

/** Indices in {@linkcode lapicWords} of what is beside the registers. */
export const Word = {
  BASE_LOW: word("apic_base_low"),
  BASE_HIGH: word("apic_base_high"),
  INITIAL_ID: word("initial_id"),
  EVENTS: word("events"),
  SIPI_VECTOR: word("sipi_vector"),
  ERRORS: word("errors"),
  TSC_DEADLINE_LOW: word("tsc_deadline_low"),
  TSC_DEADLINE_HIGH: word("tsc_deadline_high"),
  CLOCK_REQUEST: word("clock_request"),
} as const;

/** The state of vCPU `index`'s LAPIC as words: registers at a quarter of their offsets. */
export function lapicWords(buffer: ArrayBufferLike, index: number): Int32Array {
  return new Int32Array(buffer, lapicOffset(index), lapicState.size >> 2);
}

/**
 * The highest vector that is set in one of the three 256-bit registers.
 *
 * @param register ISR, TMR or IRR
 * @returns -1 if there is none
 */
export function highestVector(words: Int32Array, register: number): number {
  for (let i = 7; i >= 0; i--) {
    const bits = words[(register >> 2) + 4 * i];
    if (bits !== 0) return 32 * i + 31 - Math.clz32(bits);
  }
  return -1;
}

/** Index of the word that holds a vector's bit in ISR, TMR or IRR; the bit is `vector & 31`. */
export function vectorWord(register: number, vector: number): number {
  return (register >> 2) + 4 * (vector >> 5);
}
