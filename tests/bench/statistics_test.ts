import assert from "node:assert/strict";

import { median, summarize, tableLine } from "./statistics.ts";

Deno.test("summarize() takes the nearest rank, whatever the order of the samples", () => {
  const samples = Array.from({ length: 200 }, (_, i) => 200 - i);
  assert.deepEqual(summarize(samples), { n: 200, median: 100, min: 1, max: 200, p99: 198 });
});

Deno.test("summarize() gives the maximum as p99 when there are fewer than 100 samples", () => {
  const samples = Array.from({ length: 99 }, (_, i) => i);
  assert.equal(summarize(samples).p99, 98);
  assert.deepEqual(summarize([7]), { n: 1, median: 7, min: 7, max: 7, p99: 7 });
});

Deno.test("summarize() refuses to say anything about no samples", () => {
  assert.throws(() => summarize([]), /^RangeError: Cannot summarize: there are no samples$/);
});

Deno.test("median() is the lower of the two in the middle when their number is even", () => {
  assert.equal(median([4, 1, 3, 2]), 2);
});

Deno.test("tableLine() names the case, its numbers with the unit, and the aim", () => {
  const line = tableLine({ name: "stop", unit: "ms", samples: [1, 2, 30], aim: "below 5" });
  assert.match(line, /^stop +2\.000 +1\.000 +30\.0 +30\.0 +3 {2}ms {2}\(below 5\)$/);
});
