import assert from "node:assert/strict";
import { virtioRng } from "../../../devices/virtio/rng.ts";
import { Feature, InterruptCause, Status } from "../../../devices/virtio/virtio_state.ts";
import { RAM, type TestMemory } from "./drivers.ts";
import { bit, VirtioRig, virtioTest } from "./rig.ts";

const BUFFERS = RAM + 0xc_0000;

function filled(memory: TestMemory, gpa: number, length: number): boolean {
  return memory.get(gpa, length).some((byte) => byte !== 0);
}

virtioTest("the entropy device fills what it is given", virtioRng, (rig, ring) => {
  rig.negotiate(ring | bit(Feature.INDIRECT_DESC));
  const driver = rig.setUp(0);
  rig.start();
  driver.wantInterrupt(0);
  for (let round = 0; round < 20; round++) {
    const { id } = driver.add([
      { gpa: BUFFERS, length: 100, writable: true },
      { gpa: BUFFERS + 0x1000, length: 28, writable: true },
    ], round % 2 === 0);
    rig.notify(0);
    assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
    assert.deepEqual(driver.take(), [{ id, written: 128 }]);
    assert(filled(rig.ram, BUFFERS, 100) && filled(rig.ram, BUFFERS + 0x1000, 28));
    assert.equal(filled(rig.ram, BUFFERS + 100, 0x1000 - 100), false);
    rig.ram.bytes.fill(0, BUFFERS - RAM, BUFFERS - RAM + 0x2000);
  }
});

virtioTest(
  "requests that came before the driver was ready are served then",
  virtioRng,
  (rig, ring) => {
    rig.negotiate(ring);
    const driver = rig.setUp(0);
    driver.add([{ gpa: BUFFERS, length: 8, writable: true }]);
    rig.notify(0);
    assert.deepEqual(driver.take(), []);
    rig.start();
    assert.equal(driver.take().length, 1);
  },
);

virtioTest(
  "a device that is told to park begins nothing, and goes on later",
  virtioRng,
  (rig, ring) => {
    rig.negotiate(ring);
    const driver = rig.setUp(0);
    rig.start();
    rig.context.parking = true;
    driver.add([{ gpa: BUFFERS, length: 8, writable: true }]);
    rig.notify(0);
    assert.deepEqual(driver.take(), []);
    rig.context.parking = false;
    rig.call((device) => device.rung!(0));
    assert.equal(driver.take().length, 1);
  },
);

virtioTest(
  "a malformed ring is told once, and the device works after a reset",
  virtioRng,
  (rig, ring) => {
    for (let round = 0; round < 2; round++) {
      rig.negotiate(ring);
      const broken = rig.setUp(0);
      rig.start();
      broken.add([{ gpa: 0x10, length: 8, writable: true }]);
      rig.notify(0);
      assert.equal(rig.get(0x70) & Status.NEEDS_RESET, Status.NEEDS_RESET);
      assert.equal(rig.takeInterrupt(), InterruptCause.CONFIG_CHANGE);
      rig.notify(0);
      assert.equal(rig.context.warnings.length, round + 1);
      assert.match(
        rig.context.warnings[round],
        /^virtio-rng-device: virtio: no guest memory for 8/,
      );
      // The driver cannot take the bit back but by a reset.
      rig.set(0x70, Status.DRIVER_OK);
      assert.notEqual(rig.get(0x70) & Status.NEEDS_RESET, 0);
      rig.negotiate(ring);
      assert.equal(rig.get(0x70) & Status.NEEDS_RESET, 0);
      rig.ram.clear();
      const driver = rig.setUp(0);
      rig.start();
      driver.add([{ gpa: BUFFERS, length: 8, writable: true }]);
      rig.notify(0);
      assert.deepEqual(driver.take().map(({ written }) => written), [8]);
      rig.ram.clear();
    }
  },
);

const limited = { "max-bytes": 10, period: 100 };
virtioTest("no more than `max-bytes` are given out in a period", virtioRng, (rig, ring) => {
  rig.negotiate(ring);
  const driver = rig.setUp(0);
  rig.start();
  for (let i = 0; i < 3; i++) driver.add([{ gpa: BUFFERS, length: 8, writable: true }]);
  rig.notify(0);
  assert.deepEqual(driver.take().map(({ written }) => written), [8, 2]);
  rig.pass(99_000_000n);
  rig.work();
  assert.deepEqual(driver.take(), []);
  rig.pass(1_000_000n);
  rig.work();
  assert.deepEqual(driver.take().map(({ written }) => written), [8]);
}, limited);

Deno.test("a request that has no room gets nothing", () => {
  const rig = new VirtioRig(virtioRng);
  rig.negotiate(0n);
  const driver = rig.setUp(0);
  rig.start();
  driver.add([{ gpa: BUFFERS, length: 8 }]);
  rig.notify(0);
  assert.deepEqual(driver.take().map(({ written }) => written), [0]);
});

Deno.test("what an acknowledgement leaves is told again, by an edge", () => {
  const rig = new VirtioRig(virtioRng);
  rig.negotiate(0n);
  const driver = rig.setUp(0);
  rig.start();
  driver.add([{ gpa: BUFFERS, length: 8, writable: true }]);
  rig.notify(0);
  driver.add([{ gpa: 0x10, length: 8, writable: true }]);
  rig.notify(0);
  assert.equal(rig.get(0x60), InterruptCause.USED_BUFFER | InterruptCause.CONFIG_CHANGE);
  const { edges } = rig.context;
  edges.length = 0;
  rig.set(0x64, InterruptCause.USED_BUFFER);
  assert.deepEqual(edges, ["-0", "+0"]);
  rig.set(0x64, InterruptCause.USED_BUFFER);
  assert.deepEqual(edges, ["-0", "+0"]);
  rig.set(0x64, InterruptCause.CONFIG_CHANGE);
  assert.deepEqual(edges, ["-0", "+0", "-0"]);
});
