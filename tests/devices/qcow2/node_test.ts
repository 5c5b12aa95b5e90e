/** qcow2 nodes: what is behind them, what a successor gets, and whom they keep away. */
import assert from "node:assert/strict";
import { Disk } from "../../../devices/block/disk.ts";
import { resizeQcow2 } from "../../../devices/block/qcow2/resize.ts";
import { duplicate } from "../../../ffi/fd.ts";
import { IoVector } from "../../../ffi/iovec.ts";
import { mapAnonymous } from "../../../ffi/memory.ts";
import { BlockSet } from "../../../vmm/block_set.ts";
import { Inheritance } from "../../../vmm/inheritance.ts";
import { parseBlockdev } from "../../../vmm/options/blockdev.ts";
import { MemoryDisk, MemoryFile, newImage } from "./memory_image.ts";
import {
  checkImage,
  create,
  Dice,
  hasQemuImg,
  OpenImage,
  qemuImg,
  qemuImgOk,
  withFolder,
} from "./testing.ts";

const MIB = 1 << 20;
const nodes = (path: string, options = {}) =>
  parseBlockdev({
    ...{ driver: "qcow2", "node-name": "disk", file: { driver: "file", filename: path } },
    ...options,
  });

/** Sets that are closed at the end, and 64 KiB of memory. */
class Bench implements Disposable {
  readonly #sets: BlockSet[] = [];
  readonly memory = mapAnonymous(64 << 10);

  set(): BlockSet {
    const set = new BlockSet();
    this.#sets.push(set);
    return set;
  }

