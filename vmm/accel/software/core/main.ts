// What the module exports.
import { modeChanged } from "./mode";
import { refreshSystem } from "./reset";
import { resetTlb } from "./tlb";

export { cpuidChanged, cpuidTable } from "./cpuid";
export { deliverFault } from "./interrupt";
export { init, powerOn, startUp } from "./reset";
export { simd } from "./simd";

/** Rebuilds what is derived from the state; to be called after anyone else has changed that. */
export function refresh(): void {
  resetTlb();
  refreshSystem();
  modeChanged();
}
