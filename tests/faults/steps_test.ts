/** The list of the steps of an update, from which the tests of faults are made. */
import assert from "node:assert/strict";
import { type Step, steps } from "../../cpr/migration/timeline.ts";
import { kvmTest } from "../conformance/program.ts";
import { modes, record } from "./modes.ts";

kvmTest("every step of the list is taken in one of the modes", async () => {
  const taken = new Set<Step>();
  for (const mode of modes) {
    for (const list of (await record(mode)).values()) list.forEach((step) => taken.add(step));
  }
  assert.deepEqual(steps.filter((step) => !taken.has(step)), []);
});
