/** Snapshots are made, applied and deleted, and a power cut meanwhile costs nothing but clusters. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readSnapshots, type Snapshot } from "../../../devices/block/qcow2/snapshots.ts";
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
} from "../../../devices/block/qcow2/snapshot_change.ts";
import { MemoryDisk, MemoryFile, newImage } from "./memory_image.ts";
import { Dice } from "./testing.ts";

const SIZE = 256 << 10;
const LIMIT = 2 << 20;
const NOW = 1_700_000_000_123_456_789n;

function snapshotsOf({ image: { layer } }: MemoryDisk): readonly Snapshot[] {
  return readSnapshots(layer.storage, layer.format).snapshots;
}

/** Changes an image's snapshots as a command does: it opens the image for that alone. */
function change(file: MemoryFile, action: (disk: MemoryDisk, all: readonly Snapshot[]) => void) {
  using disk = new MemoryDisk(file);
  const result = disk.image.run(() => action(disk, snapshotsOf(disk)));
  disk.image.layer.settle();
  return result;
}

const create = (file: MemoryFile, name: string) =>
  change(file, (disk, all) => createSnapshot(disk.image.layer, all, name, NOW));
const named = (all: readonly Snapshot[], name: string) => all.find((one) => one.name === name)!;
const apply = (file: MemoryFile, name: string) =>
  change(file, (disk, all) => applySnapshot(disk.image.layer, named(all, name)));
const remove = (file: MemoryFile, name: string) =>
  change(file, (disk, all) => deleteSnapshot(disk.image.layer, all, named(all, name)));

/** Writes a value to some ranges. */
function scribble(file: MemoryFile, dice: Dice, value: number): void {
  using disk = new MemoryDisk(file);
  for (let i = 0; i < 6; i++) {
    const offset = dice.below(SIZE / 512 - 32) * 512;
    const length = (1 + dice.below(32)) * 512;
    if (i === 5) assert.equal(disk.image.zero(offset, length, true), 0);
    else assert.equal(disk.write(offset, new Uint8Array(length).fill(value)), 0);
  }
  disk.image.layer.settle();
}

function contentOf(file: MemoryFile): Uint8Array {
  using disk = new MemoryDisk(file);
  const bytes = disk.read(0, SIZE);
  assert.ok(typeof bytes !== "number");
  return bytes;
}

/** Fails unless its refcounts and flags are right. */
function assertRight(file: MemoryFile, when: string): void {
  using disk = new MemoryDisk(file);
  const wrong: string[] = [];
  disk.check((text) => wrong.push(text));
  assert.deepEqual(wrong, [], when);
}

for (const [clusterBits, refcountOrder] of [[9, 4], [12, 2], [10, 6]] as const) {
  Deno.test(`snapshots are what the disk was, clusters of 2^${clusterBits}`, () => {
    const dice = new Dice(clusterBits);
    const file = newImage(LIMIT, { size: SIZE, clusterBits, refcountOrder });
    const held = new Map<string, Uint8Array>();
    let current = contentOf(file);
    for (let step = 1; step < 60; step++) {
      const names = [...held.keys()];
      const what = dice.below(5);
      const name = names[dice.below(names.length)];
      if (what < 2) {
        scribble(file, dice, step);
        current = contentOf(file);
      } else if (what === 2 && names.length < 8) {
        assert.equal(create(file, `s${step}`), 0);
        held.set(`s${step}`, current);
      } else if (what === 3 && name !== undefined) {
        assert.equal(apply(file, name), 0);
        current = held.get(name)!;
      } else if (name !== undefined) {
        assert.equal(remove(file, name), 0);
        held.delete(name);
      }
      assertRight(file, `step ${step}`);
      assert.deepEqual(contentOf(file), current, `step ${step}`);
    }
    for (const [name, content] of held) {
      apply(file, name);
      assert.deepEqual(contentOf(file), content, name);
      remove(file, name);
    }
    assertRight(file, "the end");
    using disk = new MemoryDisk(file);
    assert.deepEqual(snapshotsOf(disk), []);
  });
}

