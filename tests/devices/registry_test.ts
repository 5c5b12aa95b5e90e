import assert from "node:assert/strict";
import type { AttachedDisk } from "../../devices/block/disk.ts";
import { openNode } from "../../devices/block/open_node.ts";
import { THROTTLE_SIZE } from "../../devices/block/throttle.ts";
import { STATISTICS_SIZE } from "../../devices/block/statistics.ts";
import { withDefaults } from "../../devices/device.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { Rig } from "./fake_context.ts";

/** Deterministic pseudo-random integers, so that a failure can be repeated. */
function randomiser(seed: number): (limit: number) => number {
  return (limit) => {
    seed = Math.imul(seed ^ (seed >>> 15), 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return ((seed ^ (seed >>> 13)) >>> 0) % limit;
  };
}

/** A disk for those who have one: it forgets what is written. */
const { description } = openNode(
  {
    ...{ driver: "null-co", nodeName: "n", size: 1 << 20, readZeroes: true, readOnly: false },
    ...{ autoReadOnly: false, cache: { direct: false, noFlush: false } },
    ...{ discard: "unmap", detectZeroes: "off" },
  },
);
const disk: AttachedDisk = {
  disk: description,
  statistics: new SharedArrayBuffer(STATISTICS_SIZE),
  throttle: new SharedArrayBuffer(THROTTLE_SIZE),
};

Deno.test("`deviceTypes` names each type once", () => {
  const names = deviceTypes.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const name of ["isa-serial", "isa-debugcon", "isa-debug-exit", "mc146818rtc", "i8042"]) {
    assert.ok(names.includes(name), name);
  }
});

Deno.test("`deviceTypes` claim ranges that do not overlap by default", () => {
  const claimed = new Set<number>();
  for (const type of deviceTypes) {
    for (const { base, size } of type.ranges(withDefaults(type, {}))) {
      if (base === undefined) continue;
      for (let port = base; port < base + size; port++) {
        assert.ok(!claimed.has(port), `${type.name} at ${port}`);
        claimed.add(port);
      }
    }
  }
});

for (const type of deviceTypes) {
  /** Does one random thing to the device that a guest or a host could do. */
  const act = (rig: Rig, random: (limit: number) => number) => {
    const range = random(2);
    const size = [1, 2, 4][random(3)];
    switch (random(11)) {
      case 0:
      case 1:
        rig.write(random(8), random(2 ** 32) % 2 ** (8 * size), size, range);
        break;
      case 2:
      case 3: {
        const value = rig.read(random(8), size, range);
        assert.ok(Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size), `${value}`);
        break;
      }
      case 4:
        rig.call((device) => device.timer?.(0, rig.context.monotonic));
        break;
      case 5:
        rig.call((device) => {
          const room = device.inputRoom?.() ?? 0;
          assert.ok(room >= 0 && room <= 16, `${room}`);
          device.input?.(new Uint8Array(random(20)));
        });
        break;
      case 6:
        rig.sink.budget = random(40);
        rig.call((device) => device.writable?.());
        break;
      case 7:
        rig.call((device) => device.inputBreak?.());
        break;
      case 8:
        rig.call((device) => device.press?.(["ctrl", "a"].slice(random(3)), random(2 ** 32)));
        break;
      case 9:
        // A register that is further away.
        rig.write(4 * random(0x80), random(2) ? random(4) : random(2 ** 32), 4, 0);
        break;
      case 10:
        rig.call((device) => device.rung?.(random(rig.context.doorbells.length)));
        break;
    }
  };

  Deno.test(`${type.name} bears any saved state`, () => {
    for (let seed = 1; seed <= 150; seed++) {
      const random = randomiser(seed);
      const rig = new Rig(type, seed % 2 ? "kept" : "saved", {}, undefined, undefined, disk);
      rig.load(Uint8Array.from({ length: type.state.size }, () => random(4) ? random(256) : 0xff));
      const normalised = rig.bytes.slice();
      rig.load(normalised);
      assert.deepEqual(rig.bytes, normalised, `restored() is not idempotent for seed ${seed}`);
      for (let step = 0; step < 40; step++) act(rig, random);
    }
  });

  Deno.test(`${type.name} stays within its state when that changes under it`, () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = randomiser(seed);
      const rig = new Rig(type, "shared", {}, undefined, undefined, disk);
      for (let step = 0; step < 60; step++) {
        if (rig.bytes.length > 0) rig.bytes[random(rig.bytes.length)] = random(256);
        act(rig, random);
      }
    }
  });
}
