import assert from "node:assert/strict";
import { lookAgain, type TestRun } from "../second_look.ts";

const PASSED = "ok | 2 passed | 0 failed (1s)";
const FAILED = [
  "a test => ./tests/needs_kvm.ts:30:8",
  "error: AssertionError",
  "",
  " FAILURES ",
  "",
  "a test => ./tests/needs_kvm.ts:30:8",
  "",
  "FAILED | 1 passed | 1 failed (1s)",
].join("\n");

/** A run that failed, and how the runs after it end. */
function failedRun(name: string, ends: boolean[]): TestRun {
  const run = (success: boolean): TestRun => ({
    name,
    text: success ? PASSED : FAILED,
    success,
    repeat: () => {
      const next = ends.shift();
      assert.notEqual(next, undefined, "one run too many");
      return Promise.resolve(run(next!));
    },
  });
  return run(false);
}

async function verdict(...failed: TestRun[]) {
  const sums = { passed: 10, failed: 0, skipped: 0 };
  const chances = await lookAgain(failed, sums);
  return { ...sums, chances };
}

Deno.test("lookAgain() counts what passes three times, and names the test", async () => {
  const run = failedRun("tests/kvm/x_test.ts", [true, true, true]);
  assert.deepEqual(await verdict(run), {
    passed: 12,
    failed: 0,
    skipped: 0,
    chances: ["UNSTEADY: tests/kvm/x_test.ts: 'a test' failed, then passed 3 times"],
  });
});

Deno.test("lookAgain() counts a test that fails again as failed", async () => {
  const failed = { passed: 11, failed: 1, skipped: 0, chances: [] };
  for (const ends of [[false], [true, false], [true, true, false]]) {
    assert.deepEqual(await verdict(failedRun("tests/kvm/x_test.ts", ends)), failed);
    assert.deepEqual(ends, []);
  }
});

Deno.test("lookAgain() gives no second look to many failures, or to who runs the guest", async () => {
  const many = ["a", "b", "c"].map((name) => failedRun(name, []));
  assert.deepEqual(await verdict(...many), { passed: 13, failed: 3, skipped: 0, chances: [] });
  const fault = failedRun("tests/faults/transfer_test.ts", []);
  assert.deepEqual(await verdict(fault), { passed: 11, failed: 1, skipped: 0, chances: [] });
});
