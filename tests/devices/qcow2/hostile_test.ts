/** Images with flipped bits are refused, or read and written as far as they make sense. */
import assert from "node:assert/strict";
import { MemoryDisk, MemoryFile, newImage } from "./memory_image.ts";
import { Dice } from "./testing.ts";

const LIMIT = 4 << 20;
const SIZE = 512 << 10;

/** An image with data in it. */
function filled(clusterBits: number, dice: Dice): Uint8Array<ArrayBuffer> {
  const file = newImage(LIMIT, { size: SIZE, clusterBits });
  using disk = new MemoryDisk(file);
  for (let i = 0; i < 40; i++) {
    const offset = dice.below(SIZE / 512 - 16) * 512;
    assert.equal(disk.write(offset, new Uint8Array(8192).fill(i + 1)), 0);
  }
  disk.image.layer.settle();
  return file.content;
}

/** Does all that can be done to an image. @returns what became of it */
function use(content: Uint8Array<ArrayBuffer>, dice: Dice): "refused" | "failed" | "worked" {
  const file = new MemoryFile(LIMIT, content);
  let disk: MemoryDisk;
  try {
    disk = new MemoryDisk(file);
  } catch (error) {
    assert.ok(error instanceof Error && error.message !== "", String(error));
    assert.ok(!(error instanceof TypeError || error instanceof RangeError), error.stack);
    return "refused";
  }
  using _ = disk;
  const results: number[] = [];
  // It may claim to be large.
  const sectors = Math.min(disk.size, 2 ** 40) / 512;
  for (let i = 0; i < 30; i++) {
    const sector = i % 2 === 0 ? dice.below(sectors) : dice.below(Math.min(sectors, SIZE / 512));
    const offset = Math.floor(sector) * 512;
    const length = Math.min(disk.size - offset, 4096);
    if (length <= 0) continue;
    const read = disk.read(offset, length);
    results.push(typeof read === "number" ? read : 0);
    results.push(disk.write(offset, new Uint8Array(length).fill(0xee)));
    results.push(disk.image.zero(offset, length, i % 3 === 0));
    results.push(disk.image.discard(offset, length));
  }
  results.push(disk.image.flush());
  assert.ok(results.every((result) => result <= 0 && result > -4096));
  return results.some((result) => result < 0) ? "failed" : "worked";
}

for (const clusterBits of [9, 12]) {
  Deno.test(`flipped bits in tables of an image with clusters of 2^${clusterBits}`, () => {
    const dice = new Dice(clusterBits);
    const good = filled(clusterBits, dice);
    assert.equal(use(good, dice), "worked");
    const counts = { refused: 0, failed: 0, worked: 0 };
    // Header, refcounts, L1 and the first L2 table are at the front.
    const tables = Math.min(good.length, 8 << clusterBits);
    for (let round = 0; round < 400; round++) {
      const bad = good.slice();
      for (let flips = 1 + dice.below(4); flips > 0; flips--) {
        const at = round % 2 === 0 ? dice.below(112) : dice.below(tables);
        bad[at] ^= 1 << dice.below(8);
      }
      counts[use(bad, dice)]++;
    }
    for (const [what, count] of Object.entries(counts)) assert.ok(count > 5, `${what}: ${count}`);
  });
}

Deno.test("an image that says that data are in a table is not written there, and is marked", () => {
  const file = newImage(LIMIT, { size: SIZE, clusterBits: 12 });
  {
    using disk = new MemoryDisk(file);
    assert.equal(disk.write(0, new Uint8Array(4096).fill(1)), 0);
    disk.image.layer.settle();
  }
  // Header, refcount table, refcount block, L1, L2, data: the mapping is made to point to the L1 table.
  const content = file.content;
  const view = new DataView(content.buffer);
  assert.equal(view.getBigUint64(4 * 4096), 1n << 63n | 5n * 4096n);
  for (
    const [cluster, what] of [[1, "refcount table"], [3, "active L1 table"], [4, "active L2 table"]]
  ) {
    view.setBigUint64(4 * 4096, 1n << 63n | BigInt(cluster) * 4096n);
    const bad = new MemoryFile(LIMIT, content);
    using disk = new MemoryDisk(bad);
    const before = bad.content;
    assert.equal(disk.write(0, new Uint8Array(512).fill(2)), -5, `${what}`);
    assert.equal(typeof disk.read(4096, 512), "number", "nothing is done any more");
    const after = bad.content;
    assert.equal(after[79] & 2, 2, "the corrupt bit");
    assert.deepEqual(after.slice(80), before.slice(80));
  }
});

