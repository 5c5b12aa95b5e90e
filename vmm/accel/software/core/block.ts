// The block cache: decoded instructions by where their bytes are and the mode they were decoded in.
//
// A block is found by RIP in a small table, by address in a hash, or decoded. What leads from one block to
// the next without a lookup (links, the table by RIP) holds for an epoch: whatever may change which code a
// linear address means, or the code itself, begins another. What may have changed code begins a code epoch,
// in each of which a lookup compares the bytes, so code that another CPU or a device has written is noticed
// at the latest then.
import { codeAddress } from "./access";
import { decode } from "./decode";
import {
  CODE_BASE,
  CODE_EPOCH,
  CODE_LIMIT,
  CURRENT_BLOCK,
  EPOCH,
  HOT_BLOCK,
  LINK_FROM,
  MODE,
  TLB,
} from "./derived";
import { raiseGP } from "./fault";
import { beginFetch, beginUncached, fetchCrossed, fetchLength } from "./fetch";
import { DEAD } from "./invalidate";
import { RAM, REGION_ADDRESS, REGION_COUNT, REGION_SIZE, REGION_SIZE_OF, REGIONS, RIP } from "./layout";
import {
  BLOCK_HASH,
  BLOCK_HASH_SLOTS,
  BLOCKS,
  BLOCKS_END,
  CODE_PAGES,
  JUMP_SLOTS,
  JUMPS,
} from "./map";
import { MODE_64, MODE_FLAT_CODE, MODE_STEP } from "./mode";
import { FIRST_ENDING, OP_FALL_THROUGH } from "./ops";
import { pageIndex } from "./physical";
import {
  BLOCK_CODE,
  BLOCK_CODE_EPOCH,
  BLOCK_COUNT,
  BLOCK_CS_BASE,
  BLOCK_CS_LIMIT,
  BLOCK_HEAT,
  BLOCK_LENGTH,
  BLOCK_LINK,
  BLOCK_MODE,
  BLOCK_NEXT,
  BLOCK_PAGE_NEXT,
  BLOCK_RIP,
  BLOCK_SIZE,
  BLOCK_TAKEN,
  LINK_EPOCH,
  OP_CODE,
  OP_LENGTH,
  OP_OFFSET,
  OP_SIZE,
} from "./record";
import { tellDecoded } from "./sharing";
import { dropWriteTags, newEpoch, TLB_ADDEND, TLB_EXECUTE, tlbEntryOf } from "./tlb";

/** A block has at most so many instructions, and begins none after so many bytes. */
const MOST_INSTRUCTIONS: u32 = 48;
const MOST_BYTES: u32 = 200;
/** Room for one block: head, operations, the last one, its bytes. */
export const MOST_SIZE: usize = BLOCK_SIZE + ((MOST_INSTRUCTIONS + 1) as usize) * OP_SIZE + 256;

// A slot of the table by RIP.
const JUMP_RIP: usize = 0;
const JUMP_BLOCK: usize = 8;
const JUMP_EPOCH: usize = 12;

let free: usize = BLOCKS;
let generation: u32 = 0;
/** How many pages RAM has ever had: those of memory that is gone may come back. */
let pages: u32 = 0;

/** How often all blocks have been forgotten. */
export function blockGeneration(): u32 {
  return generation;
}

/** Where the next block goes, after `size` bytes that are taken for something else. */
export function nextBlock(size: usize = 0): usize {
  const taken = free;
  free = (free + size + 31) & ~31;
  return taken;
}

/** How many pages RAM has, with gaps between its regions. */
function pagesOfRam(): u32 {
  let last: u32 = RAM as u32;
  for (let i: usize = 0; i < load<u32>(REGION_COUNT); i++) {
    const region = REGIONS + i * REGION_SIZE_OF;
    last = max(last, load<u32>(region, REGION_ADDRESS) + (load<u64>(region, REGION_SIZE) as u32));
  }
  return (last - (RAM as u32)) >> 12;
}

/** Forgets all blocks. */
export function flushBlocks(): void {
  pages = max(pages, pagesOfRam());
  // A guest may be waiting for it, and as a rule there is nothing to forget then.
  if (free != BLOCKS) {
    memory.fill(BLOCK_HASH, 0, BLOCK_HASH_SLOTS << 2);
    memory.fill(JUMPS, 0, JUMP_SLOTS << 4);
    memory.fill(CODE_PAGES, 0, pages << 2);
    free = BLOCKS;
  }
  store<u32>(HOT_BLOCK, 0);
  generation++;
  // The block that was left is gone, and its link with it.
  store<u32>(LINK_FROM, 0);
  newEpoch();
}

// @ts-ignore: decorator
@inline
function hashSlot(address: usize): usize {
  const mixed = (address ^ (address >> 14)) as u32;
  return BLOCK_HASH + ((mixed & (BLOCK_HASH_SLOTS - 1)) << 2);
}

