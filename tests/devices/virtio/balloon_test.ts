import assert from "node:assert/strict";
import { virtioBalloon } from "../../../devices/virtio/balloon.ts";
import { InterruptCause, Status } from "../../../devices/virtio/virtio_state.ts";
import { OsError } from "../../../ffi/errno.ts";
import { RAM, RAM_SIZE } from "./drivers.ts";
import { bit, VirtioRig, virtioTest } from "./rig.ts";

const [STATS_VQ, DEFLATE_ON_OOM, PAGE_POISON, REPORTING] = [1, 2, 4, 5].map(bit);
/** Where the driver writes its requests, and pages that it gives back. */
const REQUEST = RAM + 0x7_0000;
const PAGES = RAM + 0x8_0000;
const PAGE = 4096;
const SECOND = 1_000_000_000n;

/** Page numbers as the driver writes them; returns the request's buffer. */
function writeNumbers(rig: VirtioRig, numbers: readonly number[]) {
  numbers.forEach((number, i) => rig.ram.data.setUint32(REQUEST - RAM + 4 * i, number, true));
  return { gpa: REQUEST, length: 4 * numbers.length };
}

/** Statistics as the driver writes them; returns the request's buffer. */
function writeStatistics(rig: VirtioRig, stats: readonly (readonly [number, bigint])[]) {
  stats.forEach(([tag, value], i) => {
    rig.ram.data.setUint16(REQUEST - RAM + 10 * i, tag, true);
    rig.ram.data.setBigUint64(REQUEST - RAM + 10 * i + 2, value, true);
  });
  return { gpa: REQUEST, length: 10 * stats.length };
}

function told(rig: VirtioRig): Record<string, bigint | undefined> {
  return Object.fromEntries(rig.device.balloon!.statistics.stats);
}

virtioTest(
  "pages that are given back become the host's, neighbours together",
  virtioBalloon,
  (rig, ring) => {
    rig.negotiate(ring | STATS_VQ);
    const inflate = rig.setUp(0);
    rig.start();
    inflate.wantInterrupt(0);
    rig.ram.bytes.fill(7, PAGES - RAM);
    const first = PAGES / PAGE;
    const request = writeNumbers(rig, [first + 5, first + 2, first + 1, first, first + 9]);
    const { id } = inflate.add([request]);
    rig.notify(0);
    assert.deepEqual(rig.ram.givenBack, [
      [PAGES, 3 * PAGE],
      [PAGES + 5 * PAGE, PAGE],
      [PAGES + 9 * PAGE, PAGE],
    ]);
    assert.ok(rig.ram.changes > 0, "who has decoded code of these pages is told");
    assert.deepEqual(
      rig.ram.get(PAGES + 2 * PAGE, 2 * PAGE),
      new Uint8Array(2 * PAGE).fill(7, PAGE),
    );
    assert.deepEqual(inflate.take(), [{ id, written: 0 }]);
    assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
  },
);

virtioTest(
  "page numbers of no RAM are passed over, and those beside them given back",
  virtioBalloon,
  (rig, ring) => {
    rig.negotiate(ring);
    const inflate = rig.setUp(0);
    rig.start();
    const end = (RAM + RAM_SIZE) / PAGE;
    const numbers = [
      0,
      0xffff_ffff,
      end,
      end - 1,
      RAM / PAGE - 1,
      0x8000_0000,
      PAGES / PAGE,
      PAGES / PAGE,
    ];
    const request = writeNumbers(rig, numbers);
    // Half a number at the end is none.
    inflate.add([{ ...request, length: request.length + 2 }]);
    rig.notify(0);
    assert.deepEqual(rig.ram.givenBack, [[PAGES, PAGE], [PAGES, PAGE], [
      RAM + RAM_SIZE - PAGE,
      PAGE,
    ]]);
    assert.equal(inflate.take().length, 1);
    assert.equal(rig.get(0x70) & Status.NEEDS_RESET, 0);
  },
);

virtioTest(
  "pages in more pieces than a vector holds are all given back",
  virtioBalloon,
  (rig, ring) => {
    rig.negotiate(ring);
    const inflate = rig.setUp(0);
    rig.start();
    // No two of the same page are neighbours of each other.
    const numbers = Array.from({ length: 2500 }, (_, i) => PAGES / PAGE + 2 * (i % 8));
    inflate.add([writeNumbers(rig, numbers)]);
    rig.notify(0);
    assert.equal(rig.ram.givenBack.length, 2500);
    assert.equal(new Set(rig.ram.givenBack.map(([gpa]) => gpa)).size, 8);
  },
);

