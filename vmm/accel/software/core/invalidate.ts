// Decoded blocks whose bytes are written: self-modifying code.
import { CURRENT_BLOCK, CURRENT_OP } from "./derived";
import { BLOCKS, CODE_PAGES } from "./map";
import { RAM } from "./layout";
import {
  BLOCK_CODE,
  BLOCK_COUNT,
  BLOCK_LENGTH,
  BLOCK_PAGE_NEXT,
  BLOCK_SIZE,
  OP_CODE,
  OP_SIZE,
} from "./record";
import { OP_LEAVE_BLOCK } from "./ops";
import { newCodeEpoch } from "./tlb";

/** What a block's length becomes when its bytes have changed: no lookup finds it any more. */
export const DEAD: u16 = 0;

/**
 * Drops the blocks of a page that overlap bytes which are about to be written.
 *
 * @param address first of the bytes, in memory
 * @param size how many; all in one page
 */
export function codeWritten(address: usize, size: u32): void {
  let from = CODE_PAGES + (((address - RAM) >> 12) << 2);
  let dropped = false;
  while (true) {
    const block = load<u32>(from) as usize;
    if (block == 0) break;
    const code = load<u32>(block, BLOCK_CODE) as usize;
    if (code < address + size && address < code + load<u16>(block, BLOCK_LENGTH)) {
      store<u32>(from, load<u32>(block, BLOCK_PAGE_NEXT));
      store<u16>(block, DEAD, BLOCK_LENGTH);
      if (block == load<u32>(CURRENT_BLOCK)) leaveAfterCurrent(block);
      dropped = true;
    } else {
      from = block + BLOCK_PAGE_NEXT;
    }
  }
  if (dropped) newCodeEpoch();
}

/** Has the block that executes end after the present instruction. */
function leaveAfterCurrent(block: usize): void {
  const op = load<u32>(CURRENT_OP) as usize;
  const end = block + BLOCK_SIZE + (load<u16>(block, BLOCK_COUNT) as usize) * OP_SIZE;
  if (op >= BLOCKS && op + OP_SIZE <= end) store<u16>(op + OP_SIZE, OP_LEAVE_BLOCK, OP_CODE);
}
