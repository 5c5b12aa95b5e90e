import assert from "node:assert/strict";
import { virtioRng } from "../../../devices/virtio/rng.ts";
import { Feature, Status } from "../../../devices/virtio/virtio_state.ts";
import { DESC, RAM } from "./drivers.ts";
import { bit, VirtioRig, virtioTest } from "./rig.ts";

const OK = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK;

virtioTest("registers say what the device is", virtioRng, (rig, ring) => {
  assert.deepEqual([0, 4, 8, 0xc].map((at) => rig.get(at)), [
    0x7472_6976,
    2,
    4,
    0x554d_4551,
  ]);
  const features = [
    Feature.VERSION_1,
    Feature.INDIRECT_DESC,
    Feature.EVENT_IDX,
    Feature.RING_RESET,
  ];
  assert.equal(rig.offered(), features.reduce((all, one) => all | bit(one), ring));
  rig.set(0x14, 2);
  assert.equal(rig.get(0x10), 0);
  assert.deepEqual([0x30, 0x34].map((at) => rig.get(at)), [0, 8]);
  rig.set(0x30, 1);
  assert.equal(rig.get(0x34), 0, "there is no second queue");
  rig.set(0x44, 1);
  assert.equal(rig.get(0x44), 0);
  assert.equal(rig.get(0xb0), 0xffff_ffff);
  assert.equal(rig.get(0x100), 0);
});

virtioTest("registers are words: other accesses read 0 and write nothing", virtioRng, (rig) => {
  for (const [offset, size] of [[0, 1], [0, 2], [2, 4], [8, 1]]) {
    assert.equal(rig.read(offset, size), 0);
  }
  rig.write(0x70, 1, 1);
  rig.write(0x71, 1, 4);
  assert.equal(rig.get(0x70), 0);
});

Deno.test("features that were not offered are refused, and so is a driver without virtio 1", () => {
  const rig = new VirtioRig(virtioRng);
  const attempt = (low: number, high: number) => {
    rig.set(0x70, 0);
    rig.set(0x70, Status.ACKNOWLEDGE | Status.DRIVER);
    for (const [word, bits] of [[0, low], [1, high]]) {
      rig.set(0x24, word);
      rig.set(0x20, bits);
    }
    rig.set(0x70, OK);
    return (rig.get(0x70) & Status.FEATURES_OK) !== 0;
  };
  assert.equal(attempt(0, 1), true);
  assert.equal(attempt(1, 1), false);
  assert.equal(attempt(0, 5), false, "packed rings are off by default");
  assert.equal(attempt(1 << Feature.EVENT_IDX, 0), false);
  assert.equal(attempt(1 << Feature.EVENT_IDX, 1), true);
});

Deno.test("what was agreed on stays until a reset, which takes everything back", () => {
  const rig = new VirtioRig(virtioRng);
  rig.negotiate(0n);
  rig.setUp(0, 4);
  rig.start();
  rig.set(0x38, 8);
  rig.set(0x80, RAM);
  const { queues, virtio } = virtioRng.state.view(rig.bytes.buffer);
  assert.deepEqual([queues.at(0).size, queues.at(0).desc_low], [4, DESC]);
  rig.set(0x24, 0);
  rig.set(0x20, 0xffff_ffff);
  assert.equal(virtio.driver_features_low, 0);
  rig.set(0x70, 0);
  assert.deepEqual([rig.get(0x70), rig.get(0x44)], [0, 0]);
  assert.equal(virtio.driver_features_high, 0);
});

Deno.test("a queue larger than it may be, or of no size, is malformed", () => {
  for (const size of [0, 3, 16, 0x1_0008, 0xffff_ffff]) {
    const rig = new VirtioRig(virtioRng);
    rig.negotiate(0n);
    rig.set(0x30, 0);
    rig.set(0x38, size);
    for (const [at, gpa] of [[0x80, RAM], [0x90, RAM + 0x1000], [0xa0, RAM + 0x2000]]) {
      rig.set(at, gpa);
    }
    rig.set(0x44, 1);
    rig.start();
    assert.notEqual(rig.get(0x70) & Status.NEEDS_RESET, 0, `${size} entries`);
  }
});

virtioTest("a queue is reset by itself, where that was agreed on", virtioRng, (rig, ring) => {
  for (const agreed of [false, true]) {
    rig.negotiate(ring | (agreed ? bit(Feature.RING_RESET) : 0n));
    rig.setUp(0);
    rig.start();
    rig.set(0x30, 0);
    rig.set(0xc0, 1);
    assert.equal(rig.get(0x44), agreed ? 0 : 1);
    assert.equal(rig.get(0xc0), 0, "it is done at once");
    if (!agreed) continue;
    rig.ram.clear();
    const driver = rig.setUp(0, 2);
    driver.add([{ gpa: RAM + 0xc_0000, length: 4, writable: true }]);
    rig.notify(0);
    assert.equal(driver.take().length, 1);
  }
});

Deno.test("a doorbell of a queue that is not there rings nowhere", () => {
  const rig = new VirtioRig(virtioRng);
  for (const index of [1, 8, 0xffff_ffff]) rig.set(0x50, index);
  assert.equal(rig.context.rung.size, 0);
  rig.set(0x50, 0);
  assert.equal(rig.context.rung.size, 1);
});
