/** Who runs where while an update is prepared; the threads are this process's own. */
import assert from "node:assert/strict";
import { affinityOf, setAffinity, threadIds } from "../../ffi/affinity.ts";
import { threadId } from "../../ffi/process.ts";
import { placement, processorsOf } from "../../vmm/threads/placement.ts";

const all = affinityOf(0);
const [first, ...others] = all;
if (others.length === 0) console.warn("SKIPPED: threads on processors: this host has only one");

/** Registers a test that leaves every thread where it may be; it needs two processors. */
function placementTest(name: string, run: () => void): void {
  Deno.test({
    name,
    ignore: others.length === 0,
    fn() {
      try {
        run();
      } finally {
        placement.restore();
        for (const tid of threadIds()) setAffinity(tid, all);
      }
    },
  });
}

/** A thread of this process that is not the calling one. */
const another = () => threadIds().find((tid) => tid !== threadId())!;

function assertAllAre(cpus: readonly number[], except: readonly number[] = []): void {
  for (const tid of threadIds()) {
    if (!except.includes(tid)) assert.deepEqual(affinityOf(tid), cpus, `thread ${tid}`);
  }
}

placementTest("all threads but the vCPUs' keep off the guest's processors, and come back", () => {
  const vcpu = another();
  placement.keepOff([first], [vcpu]);
  assertAllAre(others, [vcpu]);
  assert.deepEqual(affinityOf(vcpu), all);
  assert.deepEqual([placement.guest, placement.allowed], [[first], all]);
  assert.ok(!processorsOf([threadId()]).includes(first));
  placement.restore();
  assertAllAre(all);
  assert.deepEqual([placement.guest, placement.allowed], [[], all]);
});

placementTest("a thread that was placed by hand stays where it is", () => {
  const placed = another();
  setAffinity(placed, [first]);
  placement.keepOff([first]);
  assert.deepEqual(affinityOf(placed), [first]);
  placement.restore();
  assert.deepEqual(affinityOf(placed), [first]);
});

placementTest("without other processors, or without a guest's, nothing moves", () => {
  for (const guest of [all, [], [8191]]) {
    placement.keepOff(guest);
    assertAllAre(all);
    assert.deepEqual(placement.guest, []);
  }
});

placementTest(
  "vCPUs that are admitted go to the guest's processors, and are free afterwards",
  () => {
    const vcpu = another();
    placement.keepOff([first]);
    placement.admit([vcpu]);
    assertAllAre(others, [vcpu]);
    assert.deepEqual(affinityOf(vcpu), [first]);
    const { epoch } = placement;
    placement.restore([vcpu], epoch - 1);
    assert.deepEqual(affinityOf(vcpu), [first], "another's end has undone it");
    placement.restore([vcpu], epoch);
    assertAllAre(all);
  },
);

placementTest("vCPUs that would share a processor of the guest's may run anywhere", () => {
  const [one, two] = threadIds().filter((tid) => tid !== threadId());
  placement.keepOff([first]);
  placement.admit([one, two]);
  assertAllAre(others, [one, two]);
  for (const tid of [one, two]) assert.deepEqual(affinityOf(tid), all);
});

placementTest(
  "a process that was started off the guest's processors knows where it may run",
  () => {
    for (const tid of threadIds()) setAffinity(tid, others);
    placement.inherit(all);
    assert.deepEqual(placement.allowed, all);
    placement.keepOff([others[0]]);
    assertAllAre(all.filter((cpu) => cpu !== others[0]));
    placement.restore();
    assertAllAre(all);
  },
);
