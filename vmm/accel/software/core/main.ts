// What the module exports.
import { flushBlocks } from "./block";
import { modeChanged } from "./mode";
import { refreshSystem } from "./reset";
import { resetTlb } from "./tlb";

export { blockGeneration, findBlock } from "./block";
export { plainly } from "./branch";
export { makeRegion, placeCompiled } from "./compiled";
export { condition } from "./flags";
export { cpuidChanged, cpuidTable } from "./cpuid";
export { deliverFault } from "./interrupt";
export { init, powerOn, startUp } from "./reset";
export { simd } from "./simd";
export { checkX87, x87 } from "./x87";
export { x87Form } from "./x87_table";
export { budgetLeft, run } from "./run";
export { goOutside } from "./sharing";

/** Rebuilds what is derived from the state; to be called after anyone else has changed that. */
export function refresh(): void {
  resetTlb();
  flushBlocks();
  refreshSystem();
  modeChanged();
}
