import assert from "node:assert/strict";
import {
  observeSteps,
  type Step,
  stepLabel,
  steps,
  Timeline,
  updateProcesses,
} from "../../cpr/migration/timeline.ts";

const ring = (bytes = 4096 - 64) => new Uint8Array(bytes);

Deno.test("a timeline has what all processes have stamped, in the order of time", () => {
  const memory = ring();
  const old = new Timeline(memory, "old");
  const next = new Timeline(memory, "new");
  old.stamp("stop", 200);
  next.stamp("received", 300);
  old.stamp("begin", 100);
  next.stamp("entered", 400, 7);
  const wanted = [
    { step: "begin", process: "old", ns: 100, vcpu: 0 },
    { step: "stop", process: "old", ns: 200, vcpu: 0 },
    { step: "received", process: "new", ns: 300, vcpu: 0 },
    { step: "entered", process: "new", ns: 400, vcpu: 7 },
  ];
  assert.deepEqual(old.entries(), wanted);
  assert.deepEqual(next.entries(), wanted);
  old.clear();
  assert.deepEqual(next.entries(), []);
});

Deno.test("a timeline goes on from another, with its own name for a process", () => {
  const before = new Timeline(ring(), "new");
  before.stamp("taken", 5);
  const other = new Timeline(ring(), "helper");
  other.continue(before, "new", "helper");
  other.stamp("begin", 6);
  assert.deepEqual(other.entries().map(({ process, step }) => `${process} ${step}`), [
    "helper taken",
    "helper begin",
  ]);
});

Deno.test("a full timeline takes no more, and keeps what it has", () => {
  const memory = ring(8 + 3 * 16 + 5);
  const timeline = new Timeline(memory, "old");
  for (let ns = 1; ns <= 9; ns++) timeline.stamp("begin", ns);
  assert.deepEqual(timeline.entries().map(({ ns }) => ns), [1, 2, 3]);
  assert.deepEqual([...memory.subarray(8 + 3 * 16)], [0, 0, 0, 0, 0]);
});

Deno.test("a timeline believes no number of a peer's", () => {
  const memory = ring();
  const timeline = new Timeline(memory, "old");
  const view = new DataView(memory.buffer);
  timeline.stamp("begin", 1);
  timeline.stamp("stop", 2);
  for (const count of [-1, 0x7fff_ffff]) {
    view.setInt32(0, count, true);
    const known = timeline.entries().filter(({ ns }) => ns > 0).map(({ step }) => step);
    assert.deepEqual(known, count < 0 ? [] : ["begin", "stop"]);
    timeline.stamp("taken", 3);
  }
  view.setInt32(0, 2, true);
  const changes: [at: number, set: (at: number) => void][] = [
    [8, (at) => view.setFloat64(at, NaN, true)],
    [8, (at) => view.setFloat64(at, Infinity, true)],
    [16, (at) => view.setUint16(at, steps.length, true)],
    [18, (at) => view.setUint16(at, updateProcesses.length, true)],
  ];
  for (const [at, set] of changes) {
    const whole = memory.slice();
    set(at);
    assert.deepEqual(timeline.entries().map(({ step }) => step), ["stop"]);
    memory.set(whole);
  }
});

Deno.test("`usage()` tells what halves of pauses have used, which are no steps", () => {
  const memory = ring();
  const [old, next] = [new Timeline(memory, "old"), new Timeline(memory, "new")];
  old.stamp("stop");
  next.noteUsage({ pageFaults: 3, preemptions: 0 });
  old.noteUsage({ pageFaults: 0x12345, preemptions: 0xffff });
  assert.deepEqual(old.entries().map(({ step }) => step), ["stop"]);
  const used = [
    { process: "new", pageFaults: 3, preemptions: 0 },
    { process: "old", pageFaults: 0xffff, preemptions: 0xffff },
  ] as const;
  assert.deepEqual(old.usage(), used);
  const later = new Timeline(ring(), "old");
  later.continue(next, "new", "helper");
  assert.deepEqual(later.usage(), [{ ...used[0], process: "helper" }, used[1]]);
});

Deno.test("steps are observed, but for those of a rehearsal", () => {
  const seen: Step[] = [];
  observeSteps((step) => seen.push(step));
  try {
    const timeline = new Timeline(ring(), "old");
    timeline.stamp("begin");
    timeline.observed = false;
    timeline.stamp("stop");
    assert.deepEqual(seen, ["begin"]);
    assert.equal(timeline.entries().length, 2);
  } finally {
    observeSteps(undefined);
  }
});

Deno.test("a step's label names the CPU that entered", () => {
  assert.equal(stepLabel({ step: "entered", vcpu: 3 }), "entered (CPU 3)");
  assert.equal(stepLabel({ step: "stop", vcpu: 3 }), "stop");
});

Deno.test("steps have the numbers that they have had since version 1: new ones come last", () => {
  // Two versions write into one ring.
  assert.equal(
    steps.slice(0, 23).join(" "),
    "begin descriptors-sent machine-built listening connected rehearsed machine-agreed stop " +
      "parked saved handed-over sent exec runtime-started program-started received checked " +
      "loaded taken resumed entered answered settled",
  );
  assert.deepEqual(updateProcesses.slice(0, 3), ["old", "new", "helper"]);
});