  /** Fills a range of a set's first disk with a byte. */
  fill(set: BlockSet, offset: number, byte: number): void {
    this.memory.write(0, new Uint8Array(64 << 10).fill(byte));
    assert.equal(new Disk(set.nodes[0].description).write(this.#vector(), offset), 0);
  }

  /** The byte that a range is filled with. */
  byteAt(set: BlockSet, offset: number): number {
    assert.equal(new Disk(set.nodes[0].description).read(this.#vector(), offset), 0);
    const [first, ...others] = new Set(this.memory.read(0, 64 << 10));
    assert.deepEqual(others, []);
    return first;
  }

  #vector(): IoVector {
    const vector = new IoVector(1);
    vector.push(this.memory.address, 64 << 10);
    return vector;
  }

  [Symbol.dispose](): void {
    for (const set of this.#sets.reverse()) set.close();
    this.memory.close();
  }
}

/** What a set hands over, as duplicates. */
function inheritedFrom(set: BlockSet): Inheritance {
  const inheritance = new Inheritance(true);
  const { fds, values } = set.handOver();
  for (const { name, id, fd } of fds) inheritance.addFd(name, id, duplicate(fd));
  for (const { name, id, data } of values) inheritance.addValue(name, id, data);
  return inheritance;
}

Deno.test("a successor has what is not yet in the file, and who is left writes nothing to it", () =>
  withFolder((folder) => {
    using bench = new Bench();
    const path = `${folder}/disk.qcow2`;
    create(path, { size: 8 * MIB });
    const old = bench.set();
    old.open(nodes(path), []);
    bench.fill(old, 0, 1);
    using inheritance = inheritedFrom(old);
    const next = bench.set();
    next.open(nodes(path), [], inheritance, true);
    // The old VMM goes on writing until the guest moves.
    bench.fill(old, MIB, 2);
    const arrived = next.arrive();
    arrived();
    assert.deepEqual([0, MIB, 2 * MIB].map((at) => bench.byteAt(next, at)), [1, 2, 0]);
    bench.fill(next, 2 * MIB, 3);
    const before = Deno.readFileSync(path);
    old.close();
    assert.deepEqual(Deno.readFileSync(path), before);
    assert.equal(bench.byteAt(next, 2 * MIB), 3);
    next.close();
    using image = new OpenImage(path);
    assert.deepEqual(image.read(MIB, 1)[0], 2);
    assert.deepEqual(image.read(2 * MIB, 1)[0], 3);
    const { leaks, corruptions } = checkImage(image);
    assert.deepEqual([leaks, corruptions], [0, 0]);
  }));

/** Makes the first cluster of a disk be where the L1 table is. */
function spoil(path: string): void {
  const content = Deno.readFileSync(path);
  const view = new DataView(content.buffer);
  const l1 = view.getBigUint64(40);
  const l2 = view.getBigUint64(Number(l1)) & 0x00ff_ffff_ffff_fe00n;
  view.setBigUint64(Number(l2), 1n << 63n | l1);
  Deno.writeFileSync(path, content);
}

Deno.test("an image that contradicts itself is told of once, whichever VMM has found it", () =>
  withFolder((folder) => {
    using bench = new Bench();
    const path = `${folder}/disk.qcow2`;
    // Version 2 has no mark, by which a successor would refuse the image.
    create(path, { size: 8 * MIB, version: 2 });
    const first = bench.set();
    first.open(nodes(path), []);
    bench.fill(first, 0, 1);
    assert.deepEqual(first.takeCorruptions(), []);
    first.close();
    spoil(path);
    const drive = { id: "d", nodeName: "disk", writeCache: true };
    const old = bench.set();
    old.open(nodes(path), [drive]);
    assert.throws(() => bench.fill(old, 0, 2), /-5/);
    const told = {
      ...{ drive: "d", nodeName: "disk" },
      reason:
        "Preventing invalid write on metadata (overlaps with active L1 table) at offset 196608",
    };
    // Found and not told of yet: the successor tells.
    using inheritance = inheritedFrom(old);
    const next = bench.set();
    next.open(nodes(path), [drive], inheritance, true);
    next.arrive()();
    assert.deepEqual(next.takeCorruptions(), [told]);
    assert.deepEqual(next.takeCorruptions(), []);
    // And the one after that does not again.
    using again = inheritedFrom(next);
    const last = bench.set();
    last.open(nodes(path), [drive], again, true);
    last.arrive()();
    assert.deepEqual(last.takeCorruptions(), []);
    assert.throws(() => bench.fill(last, 0, 2), /-5/);
  }));

Deno.test("a successor that takes an image for a raw disk, or has not its node, is refused", () =>
  withFolder((folder) => {
    using bench = new Bench();
    const path = `${folder}/disk.qcow2`;
    create(path, { size: MIB });
    const old = bench.set();
    const image = nodes(path);
    old.open(image, []);
    using inheritance = inheritedFrom(old);
    assert.throws(() => bench.set().open(nodes(path, { driver: "raw" }), [], inheritance), {
      message: "Node 'disk' is qcow2 in the old VMM, not raw: say format=qcow2 in -drive," +
        " driver=qcow2 in -blockdev",
    });
    assert.throws(() => bench.set().open(image.slice(0, -1), [], inheritance), {
      message: "The guest has a disk 'disk' that this VMM has not: give it the old VMM's -drive" +
        " or -blockdev as well",
    });
  }));

Deno.test("a successor that never gets the guest writes nothing", () =>
  withFolder((folder) => {
    using bench = new Bench();
    const path = `${folder}/disk.qcow2`;
    create(path, { size: 8 * MIB });
    const old = bench.set();
    old.open(nodes(path), []);
    bench.fill(old, 0, 1);
    using inheritance = inheritedFrom(old);
    const next = bench.set();
    next.open(nodes(path), [], inheritance, true);
    const before = Deno.readFileSync(path);
    next.close();
    assert.deepEqual(Deno.readFileSync(path), before);
    bench.fill(old, MIB, 2);
    old.close();
    using image = new OpenImage(path);
    assert.deepEqual([image.read(0, 1)[0], image.read(MIB, 1)[0]], [1, 2]);
  }));

Deno.test("who lets go of an image has written it, and reads it again when it is back", () =>
  withFolder((folder) => {
    using bench = new Bench();
    const path = `${folder}/disk.qcow2`;
    create(path, { size: 8 * MIB });
    const old = bench.set();
    old.open(nodes(path), []);
    bench.fill(old, 0, 1);
    old.letGo("all");
    {
      using image = new OpenImage(path);
      assert.equal(image.read(0, 1)[0], 1);
      assert.equal(image.write(MIB, new Uint8Array(64 << 10).fill(2)), 0);
    }
    assert.equal(old.whyNotHeld(), undefined);
    assert.deepEqual([0, MIB].map((at) => bench.byteAt(old, at)), [1, 2]);
    bench.fill(old, 2 * MIB, 3);
    old.close();
    using image = new OpenImage(path);
    assert.deepEqual([0, MIB, 2 * MIB].map((at) => image.read(at, 1)[0]), [1, 2, 3]);
  }));

Deno.test("an image that was not closed is counted anew before it is written", () =>
  withFolder((folder) => {
    const path = `${folder}/disk.qcow2`;
    create(path, { size: 8 * MIB, lazyRefcounts: true });
    {
      using image = new OpenImage(path);
      assert.equal(image.write(0, new Uint8Array(3 * MIB).fill(5)), 0);
    }
    // As after a crash with refcounts that were to be written late: dirty, and without any for data.
    const bytes = Deno.readFileSync(path);
    bytes[79] |= 1;
    bytes.fill(0, (2 << 16) + 8, 3 << 16);
    Deno.writeFileSync(path, bytes);
    {
      using reader = new OpenImage(path, { "read-only": true });
      assert.deepEqual(reader.read(MIB, 1)[0], 5);
    }
    assert.equal(Deno.readFileSync(path)[79] & 1, 1);
    {
      using image = new OpenImage(path);
      assert.equal(image.write(4 * MIB, new Uint8Array(MIB).fill(6)), 0);
    }
    using image = new OpenImage(path);
    assert.equal(Deno.readFileSync(path)[79] & 1, 0);
    assert.deepEqual([image.read(MIB, 1)[0], image.read(4 * MIB, 1)[0]], [5, 6]);
    const { leaks, corruptions } = checkImage(image);
    assert.deepEqual([leaks, corruptions], [0, 0]);
  }));

Deno.test("lazy refcounts are written when an image is closed, and until then its header says so", () =>
  withFolder(async (folder) => {
    const [path, cut] = [`${folder}/disk.qcow2`, `${folder}/cut.qcow2`];
    create(path, { size: 8 * MIB, lazyRefcounts: true });
    const isMarked = () => (Deno.readFileSync(path)[79] & 1) === 1;
    using bench = new Bench();
    const old = bench.set();
    old.open(nodes(path), []);
    const block = () => Deno.readFileSync(path).subarray(2 << 16, 3 << 16);
    const before = block();
    bench.fill(old, 0, 1);
    assert.ok(!isMarked());
    assert.equal(new Disk(old.nodes[0].description).flush(), 0);
    assert.ok(isMarked());
    assert.deepEqual(block(), before);
    // What a power cut leaves is counted.
    Deno.copyFileSync(path, cut);
    if (hasQemuImg) assert.match((await qemuImg("check", cut)).text, /refcount=0 reference=1/);
    {
      using image = new OpenImage(cut);
      assert.equal(image.read(0, 1)[0], 1);
      const { leaks, corruptions } = checkImage(image);
      assert.deepEqual([leaks, corruptions], [0, 0]);
    }
    // A successor knows of the mark, and takes it away.
    using inheritance = inheritedFrom(old);
    const next = bench.set();
    next.open(nodes(path), [], inheritance, true);
    next.arrive()();
    old.close();
    assert.ok(isMarked());
    bench.fill(next, MIB, 2);
    next.close();
    assert.ok(!isMarked());
    assert.notDeepEqual(block(), before);
    if (hasQemuImg) assert.match(await qemuImgOk("check", path), /No errors were found/);
    using image = new OpenImage(path);
    assert.deepEqual([image.read(0, 1)[0], image.read(MIB, 1)[0]], [1, 2]);
  }));

Deno.test("a longer L1 table of an image with lazy refcounts is counted before the header has it", () => {
  const dice = new Dice(3);
  const file = newImage(4 << 20, { size: 1 << 20, clusterBits: 9, lazyRefcounts: true });
  using disk = new MemoryDisk(file);
  assert.equal(disk.write(0, new Uint8Array(4096).fill(1)), 0);
  let looks = 0;
  file.onChange = () => {
    looks++;
    using left = new MemoryDisk(new MemoryFile(4 << 20, file.afterPowerCut(dice)));
    const { corruptions } = left.check();
    assert.equal(corruptions, 0, `cut ${looks}`);
  };
  resizeQcow2(disk.image, 16 << 20);
  assert.ok(looks > 3);
});

Deno.test("images behind images: circles, formats and names that are not known", () =>
  withFolder((folder) => {
    const path = `${folder}/a.qcow2`;
    const cases: [filename: string, format: string, message: RegExp][] = [
      ["a.qcow2", "qcow2", /^Backing files of '.*a\.qcow2' are more than 100, or form a circle$/],
      ["a.qcow2", "qed", /^Unknown driver 'qed' of the backing file of '.*a\.qcow2'$/],
      ["nbd://host/x", "raw", /^Unknown protocol 'nbd' of the backing file 'nbd:\/\/host\/x'$/],
      ["missing", "raw", /^Could not open '.*\/missing': No such file or directory$/],
    ];
    for (const [filename, format, message] of cases) {
      create(path, { size: MIB, backing: { filename, format } });
      assert.throws(() => new OpenImage(path), { message });
      // Without it, the image alone can be had.
      using image = new OpenImage(path, { backing: null });
      assert.deepEqual(image.read(0, 512), new Uint8Array(512));
    }
  }));

Deno.test("a file is one image's, one behind images everybody's who does not write to it", () =>
  withFolder(async (folder) => {
    const [base, path, other] = ["base", "a", "b"].map((name) => `${folder}/${name}`);
    create(base, { size: MIB });
    const backing = { filename: "base", format: "qcow2" };
    create(path, { size: MIB, backing });
    create(other, { size: MIB, backing });
    using _ = new OpenImage(path);
    using __ = new OpenImage(other);
    const refused = /^Failed to get (shared )?"write" lock\nIs another process using the image/;
    assert.throws(() => new OpenImage(path), { message: refused });
    assert.throws(() => new OpenImage(base), { message: refused });
    if (!hasQemuImg) return;
    const { code, text } = await qemuImg("check", path);
    assert.equal(code, 1, text);
    assert.match(text, /Failed to get shared "write" lock/);
    assert.equal((await qemuImg("info", "-U", path)).code, 0);
  }));

Deno.test("blockdev-add and blockdev-del of an image with those behind it", () =>
  withFolder((folder) => {
    using bench = new Bench();
    const [base, path] = [`${folder}/base`, `${folder}/a`];
    create(base, { size: MIB });
    create(path, { size: MIB, backing: { filename: "base", format: "qcow2" } });
    const set = bench.set();
    set.add(nodes(path));
    const names = set.nodes.map(({ config }) => config.nodeName);
    const unnamed = ["#disk.backing", "#disk.backing.file", "#disk.file"];
    assert.deepEqual(names, ["disk", ...unnamed]);
    assert.throws(() => set.remove("#disk.backing"), {
      message: "Node #disk.backing is not owned by the monitor",
    });
    set.remove("disk");
    assert.deepEqual(set.nodes, []);
    // All of its files are free again.
    using _ = new OpenImage(path, { backing: null });
    using __ = new OpenImage(base);
  }));

Deno.test("a disk is made larger and smaller, and shows nothing of what was or is behind it", () =>
  withFolder(async (folder) => {
    const [base, path] = [`${folder}/base`, `${folder}/a`];
    Deno.writeFileSync(base, new Uint8Array(4 * MIB).fill(8));
    const backing = { filename: "base", format: "raw" };
    create(path, { size: MIB, clusterBits: 9, backing });
    {
      using image = new OpenImage(path);
      const { set, disk } = image;
      assert.equal(image.write(MIB - 512, new Uint8Array(512).fill(1)), 0);
      set.resize({ nodeName: "disk" }, 64 * MIB);
      assert.equal(disk.sizeBytes, 64 * MIB);
      assert.deepEqual([...new Set(image.read(MIB, 4 * MIB - 512))], [0]);
      assert.equal(image.write(63 * MIB, new Uint8Array(512).fill(2)), 0);
      set.resize({ nodeName: "disk" }, MIB - 512);
      set.resize({ nodeName: "disk" }, 64 * MIB);
      assert.deepEqual([...new Set(image.read(MIB - 512, MIB))], [0]);
      assert.deepEqual([...new Set(image.read(63 * MIB, 512))], [0]);
      assert.equal(image.read(MIB - 1024, 1)[0], 8);
      for (
        const [size, message] of [[1000, /multiple of 512/], [2 ** 50, /Image is too big/]] as const
      ) {
        assert.throws(() => set.resize({ nodeName: "disk" }, size), { message });
      }
    }
    using image = new OpenImage(path);
    assert.equal(image.disk.sizeBytes, 64 * MIB);
    const wrong: string[] = [];
    const { leaks, corruptions } = checkImage(image, (text) => wrong.push(text));
    assert.deepEqual([leaks, corruptions], [0, 0], wrong.join("\n"));
    if (hasQemuImg) assert.equal((await qemuImg("check", "-U", path)).code, 0);
  }));