virtioTest(
  "what is taken again, and requests without a number, are done",
  virtioBalloon,
  (rig, ring) => {
    rig.negotiate(ring);
    const queues = [rig.setUp(0), rig.setUp(1)];
    rig.start();
    queues[1].add([writeNumbers(rig, [PAGES / PAGE])]);
    queues[0].add([{ gpa: REQUEST, length: 3 }]);
    queues[0].add([{ gpa: REQUEST, length: 64, writable: true }]);
    rig.notify(0);
    rig.notify(1);
    assert.deepEqual(rig.ram.givenBack, []);
    assert.deepEqual(queues.map((queue) => queue.take().map(({ written }) => written)), [[0, 0], [
      0,
    ]]);
  },
);

virtioTest(
  "what is free in the guest is given back, unless it is filled with something",
  virtioBalloon,
  (rig, ring) => {
    assert.equal(rig.offered() & (REPORTING | PAGE_POISON), REPORTING | PAGE_POISON);
    for (
      const [features, poison, count] of [[PAGE_POISON, 0, 2], [PAGE_POISON, 0xaa, 0], [
        0n,
        0xaa,
        2,
      ]] as const
    ) {
      rig.negotiate(ring | STATS_VQ | REPORTING | features);
      const reporting = rig.setUp(3);
      rig.write(0x10c, poison, 4);
      assert.equal(rig.read(0x10c, 4), poison);
      rig.start();
      reporting.add([
        { gpa: PAGES, length: 4 * PAGE, writable: true },
        { gpa: PAGES + 8 * PAGE, length: PAGE, writable: true },
      ]);
      rig.notify(3);
      assert.equal(rig.ram.givenBack.splice(0).length, count);
      assert.equal(reporting.take().length, 1);
      rig.ram.clear();
    }
  },
  { "free-page-reporting": true },
);

virtioTest(
  "the configuration says how much is wanted, and takes how much there is",
  virtioBalloon,
  (rig, ring) => {
    rig.negotiate(ring);
    rig.start();
    rig.takeInterrupt();
    rig.call((device) => device.balloon!.setTarget(10 * PAGE));
    assert.equal(rig.takeInterrupt(), InterruptCause.CONFIG_CHANGE);
    assert.equal(rig.read(0x100, 4), 10);
    rig.write(0x104, 4, 4);
    assert.equal(rig.read(0x104, 4), 4);
    assert.equal(rig.device.balloon!.actual, 4 * PAGE);
    assert.deepEqual(rig.context.requests, [{ kind: "balloon-change" }]);
    // The same again, and what the driver may not write, change nothing.
    rig.write(0x104, 4, 4);
    rig.write(0x100, 77, 4);
    rig.write(0x105, 1, 1);
    assert.deepEqual([rig.read(0x100, 4), rig.read(0x104, 4)], [10, 4]);
    assert.equal(rig.context.requests.length, 1);
    // A new driver has all memory, and finds what it shall give back.
    rig.set(0x70, 0);
    assert.deepEqual([rig.read(0x100, 4), rig.read(0x104, 4), rig.device.balloon!.actual], [
      10,
      0,
      0,
    ]);
    assert.equal(rig.context.requests.length, 2);
  },
);

virtioTest(
  "statistics are asked for in intervals, by the driver's own request",
  virtioBalloon,
  (rig, ring) => {
    rig.negotiate(ring | STATS_VQ);
    const stats = rig.setUp(2);
    rig.start();
    stats.wantInterrupt(0);
    assert.deepEqual(new Set(Object.values(told(rig))), new Set([undefined]));
    assert.equal(rig.device.balloon!.statistics.lastUpdate, 0);
    const free = (value: bigint) =>
      writeStatistics(rig, [[4, value], [99, 1n], [15, 2n ** 64n - 2n]]);
    const { id } = stats.add([free(1000n)]);
    rig.notify(2);
    // It is read, and stays until the next question.
    assert.equal(told(rig)["stat-free-memory"], 1000n);
    assert.equal(told(rig)["stat-direct-reclaims"], 2n ** 64n - 2n);
    assert.equal(told(rig)["stat-swap-in"], undefined);
    assert.equal(rig.device.balloon!.statistics.lastUpdate, 1709210096);
    rig.pass(100n * SECOND);
    rig.work();
    assert.deepEqual(stats.take(), []);
    // The first question comes at once.
    rig.call((device) => device.balloon!.pollInterval = 5);
    rig.pass(0n);
    rig.work();
    assert.deepEqual(stats.take(), [{ id, written: 0 }]);
    assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
    stats.wantInterrupt(0);
    // An interval begins with the answer.
    rig.pass(50n * SECOND);
    rig.work();
    stats.add([free(2000n)]);
    rig.notify(2);
    assert.equal(told(rig)["stat-free-memory"], 2000n);
    rig.pass(5n * SECOND - 1n);
    rig.work();
    assert.deepEqual(stats.take(), []);
    rig.pass(1n);
    rig.work();
    assert.equal(stats.take().length, 1);
    stats.add([free(3000n)]);
    rig.notify(2);
    rig.call((device) => device.balloon!.pollInterval = 0);
    rig.pass(100n * SECOND);
    rig.work();
    assert.deepEqual(stats.take(), []);
    assert.equal(told(rig)["stat-free-memory"], 3000n);
    assert.equal(rig.device.balloon!.statistics.lastUpdate, 1709210096 + 155);
  },
);

