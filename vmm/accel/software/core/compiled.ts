// Blocks that have been compiled to WebAssembly: what the host's compiler installs, and how it is entered.
//
// A region is some blocks of one page of code, compiled to one function. Each of them that may be entered
// from outside has a block in its place whose only operation enters the function. The blocks that were
// compiled stay: where the function does not go on (an access that the TLB does not know, an operation
// that it has none of, something that wants attention) it stores the state and says at which of their
// operations the dispatch loop goes on. So the function has no faults, no MMIO and no exits.
import { enterBlock, enterJump, MOST_SIZE, nextBlock, sameBytes } from "./block";
import { afford } from "./branch";
import { CODE_EPOCH, CURRENT_BLOCK, HOT_BLOCK, MODE } from "./derived";
import { DEAD } from "./invalidate";
import { BLOCKS_END } from "./map";
import { MODE_STEP } from "./mode";
import { OP_COMPILED } from "./ops";
import { pageIndex } from "./physical";
import {
  BLOCK_CODE,
  BLOCK_COUNT,
  BLOCK_HEAT,
  BLOCK_LENGTH,
  BLOCK_LINK,
  BLOCK_SIZE,
  BLOCK_TAKEN,
  LINK_EPOCH,
  OP_CODE,
  OP_DISPLACEMENT,
  OP_IMMEDIATE,
  OP_SIZE,
} from "./record";
import { tellDecoded } from "./sharing";
import { newEpoch } from "./tlb";

/** A block is compiled when so many slices have ended in it. */
const HOT: u32 = 8;
/** The same for one that was compiled with another that was written since: it may be written again. */
const HOT_AGAIN: u32 = 64;

// A region: the code epoch in which its blocks were looked at last, its function, its blocks.
const REGION_EPOCH: usize = 0;
const REGION_FUNCTION: usize = 4;
const REGION_COUNT: usize = 8;
const REGION_BLOCKS: usize = 12;

/** Takes note of the block in which a slice has ended. */
export function noteHeat(): void {
  const block = load<u32>(CURRENT_BLOCK) as usize;
  if (load<u32>(MODE) & MODE_STEP || load<u16>(block, BLOCK_LENGTH) == DEAD) return;
  if (load<u16>(block + BLOCK_SIZE, OP_CODE) == OP_COMPILED) return;
  const heat = load<u32>(block, BLOCK_HEAT) + 1;
  store<u32>(block, heat, BLOCK_HEAT);
  if (heat == HOT) store<u32>(HOT_BLOCK, block as u32);
}

/**
 * Makes a region.
 *
 * @param count how many blocks it has; the host enters them in the words that are returned
 * @param entry the number of its function
 * @returns where its blocks go, or 0 if there is no room
 */
export function makeRegion(count: u32, entry: u32): usize {
  const size = REGION_BLOCKS + (count << 2);
  // What the blocks in place of its own take, too.
  if (nextBlock() + size + (count as usize) * MOST_SIZE > BLOCKS_END) return 0;
  const region = nextBlock(size);
  store<u32>(region, load<u32>(CODE_EPOCH) - 1, REGION_EPOCH);
  store<u32>(region, entry, REGION_FUNCTION);
  store<u32>(region, count, REGION_COUNT);
  return region + REGION_BLOCKS;
}

/** Has a region's function in place of one of its blocks, from the next lookup on. */
export function placeCompiled(original: usize, blocks: usize, index: u32): void {
  const block = nextBlock();
  memory.copy(block, original, BLOCK_SIZE);
  store<u16>(block, 0, BLOCK_COUNT);
  store<u32>(block, 0, BLOCK_LINK + LINK_EPOCH);
  store<u32>(block, 0, BLOCK_TAKEN + LINK_EPOCH);
  const op = block + BLOCK_SIZE;
  store<u16>(op, OP_COMPILED as u16, OP_CODE);
  store<u32>(op, index, OP_DISPLACEMENT);
  store<u32>(op, original as u32, OP_DISPLACEMENT + 4);
  store<u32>(op, (blocks - REGION_BLOCKS) as u32, OP_IMMEDIATE);
  enterBlock(block, load<u32>(original, BLOCK_CODE));
  // What it was decoded from, which others may have written since: the next lookup finds that out.
  const kept = original + BLOCK_SIZE + (load<u16>(original, BLOCK_COUNT) as usize + 1) * OP_SIZE;
  memory.copy(op + OP_SIZE, kept, load<u16>(original, BLOCK_LENGTH));
  // The table does not lead to the other any more.
  enterJump(block);
  newEpoch();
}

/** Whether what a region was compiled from is still there; looked at once in a code epoch. */
function stillThere(region: usize): bool {
  const end = region + REGION_BLOCKS + ((load<u32>(region, REGION_COUNT) as usize) << 2);
  let block: usize = 0;
  for (let at = region + REGION_BLOCKS; at < end; at += 4) {
    block = load<u32>(at) as usize;
    const dead = load<u16>(block, BLOCK_LENGTH) == DEAD;
    if (dead || !sameBytes(block, load<u32>(block, BLOCK_CODE) as usize)) return false;
  }
  tellDecoded(pageIndex(load<u32>(block, BLOCK_CODE)));
  store<u32>(region, load<u32>(CODE_EPOCH), REGION_EPOCH);
  return true;
}

/** Executes the function that is in place of a block; returns the operation to go on at. */
export function enterCompiled(block: usize): usize {
  const op = block + BLOCK_SIZE;
  const region = load<u32>(op, OP_IMMEDIATE) as usize;
  if (load<u32>(region, REGION_EPOCH) == load<u32>(CODE_EPOCH) || stillThere(region)) {
    return call_indirect<u32>(load<u32>(region, REGION_FUNCTION), load<u32>(op, OP_DISPLACEMENT));
  }
  store<u16>(block, DEAD, BLOCK_LENGTH);
  // What led to it shall lead to the other.
  newEpoch();
  const original = load<u32>(op, OP_DISPLACEMENT + 4) as usize;
  store<u32>(original, HOT - HOT_AGAIN, BLOCK_HEAT);
  store<u32>(CURRENT_BLOCK, original as u32);
  afford(original);
  return original + BLOCK_SIZE;
}
