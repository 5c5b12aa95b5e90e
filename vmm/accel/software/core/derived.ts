// What the CPU derives from its state and keeps beside it: rebuilt by refresh(), saved by nobody.
// It is memory at constant addresses, which is what compiled code reads fastest.

const DERIVED: usize = 0x6000;

/** u32: the decoded operation that executes. */
export const CURRENT_OP: usize = DERIVED;
/** u32: the block it belongs to. */
export const CURRENT_BLOCK: usize = DERIVED + 4;
/** u32: privilege level, 0 in real mode and 3 in virtual-8086 mode. */
export const CPL: usize = DERIVED + 8;
/** u32: the TLB of the present privilege, see paging.ts. */
export const TLB: usize = DERIVED + 12;
/** u32: bits that tell blocks of one mode from those of another, see mode.ts. */
export const MODE: usize = DERIVED + 16;
/** u32: which bits of `attention` matter now. */
export const ATTENTION_MASK: usize = DERIVED + 20;
/** u32: changes when links between blocks must be looked up again. */
export const EPOCH: usize = DERIVED + 24;
/** i32: instructions left of the budget of run(). */
export const BUDGET: usize = DERIVED + 28;
/** u32: the kind of operation that the lazy flags come from, see flags.ts. */
export const FLAGS_KIND: usize = DERIVED + 32;
/** u64: that operation's result, sign-extended to 64 bits. */
export const FLAGS_RESULT: usize = DERIVED + 40;
/** u64: its second operand (or what the kind says). */
export const FLAGS_SOURCE: usize = DERIVED + 48;
/** u64: its first operand. */
export const FLAGS_DESTINATION: usize = DERIVED + 88;
/** u64: physical address bits that are reserved in page table entries. */
export const RESERVED_ADDRESS: usize = DERIVED + 56;
/** 16 bytes: an operand on its way. */
export const BOUNCE: usize = DERIVED + 64;
/** u32: address of the link that the next block is to be entered in, 0 if in none. */
export const LINK_FROM: usize = DERIVED + 96;
/** u64, u32: base and limit of CS when links were made. */
export const CODE_BASE: usize = DERIVED + 104;
export const CODE_LIMIT: usize = DERIVED + 112;
/** u32: changes when code may have been written that no one was told of, or was. */
export const CODE_EPOCH: usize = DERIVED + 120;
/** u32: a block that the host should compile, 0 if none. */
export const HOT_BLOCK: usize = DERIVED + 116;