virtioTest(
  "an interval goes on where a driver has nothing to tell, and for the next driver",
  virtioBalloon,
  (rig, ring) => {
    rig.call((device) => device.balloon!.pollInterval = 1);
    rig.pass(3n * SECOND);
    rig.negotiate(ring | STATS_VQ);
    let stats = rig.setUp(2);
    rig.start();
    stats.add([writeStatistics(rig, [[0, 1n]])]);
    rig.notify(2);
    assert.equal(told(rig)["stat-swap-in"], 1n);
    rig.ram.clear();
    rig.negotiate(ring | STATS_VQ);
    stats = rig.setUp(2);
    rig.start();
    stats.add([writeStatistics(rig, [[0, 2n]])]);
    rig.notify(2);
    assert.equal(told(rig)["stat-swap-in"], 2n);
    rig.pass(SECOND);
    rig.work();
    assert.equal(stats.take().length, 1);
  },
);

virtioTest("statistics that are cut, or too many, harm nothing", virtioBalloon, (rig, ring) => {
  rig.negotiate(ring | STATS_VQ);
  const stats = rig.setUp(2);
  rig.call((device) => device.balloon!.pollInterval = 1);
  rig.start();
  const lengths = [1, 9, 15, 60_000];
  for (const length of lengths) {
    rig.ram.put(REQUEST, new Uint8Array(20).fill(0));
    stats.add([{ gpa: REQUEST, length }]);
    rig.notify(2);
    assert.equal(told(rig)["stat-swap-in"], length < 10 ? undefined : 0n);
    rig.pass(2n * SECOND);
    rig.work();
    assert.equal(stats.take().length, 1, `${length}`);
  }
  assert.equal(rig.get(0x70) & Status.NEEDS_RESET, 0);
});

Deno.test("a host that takes no memory back is told of once, and the guest goes on", () => {
  const rig = new VirtioRig(virtioBalloon);
  rig.ram.refusal = new OsError("madvise", 95);
  rig.negotiate(0n);
  const inflate = rig.setUp(0);
  rig.start();
  for (let i = 0; i < 2; i++) inflate.add([writeNumbers(rig, [PAGES / PAGE])]);
  rig.notify(0);
  assert.equal(inflate.take().length, 2);
  assert.equal(rig.context.warnings.length, 1);
  assert.match(rig.context.warnings[0], /^virtio-balloon-device: guest RAM is kept: /);
});

Deno.test("features and queues are those that the properties ask for", () => {
  const common = STATS_VQ | PAGE_POISON;
  const all = { "deflate-on-oom": true, "free-page-reporting": true };
  const own = (properties: Record<string, boolean>) =>
    new VirtioRig(virtioBalloon, "kept", properties).offered() & 0xffffn;
  assert.equal(own({}), common);
  assert.equal(own(all), common | DEFLATE_ON_OOM | REPORTING);
  assert.equal(own({ "page-poison": false }), STATS_VQ);
  assert.equal(virtioBalloon.doorbells!(all).length, 4);
  assert.equal(virtioBalloon.doorbells!({}).length, 3);
});

Deno.test("without page-poison the configuration ends before it", () => {
  const rig = new VirtioRig(virtioBalloon, "kept", { "page-poison": false });
  rig.negotiate(0n);
  rig.write(0x10c, 5, 4);
  assert.equal(rig.read(0x10c, 4), 0);
});

virtioTest(
  "an interval does not last until a clock that began anew gets there",
  virtioBalloon,
  (rig, ring) => {
    rig.negotiate(ring | STATS_VQ);
    const stats = rig.setUp(2);
    rig.call((device) => device.balloon!.pollInterval = 2);
    rig.start();
    stats.add([writeStatistics(rig, [[0, 1n]])]);
    rig.notify(2);
    rig.context.monotonic = 5n;
    // The I/O thread looks at all queues when it begins.
    rig.call((device) => device.rung!(2));
    assert.deepEqual(stats.take(), []);
    rig.pass(2n * SECOND);
    rig.work();
    assert.equal(stats.take().length, 1);
  },
);
