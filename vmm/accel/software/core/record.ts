// The records that the decoder makes and the dispatch loop executes.

// One decoded operation: 32 bytes. Register operands are addresses in the state's page.
export const OP_SIZE: usize = 32;
/** u16: dense operation number, see ops.ts. */
export const OP_CODE: usize = 0;
/** u8: length of the instruction. */
export const OP_LENGTH: usize = 2;
/** u8: where it begins in its block. */
export const OP_OFFSET: usize = 3;
/** u16: address of the destination register. */
export const OP_DST: usize = 4;
/** u16: address of the source register. */
export const OP_SRC: usize = 6;
/** u16: address of the base register of the memory operand. */
export const OP_BASE: usize = 8;
/** u16: address of its index register. */
export const OP_INDEX: usize = 10;
/** u8: how far the index is shifted. */
export const OP_SCALE: usize = 12;
/** u8: how its address is made, see EA_*. */
export const OP_EA: usize = 13;
/** u8: number of its segment, and which operands are what. */
export const OP_SEGMENT: usize = 14;
/** Bits of that: one operand is memory; it is the source; the source is the immediate. */
export const OPERAND_MEMORY: u32 = 0x80;
export const OPERAND_MEMORY_SOURCE: u32 = 0x20;
export const OPERAND_IMMEDIATE: u32 = 0x40;
/** u8: operand size in bytes (low 4 bits) and prefixes. */
export const OP_FLAGS: usize = 15;
export const FLAG_LOCK: u32 = 0x10;
export const FLAG_REP: u32 = 0x20;
export const FLAG_REPNE: u32 = 0x40;
/** There was a 66 prefix. */
export const FLAG_66: u32 = 0x80;
/** u64: displacement; for RIP-relative operands the address itself. */
export const OP_DISPLACEMENT: usize = 16;
/** u64: immediate, sign-extended; for branches the target. */
export const OP_IMMEDIATE: usize = 24;

/** 64-bit, no segment base. */
export const EA_FLAT64: u32 = 0;
/** 64-bit plus the base of FS or GS. */
export const EA_BASE64: u32 = 1;
/** 32-bit in a flat segment (base 0, limit 4 GiB), or 64-bit mode with 67: no base. */
export const EA_FLAT32: u32 = 2;
/** 67 in 64-bit mode with FS or GS. */
export const EA_BASE32: u32 = 3;
/** 32-bit with the segment's checks. */
export const EA_CHECKED32: u32 = 4;
/** 16-bit with the segment's checks. */
export const EA_CHECKED16: u32 = 5;

// The head of a block; its operations follow at once.
export const BLOCK_SIZE: usize = 64;
/** u64: RIP of its first instruction (an offset in CS). */
export const BLOCK_RIP: usize = 0;
/** u32: where its bytes are in memory. */
export const BLOCK_CODE: usize = 8;
/** u32: the mode it was decoded in. */
export const BLOCK_MODE: usize = 12;
/** u16: how many bytes it was decoded from. */
export const BLOCK_LENGTH: usize = 16;
/** u16: how many instructions it has. */
export const BLOCK_COUNT: usize = 18;
/** u32: next block in the hash chain. */
export const BLOCK_NEXT: usize = 20;
/** u32: next block of the same page. */
export const BLOCK_PAGE_NEXT: usize = 24;
/** u32: the block after it where it falls through or does not branch, and the epoch of that link. */
export const BLOCK_LINK: usize = 28;
/** u32: the block that its branch leads to, and the epoch of that link. */
export const BLOCK_TAKEN: usize = 36;
/** u32: the code epoch in which its bytes were found unchanged last. */
export const BLOCK_CODE_EPOCH: usize = 44;
/** u64, u32: CS base and limit, since the same bytes may be reached by several. */
export const BLOCK_CS_BASE: usize = 48;
export const BLOCK_CS_LIMIT: usize = 56;
/** u32: how many slices have ended in it. */
export const BLOCK_HEAT: usize = 60;
/** How far a link's epoch is from it. */
export const LINK_EPOCH: usize = 4;
