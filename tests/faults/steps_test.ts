/** The list of the steps of an update, from which the tests of faults are made. */
import assert from "node:assert/strict";
import { type Step, steps } from "../../cpr/migration/timeline.ts";
import { kvmTest } from "../conformance/program.ts";
import { noKvm } from "../needs_kvm.ts";
import { modes, record } from "./modes.ts";

kvmTest("every step of the list is taken in one of the modes", async () => {
  const taken = new Set<Step>();
  // An anchor takes no step that others do not, and needs KVM.
  for (const mode of modes.filter((mode) => mode !== "anchor" || noKvm === undefined)) {
    for (const list of (await record(mode)).values()) list.forEach((step) => taken.add(step));
  }
  assert.deepEqual(steps.filter((step) => !taken.has(step)), []);
});