// @ts-ignore: decorator
@inline
function jumpSlot(rip: u64): usize {
  return JUMPS + ((((rip ^ (rip >> 12)) as u32) & (JUMP_SLOTS - 1)) << 4);
}

/** The block at RIP if the table has it. */
// @ts-ignore: decorator
@inline
export function jumpTarget(rip: u64): usize {
  const slot = jumpSlot(rip);
  if (load<u64>(slot, JUMP_RIP) != rip || load<u32>(slot, JUMP_EPOCH) != load<u32>(EPOCH)) return 0;
  const block = load<u32>(slot, JUMP_BLOCK) as usize;
  return load<u32>(block, BLOCK_MODE) == load<u32>(MODE) ? block : 0;
}

/**
 * The same where a new epoch has begun since: a block of 64-bit mode, which needs no CS, whose bytes nobody
 * can have written and whose address the TLB says is still that.
 */
function revived(rip: u64): usize {
  const slot = jumpSlot(rip);
  const block = load<u32>(slot, JUMP_BLOCK) as usize;
  if (block == 0 || load<u64>(slot, JUMP_RIP) != rip) return 0;
  const mode = load<u32>(MODE);
  if (!(mode & MODE_64) || load<u32>(block, BLOCK_MODE) != mode) return 0;
  if (load<u16>(block, BLOCK_LENGTH) == DEAD) return 0;
  if (load<u32>(block, BLOCK_CODE_EPOCH) != load<u32>(CODE_EPOCH)) return 0;
  const entry = tlbEntryOf(load<u32>(TLB) as usize, rip);
  if (load<u64>(entry, TLB_EXECUTE) != (rip & ~0xfff)) return 0;
  if ((rip as u32) + load<u32>(entry, TLB_ADDEND) != load<u32>(block, BLOCK_CODE)) return 0;
  store<u32>(slot, load<u32>(EPOCH), JUMP_EPOCH);
  return block;
}

/** Has the table by RIP lead to a block, in this epoch. */
export function enterJump(block: usize): void {
  const rip = load<u64>(block, BLOCK_RIP);
  const slot = jumpSlot(rip);
  store<u64>(slot, rip, JUMP_RIP);
  store<u32>(slot, block as u32, JUMP_BLOCK);
  store<u32>(slot, load<u32>(EPOCH), JUMP_EPOCH);
}

/** Whether a block's bytes, which are kept after its operations, are still those at an address. */
export function sameBytes(block: usize, address: usize): bool {
  const length = load<u16>(block, BLOCK_LENGTH) as usize;
  const kept = block + BLOCK_SIZE + (load<u16>(block, BLOCK_COUNT) as usize + 1) * OP_SIZE;
  let i: usize = 0;
  for (; i + 8 <= length; i += 8) if (load<u64>(kept + i) != load<u64>(address + i)) return false;
  for (; i < length; i++) if (load<u8>(kept + i) != load<u8>(address + i)) return false;
  return true;
}

/** Whether a block is that of an address in the present mode. */
function isBlockOf(block: usize, address: usize, rip: u64): bool {
  return load<u32>(block, BLOCK_CODE) == (address as u32) && load<u64>(block, BLOCK_RIP) == rip &&
    load<u32>(block, BLOCK_MODE) == load<u32>(MODE) &&
    load<u64>(block, BLOCK_CS_BASE) == load<u64>(CODE_BASE) &&
    load<u32>(block, BLOCK_CS_LIMIT) == load<u32>(CODE_LIMIT);
}

/** A cached block by the address of its bytes, 0 if there is none. Takes dead ones out on its way. */
function lookUp(address: usize, rip: u64): usize {
  let from = hashSlot(address);
  while (true) {
    const block = load<u32>(from) as usize;
    if (block == 0) return 0;
    if (load<u16>(block, BLOCK_LENGTH) != DEAD && isBlockOf(block, address, rip)) {
      if (load<u32>(block, BLOCK_CODE_EPOCH) == load<u32>(CODE_EPOCH)) return block;
      if (sameBytes(block, address)) {
        tellDecoded(pageIndex(address));
        store<u32>(block, load<u32>(CODE_EPOCH), BLOCK_CODE_EPOCH);
        return block;
      }
      store<u16>(block, DEAD, BLOCK_LENGTH);
    }
    if (load<u16>(block, BLOCK_LENGTH) == DEAD) store<u32>(from, load<u32>(block, BLOCK_NEXT));
    else from = block + BLOCK_NEXT;
  }
}

/** The linear address of an offset in CS. */
function codeLinear(rip: u64): u64 {
  if (load<u32>(MODE) & MODE_64) return rip;
  return (load<u64>(CODE_BASE) + rip) & 0xffff_ffff;
}

/** Whether an instruction ends beyond CS's limit. */
function beyondLimit(rip: u64, length: u32): bool {
  if (load<u32>(MODE) & MODE_FLAT_CODE) return false;
  return rip + (length - 1) > (load<u32>(CODE_LIMIT) as u64);
}

