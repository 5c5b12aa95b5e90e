// Numbers of decoded operations, dense, since the dispatch loop is one table.

/** Leaves the block before this instruction, whose bytes have changed. */
export const OP_LEAVE_BLOCK: u16 = 0;
