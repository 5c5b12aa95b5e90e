// Where the CPU's private tables are, between its static data and guest RAM (layout.ts: RAM).

/** TLBs: supervisor, supervisor with SMAP lifted, user, and one that stays empty. */
export const TLBS: usize = 0x10_0000;
/** u32 for each slot of the hash of blocks. */
export const BLOCK_HASH: usize = 0x20_0000;
export const BLOCK_HASH_SLOTS: u32 = 0x1_0000;
/** Blocks by RIP: 16 bytes a slot, see block.ts. */
export const JUMPS: usize = 0x28_0000;
export const JUMP_SLOTS: u32 = 0x4000;
/** u32 for each page of RAM: the first block decoded from it, 0 if none. */
export const CODE_PAGES: usize = 0x40_0000;
/** Decoded blocks. */
export const BLOCKS: usize = 0x100_0000;
export const BLOCKS_END: usize = 0x300_0000;
