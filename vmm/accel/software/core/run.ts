// run(): executes until the budget is used up or something stops the CPU.
import { findBlock } from "./block";
import { noteHeat } from "./compiled";
import { stepAfter, stepBefore } from "./debug";
import { ATTENTION_MASK, BUDGET, CURRENT_OP, LINK_FROM, MODE } from "./derived";
import { serviceAttention } from "./events";
import { settleFlags } from "./flags";
import {
  ATTENTION, ATTENTION_CODE, ATTENTION_FLUSH, ATTENTION_INTERRUPT, STOP_BUDGET,
} from "./layout";
import { execute } from "./loop";
import { MODE_STEP } from "./mode";
import { comeInside, tellMayBeWritten } from "./sharing";
import { flushTlb, newCodeEpoch } from "./tlb";

/** Forgets what others have made stale. */
function serviceFlush(): void {
  atomic.and<u32>(ATTENTION, ~ATTENTION_FLUSH);
  tellMayBeWritten();
  flushTlb(true);
  newCodeEpoch();
}

/** Does what `attention` asks for at a boundary; returns what run() returns, STOP_BUDGET to go on. */
function attend(): u32 {
  const wanted = load<u32>(ATTENTION) & load<u32>(ATTENTION_MASK);
  if (wanted == 0) return STOP_BUDGET;
  store<u32>(LINK_FROM, 0);
  settleFlags();
  comeInside();
  if (wanted & ATTENTION_FLUSH) serviceFlush();
  if (wanted & ATTENTION_CODE) atomic.and<u32>(ATTENTION, ~ATTENTION_CODE);
  // What a device or another CPU has written before it interrupted may be code.
  if (wanted & (ATTENTION_CODE | ATTENTION_INTERRUPT)) newCodeEpoch();
  return serviceAttention();
}

/** One instruction between the hooks of single step and breakpoints. */
function step(): u32 {
  settleFlags();
  const stop = stepBefore();
  if (stop != STOP_BUDGET) return stop;
  const block = findBlock();
  execute(block);
  settleFlags();
  return stepAfter();
}

/**
 * Executes instructions.
 *
 * The host's run() calls it again after an exception that `raise` has thrown, when `deliverFault` has
 * delivered that.
 *
 * @param budget about how many instructions
 * @returns STOP_*
 */
export function run(budget: u32): u32 {
  store<i32>(BUDGET, budget as i32);
  store<u32>(LINK_FROM, 0);
  comeInside();
  while (true) {
    store<u32>(CURRENT_OP, 0);
    const stop = attend();
    if (stop != STOP_BUDGET) return stop;
    if (load<i32>(BUDGET) <= 0) {
      noteHeat();
      settleFlags();
      return STOP_BUDGET;
    }
    if (load<u32>(MODE) & MODE_STEP) {
      const stepped = step();
      if (stepped != STOP_BUDGET) return stepped;
    } else {
      execute(findBlock());
    }
  }
}

/** How much of the budget is left after an exception has left run(). */
export function budgetLeft(): i32 {
  return load<i32>(BUDGET);
}