Deno.test("a power cut leaves the snapshots and the disk of before, or those of after", () => {
  const dice = new Dice(4);
  const file = newImage(LIMIT, { size: SIZE, clusterBits: 9 });
  const held = new Map<string, Uint8Array>();
  let cuts = 0;
  /** What may be found: names of snapshots, and the disk. */
  let possible: { names: string[]; content: Uint8Array }[] = [];
  const look = () => {
    const left = new MemoryFile(LIMIT, file.afterPowerCut(dice));
    const when = `cut ${++cuts}`;
    using disk = new MemoryDisk(left);
    const wrong: string[] = [];
    disk.check((text) => wrong.push(text));
    // A cluster that is counted twice may be written in place until there is the second use of it, and
    // one that is so no more, elsewhere.
    const bad = wrong.filter((text) => !/^Leaked|OFLAG_COPIED/.test(text));
    assert.deepEqual(bad, [], when);
    const names = snapshotsOf(disk).map(({ name }) => name);
    const content = disk.read(0, SIZE);
    const isPossible = possible.some((one) =>
      one.names.join() === names.join() && Buffer.from(one.content).equals(content as Uint8Array)
    );
    assert.ok(isPossible, `${when}: ${names}`);
    disk.check(() => {}, "all");
    disk.image.layer.settle();
    assert.equal(create(left, "another"), 0);
    scribble(left, dice, 255);
    for (const name of names) {
      assert.equal(apply(left, name), 0);
      assert.deepEqual(contentOf(left), held.get(name), `${when}: ${name}`);
    }
    assertRight(left, when);
  };
  const during = (after: (names: string[]) => string[], content: Uint8Array, run: () => void) => {
    using disk = new MemoryDisk(file);
    const names = snapshotsOf(disk).map(({ name }) => name);
    const before = contentOf(file);
    possible = [{ names, content: before }, { names: after(names), content }];
    file.onChange = look;
    run();
    file.onChange = () => {};
  };
  for (let round = 1; round < 5; round++) {
    scribble(file, dice, round);
    const [name, content] = [`s${round}`, contentOf(file)];
    held.set(name, content);
    during((names) => [...names, name], content, () => assert.equal(create(file, name), 0));
    scribble(file, dice, 100 + round);
    const old = `s${Math.ceil(round / 2)}`;
    if (held.has(old)) {
      during((names) => names, held.get(old)!, () => assert.equal(apply(file, old), 0));
    }
    if (round % 2 === 0) {
      during(
        (names) => names.filter((one) => one !== old),
        contentOf(file),
        () => assert.equal(remove(file, old), 0),
      );
      held.delete(old);
    }
  }
  assert.ok(cuts > 40, `${cuts} cuts`);
});

Deno.test("a snapshot for which there is no room is not made, and nothing is lost", () => {
  // Refcounts of one bit count no second use.
  const small = newImage(LIMIT, { size: SIZE, clusterBits: 9, refcountOrder: 0 });
  assert.equal(create(small, "empty"), 0);
  scribble(small, new Dice(1), 7);
  assert.throws(() => create(small, "full"), {
    message: "-22 (Invalid argument): refcounts of 1 bits end at 1",
  });
  assertRight(small, "refcounts of one bit");
  // The file is full.
  const probe = newImage(LIMIT, { size: SIZE, clusterBits: 9 });
  {
    using disk = new MemoryDisk(probe);
    assert.equal(disk.write(0, new Uint8Array(SIZE).fill(7)), 0);
    disk.image.layer.settle();
  }
  const full = new MemoryFile(probe.content.length, probe.content);
  assert.ok(create(full, "s") < 0);
  const wrong: string[] = [];
  using disk = new MemoryDisk(new MemoryFile(LIMIT, full.content));
  disk.check((text) => wrong.push(text));
  assert.deepEqual(wrong.filter((text) => !text.startsWith("Leaked")), []);
  assert.deepEqual(contentOf(full), contentOf(probe));
});

Deno.test("a snapshot that leads to what is not counted, or in a circle, marks the image as corrupt", () => {
  for (const damage of ["uncounted", "twice"] as const) {
    const file = newImage(LIMIT, { size: SIZE, clusterBits: 9 });
    scribble(file, new Dice(3), 9);
    create(file, "s");
    {
      using disk = new MemoryDisk(file);
      const [{ l1Offset }] = snapshotsOf(disk);
      const { layer: { storage, refcounts, metadata } } = disk.image;
      const entries = Array.from({ length: 8 }, (_, i) => storage.loadBytes(l1Offset + i * 8, 8));
      const [first, second] = entries.filter((entry) => entry.some((byte) => byte !== 0));
      if (damage === "twice") {
        storage.storeBytes(first, l1Offset + entries.indexOf(second) * 8);
      } else {
        const table = Number(new DataView(first.buffer).getBigUint64(0) & 0xff_ffff_ffff_fe00n);
        refcounts.put(table / 512, 0);
        metadata.writeRefcounts();
      }
    }
    const { error } = console;
    console.error = () => {};
    try {
      assert.ok(apply(file, "s") < 0, damage);
    } finally {
      console.error = error;
    }
    assert.equal(file.content[79] & 2, 2, damage);
  }
});
