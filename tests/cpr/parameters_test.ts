import assert from "node:assert/strict";
import {
  type Capability,
  checkCapabilities,
  checkCprCapabilities,
  checkParameter,
  defaultParameters,
  parameterDisplay,
} from "../../cpr/migration/parameters.ts";

Deno.test("`checkParameter()` refuses values outside of QEMU's ranges, and takes their ends", () => {
  const limits: [string, number[], number[], string][] = [
    [
      "downtime-limit",
      [0, 2_000_000],
      [-1, 2_000_001],
      "an integer in the range of 0 to (2000 * 1000) ms",
    ],
    ["cpu-throttle-initial", [1, 99], [0, 100], "an integer in the range of 1 to 99"],
    ["throttle-trigger-threshold", [1, 100], [0, 101], "an integer in the range of 1 to 100"],
    ["multifd-channels", [1, 255], [0, 256], "a value between 1 and 255"],
    ["multifd-zlib-level", [0, 9], [10], "a value between 0 and 9"],
    ["multifd-zstd-level", [0, 20], [21], "a value between 0 and 20"],
  ];
  for (const [name, good, bad, text] of limits) {
    for (const value of good) checkParameter(name, value);
    for (const value of bad) {
      assert.throws(() => checkParameter(name, value), {
        message: `Option ${name} expects ${text}`,
      });
    }
  }
});

Deno.test("the defaults are in range, and `info migrate_parameters` shows only known names", () => {
  for (const [name, value] of Object.entries(defaultParameters)) checkParameter(name, value);
  const names = parameterDisplay.map(([name]) => name);
  assert.equal(new Set(names).size, names.length);
  for (const name of names) assert.ok(name in defaultParameters, name);
});

Deno.test("`checkCapabilities()` refuses a capability without the one it needs", () => {
  checkCapabilities(new Set<Capability>(["x-colo", "return-path"]));
  assert.throws(() => checkCapabilities(new Set<Capability>(["switchover-ack"])), {
    message: "Capability 'switchover-ack' requires capability 'return-path'",
  });
});

Deno.test("`checkCprCapabilities()` refuses what no CPR mode goes with, in QEMU's words", () => {
  checkCprCapabilities(new Set<Capability>(["events", "x-ignore-shared"]));
  const refused: [Capability, string][] = [
    ["postcopy-ram", "Cannot use postcopy with CPR"],
    ["background-snapshot", "Cannot use background snapshot with CPR"],
    ["x-colo", "Cannot use COLO with CPR"],
  ];
  for (const [capability, message] of refused) {
    assert.throws(() => checkCprCapabilities(new Set([capability])), { message });
  }
});