/** The block at RIP; faults as a fetch does. */
export function findBlock(): usize {
  // A block that is not kept is overwritten by what is decoded next, and so would its link be.
  const left = load<u32>(CURRENT_BLOCK) as usize;
  if (left && load<u16>(left, BLOCK_LENGTH) == DEAD) store<u32>(LINK_FROM, 0);
  const rip = load<u64>(RIP);
  let block = jumpTarget(rip);
  if (block == 0) block = revived(rip);
  if (block == 0) block = findByAddress(rip);
  enterLink(block);
  return block;
}

function findByAddress(rip: u64): usize {
  if (beyondLimit(rip, 1)) raiseGP(0);
  const linear = codeLinear(rip);
  const address = codeAddress(linear);
  let block = address ? lookUp(address, rip) : 0;
  if (block == 0) block = decodeBlock(rip, linear, address);
  if (load<u16>(block, BLOCK_LENGTH) != DEAD) enterJump(block);
  return block;
}

/** Has the block that was left lead to this one from now on. */
function enterLink(block: usize): void {
  const from = load<u32>(LINK_FROM) as usize;
  store<u32>(LINK_FROM, 0);
  if (from == 0 || load<u16>(block, BLOCK_LENGTH) == DEAD || load<u32>(MODE) & MODE_STEP) return;
  store<u32>(from, block as u32);
  store<u32>(from, load<u32>(EPOCH), LINK_EPOCH);
}

/** Decodes instructions into a block; how many bytes they have is in `decodedBytes`. */
function decodeInstructions(block: usize, rip: u64, linear: u64, address: usize): bool {
  const pageEnd = (address & ~0xfff) + 0x1000;
  const most: u32 = load<u32>(MODE) & MODE_STEP ? 1 : MOST_INSTRUCTIONS;
  let op = block + BLOCK_SIZE, length: u32 = 0, count: u32 = 0, whole = true;
  while (count < most && length < MOST_BYTES) {
    const first = count == 0;
    if (address) beginFetch(address + length, pageEnd, linear + length, first);
    else beginUncached(linear);
    if (!first && address + length >= pageEnd) break;
    const code = decode(op, rip + length);
    if (fetchCrossed()) {
      if (!first) break;
      whole = false;
    }
    const bytes = fetchLength();
    if (beyondLimit(rip + length, bytes)) {
      if (first) raiseGP(0);
      break;
    }
    store<u8>(op, length as u8, OP_OFFSET);
    length += bytes;
    count++;
    op += OP_SIZE;
    if (code >= FIRST_ENDING || !whole) break;
  }
  store<u16>(op, OP_FALL_THROUGH as u16, OP_CODE);
  store<u8>(op, 0, OP_LENGTH);
  store<u8>(op, length as u8, OP_OFFSET);
  store<u16>(block, count as u16, BLOCK_COUNT);
  store<u16>(block, length as u16, BLOCK_LENGTH);
  return whole;
}

function decodeBlock(rip: u64, linear: u64, address: usize): usize {
  if (free + MOST_SIZE > BLOCKS_END) flushBlocks();
  const block = free;
  store<u64>(block, rip, BLOCK_RIP);
  store<u32>(block, address as u32, BLOCK_CODE);
  store<u32>(block, load<u32>(MODE), BLOCK_MODE);
  store<u64>(block, load<u64>(CODE_BASE), BLOCK_CS_BASE);
  store<u32>(block, load<u32>(CODE_LIMIT), BLOCK_CS_LIMIT);
  store<u32>(block, 0, BLOCK_HEAT);
  store<u32>(block, load<u32>(CODE_EPOCH), BLOCK_CODE_EPOCH);
  store<u32>(block, 0, BLOCK_LINK);
  store<u32>(block, 0, BLOCK_LINK + LINK_EPOCH);
  store<u32>(block, 0, BLOCK_TAKEN);
  store<u32>(block, 0, BLOCK_TAKEN + LINK_EPOCH);
  if (decodeInstructions(block, rip, linear, address)) enterBlock(block, address);
  // An instruction that is not in one page of RAM is decoded each time: its block is used at once.
  else store<u16>(block, DEAD, BLOCK_LENGTH);
  return block;
}

/** Keeps a block, and has writes to its page look for it. */
export function enterBlock(block: usize, address: usize): void {
  const length = load<u16>(block, BLOCK_LENGTH) as usize;
  const kept = block + BLOCK_SIZE + (load<u16>(block, BLOCK_COUNT) as usize + 1) * OP_SIZE;
  memory.copy(kept, address, length);
  free = (kept + length + 31) & ~31;
  const slot = hashSlot(address);
  store<u32>(block, load<u32>(slot), BLOCK_NEXT);
  store<u32>(slot, block as u32);
  tellDecoded(pageIndex(address));
  const page = CODE_PAGES + (pageIndex(address) << 2);
  if (load<u32>(page) == 0) dropWriteTags(address & ~0xfff);
  store<u32>(block, load<u32>(page), BLOCK_PAGE_NEXT);
  store<u32>(page, block as u32);
}
