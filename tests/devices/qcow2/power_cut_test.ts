/** Whatever a power cut leaves of an image: it is consistent, and has what was flushed. */
import assert from "node:assert/strict";
import { MemoryDisk, MemoryFile, newImage } from "./memory_image.ts";
import { Dice } from "./testing.ts";

const SECTOR = 512;
const SIZE = 256 << 10;

/** What may be in each sector after a power cut: what was flushed, and what was written since. */
class Possible {
  readonly #sectors: Set<number>[] = Array.from({ length: SIZE / SECTOR }, () => new Set([0]));

  written(offset: number, length: number, value: number): void {
    for (let at = offset; at < offset + length; at += SECTOR) {
      // The last one is the last of the set.
      this.#sectors[at / SECTOR].delete(value);
      this.#sectors[at / SECTOR].add(value);
    }
  }

  /** The last value of each is the one. */
  flushed(): void {
    for (const values of this.#sectors) {
      const last = [...values].at(-1)!;
      values.clear();
      values.add(last);
    }
  }

  assertAre(disk: MemoryDisk, when: string): void {
    const bytes = disk.read(0, SIZE);
    assert.ok(typeof bytes !== "number", `${when}: ${bytes}`);
    for (const [sector, values] of this.#sectors.entries()) {
      const found = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      const value = found[0];
      assert.ok(found.every((byte) => byte === value), `${when}: sector ${sector} is torn`);
      assert.ok(values.has(value), `${when}: sector ${sector} has ${value}, not ${[...values]}`);
    }
  }
}

for (
  const [clusterBits, refcountOrder, version, lazyRefcounts] of [
    [9, 4, 3, false],
    [12, 4, 3, false],
    [10, 6, 2, false],
    [9, 4, 3, true],
    [12, 1, 3, true],
  ] as const
) {
  const what = `clusters of 2^${clusterBits}${lazyRefcounts ? ", lazy refcounts" : ""}`;
  Deno.test(`a power cut leaves no worse than leaks, ${what}`, () => {
    const dice = new Dice(clusterBits * 7 + refcountOrder);
    const order = version === 2 ? 4 : refcountOrder;
    const options = { size: SIZE, clusterBits, refcountOrder: order, version, lazyRefcounts };
    const file = newImage(2 << 20, options);
    using disk = new MemoryDisk(file);
    const possible = new Possible();
    let value = 0;
    let cuts = 0;
    /** How many of what was left had to be counted again. */
    let counted = 0;
    const cut = () => {
      if (dice.below(12) !== 0) return;
      using left = new MemoryDisk(new MemoryFile(2 << 20, file.afterPowerCut(dice)));
      const when = `cut ${++cuts}`;
      const wrong: string[] = [];
      const { corruptions } = left.check((text) => wrong.push(text));
      assert.equal(corruptions, 0, `${when}: ${wrong.join("\n")}`);
      if (left.image.layer.format.dirty) counted++;
      possible.assertAre(left, when);
      // It goes on from there, and what leaked is found.
      assert.equal(left.write(0, new Uint8Array(SIZE / 2).fill(9)), 0);
      left.check(() => {}, "all");
      const { corruptions: after, leaks } = left.check();
      assert.deepEqual([after, leaks], [0, 0], when);
    };
    file.onChange = cut;
    for (let step = 0; step < 250; step++) {
      const offset = dice.below(SIZE / SECTOR) * SECTOR;
      const length = Math.min(SIZE - offset, (1 + dice.below(24)) * SECTOR);
      value = value % 250 + 1;
      switch (dice.below(8)) {
        case 0:
          assert.equal(disk.image.flush(), 0);
          possible.flushed();
          break;
        case 1:
          possible.written(offset, length, 0);
          assert.equal(disk.image.zero(offset, length, true), 0);
          break;
        default:
          possible.written(offset, length, value);
          assert.equal(disk.write(offset, new Uint8Array(length).fill(value)), 0);
      }
    }
    assert.ok(cuts > 20, `${cuts} cuts`);
    assert.equal(counted > 0, lazyRefcounts);
    disk.image.layer.settle();
    using settled = new MemoryDisk(new MemoryFile(2 << 20, file.content));
    const { corruptions, leaks } = settled.check();
    assert.deepEqual([corruptions, leaks], [0, 0]);
    assert.equal(settled.image.layer.format.dirty, false);
  });
}

for (const refcountOrder of [0, 2, 3, 4, 6]) {
  Deno.test(`a new refcount block counts itself after a power cut, 2^${refcountOrder} bits`, () => {
    const dice = new Dice(refcountOrder + 1);
    const file = newImage(2 << 20, { size: 1 << 20, clusterBits: 9, refcountOrder });
    using disk = new MemoryDisk(file);
    let cuts = 0;
    file.onChange = () => {
      for (let i = 0; i < 3; i++) {
        using left = new MemoryDisk(new MemoryFile(2 << 20, file.afterPowerCut(dice)));
        const wrong: string[] = [];
        const { corruptions } = left.check((text) => wrong.push(text));
        assert.equal(corruptions, 0, `cut ${cuts}: ${wrong.join("\n")}`);
        cuts++;
      }
    };
    // More than a block counts.
    const clusters = 2 ** (9 + 3 - refcountOrder);
    for (let cluster = 0; cluster < Math.min(clusters, 1600); cluster += 16) {
      const near = cluster % 256 > 224 || cluster % 256 < 32;
      assert.equal(disk.write(cluster * 512, new Uint8Array(16 * 512).fill(1)), 0);
      if (near) assert.equal(disk.image.flush(), 0);
    }
    assert.ok(cuts > 20, `${cuts} cuts`);
  });
}
