/** What looks at a guest's RAM, with a file in the guest's place. */
import assert from "node:assert/strict";
import { monotonicNow } from "../../../ffi/event.ts";
import { makeMemfd, mapShared } from "../../../ffi/memory.ts";
import { layout } from "../../guests/programs.ts";
import { sleep } from "../program.ts";
import { gapAround, lengthUs } from "./gaps.ts";
import { counterAddresses, GuestRam, WINDOW } from "./guest_ram.ts";
import { Observer } from "./observer_client.ts";
import type { Configuration } from "./results.ts";

const smp: Configuration = {
  name: "smp",
  guest: "smp",
  ram: 4 << 20,
  page: "4K",
  cpus: 2,
  populated: false,
};

/** Shared memory, as a VMM would have it, and its path. */
function makeRam() {
  const memfd = makeMemfd("test-ram", smp.ram);
  const region = mapShared(memfd.fd, smp.ram);
  const words = new BigInt64Array(region.bytes.buffer);
  return {
    path: `/proc/${Deno.pid}/fd/${memfd.fd}`,
    set: (address: number, value: number) => words[address / 8] = BigInt(value),
    [Symbol.dispose]() {
      region.close();
      memfd.close();
    },
  };
}

Deno.test("GuestRam takes the longest gap of all vCPUs, and clears them all", () => {
  using memory = makeRam();
  using ram = new GuestRam(memory.path, smp);
  const [first, second] = counterAddresses(smp);
  assert.deepEqual([first, second], [0x200100, 0x200140]);
  memory.set(first, 7);
  memory.set(second, 9);
  memory.set(first + 8, 1000);
  memory.set(second + 8, 3000);
  assert.deepEqual(ram.counts(), [7, 9]);
  assert.equal(ram.longestGap(), 3000);
  ram.clearGaps();
  assert.equal(ram.longestGap(), 0);
  assert.deepEqual(ram.counts(), [7, 9]);
});

Deno.test("GuestRam tells what the guest's self-check found", () => {
  using memory = makeRam();
  using ram = new GuestRam(memory.path, smp);
  ram.assertUnharmed();
  memory.set(layout.check, 2);
  const message = "The guest's self-check failed: the pattern in memory changed";
  assert.throws(() => ram.assertUnharmed(), { message });
});

Deno.test("counterAddresses() is the one counter of a guest with one vCPU", () => {
  assert.deepEqual(counterAddresses({ ...smp, guest: "dirty", cpus: 1 }), [layout.counter]);
  assert.ok(layout.counter >= WINDOW.offset && layout.counter < WINDOW.offset + WINDOW.size);
});

Deno.test("the observer sees for how long one of two counters stood still", async () => {
  using memory = makeRam();
  const [moving, standing] = counterAddresses(smp);
  await using observer = new Observer(memory.path, [moving, standing]);
  let count = 0;
  const ticking = setInterval(() => memory.set(moving, ++count), 1);
  try {
    await observer.begin();
    memory.set(standing, 1);
    const began = monotonicNow();
    const start = performance.now();
    await sleep(300);
    const stillUs = (performance.now() - start) * 1000;
    memory.set(standing, 2);
    const { gapUs, blindUs, gaps } = await observer.end();
    // It may see both changes late, each by no longer than it did not look.
    assert.ok(gapUs >= stillUs - blindUs, `saw ${gapUs} of ${stillUs}, blind for ${blindUs}`);
    assert.ok(blindUs > 0);
    // The longest one is listed with its time, also between those of the counter that moves.
    const longest = gaps.map(lengthUs).toSorted((a, b) => a - b).at(-1);
    assert.equal(longest, gapUs);
    const middleNs = began + stillUs * 500;
    // Whoever did not let this process count has made another one that may be longer.
    const around = lengthUs(gapAround(gaps, middleNs)!);
    assert.ok(around >= stillUs - blindUs && around <= gapUs, `${around} of ${stillUs}`);
    // A new window knows nothing of the one before.
    const again = performance.now();
    await observer.begin();
    const next = await observer.end();
    assert.ok(next.gapUs <= (performance.now() - again) * 1000);
    assert.ok(!next.gaps.some(({ startNs }) => startNs < began + stillUs * 1000));
  } finally {
    clearInterval(ticking);
  }
});

Deno.test("the observer ends also while it watches", async () => {
  using memory = makeRam();
  await using observer = new Observer(memory.path, counterAddresses(smp));
  await observer.begin();
});
