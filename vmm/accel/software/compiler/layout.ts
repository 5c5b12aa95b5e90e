/**
 * What compiled code and the CPU's own sources agree on: where things are in the memory. A test holds
 * these numbers against `core/record.ts`, `core/derived.ts`, `core/tlb.ts` and `core/flags.ts`, which say
 * what each is.
 *
 * @module
 */

/** A decoded operation. */
export const Op = {
  SIZE: 32,
  CODE: 0,
  LENGTH: 2,
  OFFSET: 3,
  DST: 4,
  SRC: 6,
  BASE: 8,
  INDEX: 10,
  SCALE: 12,
  EA: 13,
  SEGMENT: 14,
  FLAGS: 15,
  DISPLACEMENT: 16,
  IMMEDIATE: 24,
} as const;

/** Bits of an operation's segment byte. */
export const Operand = { MEMORY: 0x80, MEMORY_SOURCE: 0x20, IMMEDIATE: 0x40 } as const;

/** Bits of an operation's flags byte. */
export const Flag = { LOCK: 0x10 } as const;

/** Ways in which an address is made that need no segment's checks. */
export const Ea = { FLAT64: 0, BASE64: 1, FLAT32: 2 } as const;

/** The head of a block; its operations follow. */
export const Block = {
  SIZE: 64,
  RIP: 0,
  CODE: 8,
  MODE: 12,
  LENGTH: 16,
  COUNT: 18,
  LINK: 28,
  TAKEN: 36,
  CS_BASE: 48,
  CS_LIMIT: 56,
} as const;

/** What the CPU derives from its state. */
export const Derived = {
  CURRENT_BLOCK: 0x6004,
  TLB: 0x600c,
  ATTENTION_MASK: 0x6014,
  BUDGET: 0x601c,
  FLAGS_KIND: 0x6020,
  FLAGS_RESULT: 0x6028,
  FLAGS_SOURCE: 0x6030,
  FLAGS_DESTINATION: 0x6058,
  HOT_BLOCK: 0x6074,
  CODE_EPOCH: 0x6078,
} as const;

/** An entry of a TLB, and how many there are. */
export const Tlb = { READ: 0, WRITE: 8, ADDEND: 24, ENTRIES: 1024 } as const;

/** Where the arithmetic flags come from. */
export const Kind = { SUB: 2, LOGIC: 3, ADD: 1, PARTS: 4, INC: 5, DEC: 6 } as const;
