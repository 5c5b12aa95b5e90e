/** Buckets of disks' limits: rates, bursts, groups, and what makes no sense. */
import assert from "node:assert/strict";
import {
  checkLimits,
  type LimitName,
  noLimits,
  ThrottleGroup,
  type ThrottleLimits,
} from "../../devices/block/throttle.ts";

const SECOND = 1_000_000_000;

function limits(
  changes: Partial<Record<LimitName, [average: number, max?: number, burstLength?: number]>>,
  iopsSize = 0,
): ThrottleLimits {
  const entries = Object.entries(changes)
    .map(([name, [average, max = 0, burstLength = 1]]) => [name, { average, max, burstLength }]);
  return { ...noLimits, ...Object.fromEntries(entries), iopsSize };
}

function group(given: ThrottleLimits): ThrottleGroup {
  const made = new ThrottleGroup();
  made.limits = given;
  return made;
}

/** Makes as many requests as it may in a time. @returns how many */
function requests(one: ThrottleGroup, from: number, seconds: number, bytes = 4096, write = false) {
  let now = from;
  let done = 0;
  while (now < from + seconds * SECOND) {
    const wait = one.admit(write, bytes, BigInt(Math.ceil(now)));
    if (wait === 0) done++;
    else now += wait;
  }
  return done;
}

Deno.test("a disk does what its limits allow in a second, of requests or bytes", () => {
  const near = (is: number, wanted: number) =>
    assert.ok(Math.abs(is - wanted) <= wanted / 50 + 2, `${is}, not ${wanted}`);
  for (const write of [false, true]) {
    const direction = write ? "write" : "read";
    // The first tenth of a second's worth is there at once.
    near(requests(group(limits({ "iops-total": [100] })), SECOND, 10, 4096, write), 1010);
    near(requests(group(limits({ [`iops-${direction}`]: [50] })), SECOND, 10, 4096, write), 505);
    near(requests(group(limits({ "bps-total": [1 << 20] })), SECOND, 10, 4096, write), 2586);
    near(
      requests(group(limits({ [`bps-${direction}`]: [1 << 20] })), SECOND, 10, 4096, write),
      2586,
    );
    // A large request counts as several.
    near(requests(group(limits({ "iops-total": [100] }, 1024)), SECOND, 10, 4096, write), 253);
    // The other direction has no limits.
    const other = write ? "iops-read" : "iops-write";
    assert.equal(group(limits({ [other]: [1] })).admit(write, 1 << 30, 1n), 0);
    assert.equal(group(limits({ [other]: [1] })).admit(write, 1 << 30, 1n), 0);
  }
});

Deno.test("a burst goes on as long as it may, and is had again after a rest", () => {
  const burst = group(limits({ "iops-total": [100, 1000, 3] }));
  const first = requests(burst, SECOND, 3);
  assert.ok(first > 2900 && first < 3150, `${first}`);
  const then = requests(burst, 4 * SECOND, 10);
  assert.ok(then > 950 && then < 1500, `${then}`);
  // An empty bucket is what a rest of thirty seconds leaves.
  const again = requests(burst, 60 * SECOND, 3);
  assert.ok(again > 2900 && again < 3150, `${again}`);
});

Deno.test("disks of a group share its limits, on whatever thread, and another VMM goes on there", () => {
  const one = group(limits({ "iops-total": [10] }));
  const other = new ThrottleGroup(one.shared);
  assert.equal(one.admit(false, 512, 1n), 0);
  assert.equal(other.admit(true, 512, 1n), 0);
  const wait = one.admit(false, 512, 1n);
  assert.ok(wait > 0);
  assert.equal(other.admit(false, 512, 1n), wait);
  const next = group(one.limits);
  assert.equal(next.admit(false, 512, 1n), 0);
  next.levels = one.levels;
  assert.equal(next.admit(false, 512, 1n), wait);
  for (const levels of [[], [1], Array(13).fill(-1), Array(13).fill(NaN)]) {
    assert.throws(() => next.levels = levels, { message: /make no sense/ });
  }
  // Other limits begin anew; a clock that has gone back is another boot's.
  next.limits = limits({ "iops-total": [20] });
  assert.equal(next.admit(false, 512, 0n), 0);
  next.limits = noLimits;
  assert.equal(next.active, false);
});

Deno.test("limits that contradict one another are refused in QEMU's words", () => {
  const cases: [ThrottleLimits, RegExp][] = [
    [limits({ "bps-total": [1], "bps-read": [1] }), /total values and read\/write values cannot/],
    [
      limits({ "iops-total": [1], "iops-write": [1] }),
      /total values and read\/write values cannot/,
    ],
    [limits({ "bps-total": [1e16] }), /must be within \[0, 1000000000000000\]$/],
    [limits({ "bps-total": [-1] }), /must be within/],
    [limits({ "bps-total": [1, 0, 0] }), /^the burst length cannot be 0$/],
    [limits({ "bps-total": [1, 0, 2] }), /^burst length set without burst rate$/],
    [limits({ "bps-total": [1, 1e15, 2] }), /^burst length too high for this burst rate$/],
    [limits({ "bps-total": [0, 5] }), /^bps_max\/iops_max require corresponding bps\/iops values$/],
    [limits({ "bps-total": [5, 4] }), /^bps_max\/iops_max cannot be lower than bps\/iops$/],
    [limits({ "bps-total": [5] }, 4096), /^iops size requires an iops value to be set$/],
  ];
  for (const [bad, message] of cases) assert.throws(() => checkLimits(bad), { message });
  checkLimits(limits({ "bps-read": [5, 10, 3], "iops-total": [7] }, 4096));
});
