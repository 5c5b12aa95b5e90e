/** Making an anchor for a VM's guest. */
import assert from "node:assert/strict";
import { startAnchor } from "../../vmm/accel/kvm/anchored.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { childrenOf } from "../processes.ts";
import { TestVm } from "./harness.ts";

/** A thread id that no thread has: beyond PID_MAX_LIMIT. */
const NOBODY = 1 << 23;

onlyKvmTest("an anchor that cannot be put where its vCPUs' threads are is ended", async () => {
  await using test = await TestVm.start({ program: "exits" });
  const before = childrenOf(Deno.pid);
  const make = () => startAnchor(test.vm.machine.hardware, [NOBODY], 60_000);
  assert.throws(make, /No such process/);
  assert.deepEqual(childrenOf(Deno.pid), before);
});