Deno.test("tables that are there again and again are not followed again and again", () => {
  const file = newImage(LIMIT, { size: 64 << 10, clusterBits: 9 });
  {
    using disk = new MemoryDisk(file);
    assert.equal(disk.write(0, new Uint8Array(512).fill(1)), 0);
    disk.image.layer.settle();
  }
  // Two L1 entries, and both lead to the first one's table.
  const content = file.content;
  const view = new DataView(content.buffer);
  const l1 = Number(view.getBigUint64(40));
  view.setBigUint64(l1 + 8, view.getBigUint64(l1));
  {
    using disk = new MemoryDisk(new MemoryFile(LIMIT, content));
    const wrong: string[] = [];
    disk.check((text) => wrong.push(text));
    assert.match(wrong[0], /^ERROR l2_offset=\w+: L1 entry 1 has it as well$/);
  }
  // Snapshots, all with the same L1 table, each as large as one may be.
  const table = new Uint8Array(32 * 40);
  const entries = new DataView(table.buffer);
  for (let at = 0; at < table.length; at += 40) {
    entries.setBigUint64(at, BigInt(l1));
    entries.setUint32(at + 8, 4 << 20);
  }
  const larger = new Uint8Array(content.length + table.length);
  larger.set(content);
  larger.set(table, content.length);
  const header = new DataView(larger.buffer);
  header.setUint32(60, 32);
  header.setBigUint64(64, BigInt(content.length));
  assert.equal(content.length % 512, 0);
  // Not closed, so that all would be counted.
  header.setUint8(79, 1);
  using disk = new MemoryDisk(new MemoryFile(LIMIT, larger));
  const read = disk.read(0, 512);
  assert.equal(read, -5, "it is marked");
});

Deno.test("headers that make no sense are refused in QEMU's words", () => {
  const good = newImage(LIMIT, { size: SIZE, clusterBits: 12 }).content;
  const cases: [at: number, value: number, message: RegExp][] = [
    [0, 1, /^Image is not in qcow2 format$/],
    [4, 4, /^Unsupported qcow2 version 4$/],
    [20, 8, /^Unsupported cluster size: 2\^8$/],
    [20, 22, /^Unsupported cluster size: 2\^22$/],
    [32, 1, /^Encrypted qcow2 images are not supported$/],
    [36, 0, /^L1 table is too small$/],
    [36, 0x7fffffff, /^Active L1 table too large$/],
    [44, 4095, /^Active L1 table offset invalid$/],
    [52, 512, /^Reference count table offset invalid$/],
    [56, 0, /^Image does not contain a reference count table$/],
    [56, 0x7fffffff, /^Reference count table too large$/],
    [60, 70000, /^Snapshot table too large$/],
    [76, 4, /^Unsupported qcow2 feature\(s\): external data file$/],
    [76, 16, /^Unsupported qcow2 feature\(s\): extended L2 entries$/],
    [96, 7, /^Reference count entry width too large; may not exceed 64 bits$/],
    [100, 96, /^qcow2 header too short$/],
    [100, 8192, /^qcow2 header exceeds cluster size$/],
  ];
  for (const [at, value, message] of cases) {
    const bad = good.slice();
    new DataView(bad.buffer).setUint32(at, value);
    assert.throws(() => new MemoryDisk(new MemoryFile(LIMIT, bad)), { message }, `${at}`);
  }
});
