import assert from "node:assert/strict";
import type { BlockNodeConfig, FileNodeConfig } from "../../devices/block/config.ts";
import { Disk } from "../../devices/block/disk.ts";
import type { BlockNode } from "../../devices/block/node.ts";
import { openNode } from "../../devices/block/open_node.ts";
import { Errno } from "../../ffi/errno.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { mapAnonymous, type MappedRegion } from "../../ffi/memory.ts";

const KIB = 1024;
const common = {
  readOnly: false,
  autoReadOnly: false,
  cache: { direct: false, noFlush: false },
  discard: "ignore",
  detectZeroes: "off",
} as const;

function fileConfig(filename: string, changes: Partial<FileNodeConfig> = {}): FileNodeConfig {
  return {
    ...common,
    ...{ driver: "file", nodeName: "file", filename, locking: "off", aio: "threads" },
    ...changes,
  };
}

interface Bench extends Disposable {
  readonly path: string;
  /** 1 MiB of memory. */
  readonly memory: MappedRegion;
  /** Opens a node, which is closed at the end. */
  open(config: BlockNodeConfig, child?: BlockNode): { node: BlockNode; disk: Disk };
}

/** A file with a content of its own, and memory. */
function bench(content: Uint8Array | number): Bench {
  const path = Deno.makeTempFileSync();
  if (typeof content === "number") Deno.truncateSync(path, content);
  else Deno.writeFileSync(path, content);
  const memory = mapAnonymous(1 << 20);
  const nodes: BlockNode[] = [];
  return {
    path,
    memory,
    open(config, child) {
      const node = openNode(config, child && { child });
      nodes.push(node);
      return { node, disk: new Disk(node.description) };
    },
    [Symbol.dispose]() {
      for (const node of nodes) node.close();
      memory.close();
      Deno.removeSync(path);
    },
  };
}

/** Pieces of memory, as offsets and lengths. */
function pieces(memory: MappedRegion, ...parts: [offset: number, length: number][]): IoVector {
  const vector = new IoVector();
  for (const [offset, length] of parts) vector.push(memory.address + offset, length);
  return vector;
}

/** Bytes of which none is like its neighbours, and none is zero. */
function pattern(length: number, seed = 0): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => 1 + ((i * 7 + seed) % 255));
}

Deno.test("a disk reads and writes its file by pieces of memory", () => {
  const content = pattern(64 * KIB);
  using b = bench(content);
  const { disk } = b.open(fileConfig(b.path));
  assert.equal(disk.sizeBytes, 64 * KIB);
  assert.equal(disk.read(pieces(b.memory, [100, 1000], [5000, 3096]), 512), 0);
  assert.deepEqual(b.memory.read(100, 1000), content.slice(512, 1512));
  assert.deepEqual(b.memory.read(5000, 3096), content.slice(1512, 4608));
  const written = pattern(8192, 99);
  b.memory.write(0, written);
  assert.equal(disk.write(pieces(b.memory, [4096, 4096], [0, 4096]), 1024), 0);
  assert.equal(disk.flush(), 0);
  const file = Deno.readFileSync(b.path);
  assert.deepEqual(file.subarray(1024, 5120), written.subarray(4096));
  assert.deepEqual(file.subarray(5120, 9216), written.subarray(0, 4096));
  assert.deepEqual(file.subarray(9216), content.subarray(9216));
});

Deno.test("after the last bytes of a file that ends within a sector come zeros", () => {
  const content = pattern(1000);
  using b = bench(content);
  const { disk } = b.open(fileConfig(b.path));
  assert.equal(disk.sizeBytes, 1024);
  b.memory.write(0, pattern(1024, 5));
  assert.equal(disk.read(pieces(b.memory, [0, 1024]), 0), 0);
  assert.deepEqual(b.memory.read(0, 1000), content);
  assert.deepEqual(b.memory.read(1000, 24), new Uint8Array(24));
  b.memory.write(0, pattern(512, 9));
  assert.equal(disk.write(pieces(b.memory, [0, 512]), 512), 0);
  assert.deepEqual(Deno.readFileSync(b.path).slice(512), pattern(512, 9));
});

Deno.test("what is beyond a disk's end, or not allowed, is refused and changes nothing", () => {
  const content = pattern(8192);
  using b = bench(content);
  const { disk } = b.open(fileConfig(b.path, { discard: "unmap" }));
  const io = () => pieces(b.memory, [0, 1024]);
  for (const offset of [8192, 7680, -512, 2 ** 52]) {
    assert.equal(disk.read(io(), offset), -Errno.EIO, `${offset}`);
    assert.equal(disk.write(io(), offset), -Errno.EIO);
    assert.equal(disk.discard(offset, 1024), -Errno.EIO);
    assert.equal(disk.writeZeroes(offset, 1024, false), -Errno.EIO);
  }
  const { disk: readOnly } = b.open(fileConfig(b.path, { readOnly: true, discard: "unmap" }));
  assert.equal(readOnly.write(io(), 0), -Errno.EROFS);
  assert.equal(readOnly.discard(0, 1024), -Errno.EROFS);
  assert.equal(readOnly.writeZeroes(0, 1024, true), -Errno.EROFS);
  assert.equal(readOnly.read(io(), 0), 0);
  assert.deepEqual(Deno.readFileSync(b.path), content);
});

Deno.test("what a guest discards is given back if that is wanted, else kept", () => {
  for (const discard of ["ignore", "unmap"] as const) {
    using b = bench(pattern(256 * KIB));
    const { disk, node } = b.open(fileConfig(b.path, { discard }));
    const before = node.allocated!;
    assert.equal(disk.discard(64 * KIB, 128 * KIB), 0);
    const kept = discard === "ignore";
    assert.equal(node.allocated! < before, !kept);
    const file = Deno.readFileSync(b.path);
    assert.equal(file.length, 256 * KIB);
    assert.equal(file[64 * KIB] === 0 && file[192 * KIB - 1] === 0, !kept);
    assert.ok(file[64 * KIB - 1] !== 0 && file[192 * KIB] !== 0);
  }
});

Deno.test("a range is made zeros, which take up space unless they may be given back", () => {
  for (
    const [discard, mayUnmap, keeps] of [
      ["unmap", true, false],
      ["unmap", false, true],
      ["ignore", true, true],
    ] as const
  ) {
    using b = bench(pattern(256 * KIB));
    const { disk, node } = b.open(fileConfig(b.path, { discard }));
    const before = node.allocated!;
    assert.equal(disk.writeZeroes(4096, 128 * KIB, mayUnmap), 0);
    assert.equal(node.allocated === before, keeps, `${discard} ${mayUnmap}`);
    const file = Deno.readFileSync(b.path);
    assert.ok(file.subarray(4096, 132 * KIB).every((byte) => byte === 0));
    assert.ok(file[4095] !== 0 && file[132 * KIB] !== 0);
  }
});

Deno.test("detect-zeroes: writes of zeros become holes, other writes stay what they are", () => {
  using b = bench(pattern(256 * KIB));
  const { disk, node } = b.open(fileConfig(b.path, { discard: "unmap", detectZeroes: "unmap" }));
  const before = node.allocated!;
  assert.equal(disk.write(pieces(b.memory, [0, 64 * KIB], [512 * KIB, 64 * KIB]), 64 * KIB), 0);
  assert.ok(node.allocated! < before);
  b.memory.write(512 * KIB + 64 * KIB - 1, Uint8Array.of(3));
  assert.equal(disk.write(pieces(b.memory, [0, 64 * KIB], [512 * KIB, 64 * KIB]), 64 * KIB), 0);
  assert.equal(node.allocated, before);
  const file = Deno.readFileSync(b.path);
  assert.equal(file[192 * KIB - 1], 3);
  assert.ok(file.subarray(64 * KIB, 192 * KIB - 1).every((byte) => byte === 0));
});

Deno.test("cache.direct=on: requests of any alignment read and write the same bytes", () => {
  const content = pattern(2 << 20);
  using b = bench(content);
  const { disk } = b.open(fileConfig(b.path, { cache: { direct: true, noFlush: false } }));
  const expected = content.slice();
  // Offsets, and where the memory is: aligned, by one byte out, a sector that is no block.
  for (
    const [offset, at, length] of [[4096, 0, 8192], [512, 1, 1024], [1536, 4096, 512], [
      5 * 512,
      3,
      700 * 512,
    ]]
  ) {
    b.memory.write(at, pattern(length, offset));
    assert.equal(disk.write(pieces(b.memory, [at, 100], [at + 100, length - 100]), offset), 0);
    expected.set(pattern(length, offset), offset);
    b.memory.zero(0, 1 << 20);
    assert.equal(disk.read(pieces(b.memory, [at, length]), offset), 0);
    assert.deepEqual(b.memory.read(at, length), expected.slice(offset, offset + length));
  }
  assert.equal(disk.writeZeroes(100 * 512, 3 * 512, false), 0);
  expected.fill(0, 100 * 512, 103 * 512);
  assert.equal(disk.flush(), 0);
  assert.deepEqual(Deno.readFileSync(b.path), expected);
});

Deno.test("cache.direct=on: a request of more than a chunk is done in parts", () => {
  const size = 3 << 20;
  using b = bench(pattern(size));
  using big = mapAnonymous(size + 4096);
  const { disk } = b.open(fileConfig(b.path, { cache: { direct: true, noFlush: false } }));
  assert.equal(disk.read(pieces(big, [7, size - 512]), 512), 0);
  assert.deepEqual(big.read(7, size - 512), pattern(size).slice(512));
  big.write(7, pattern(size - 512, 17));
  assert.equal(disk.write(pieces(big, [7, size - 512]), 512), 0);
  const file = Deno.readFileSync(b.path);
  assert.deepEqual(file.subarray(512), pattern(size - 512, 17));
  assert.deepEqual(file.subarray(0, 512), pattern(size).subarray(0, 512));
});

Deno.test("`raw` is a part of another node, and grows with it unless its size is given", () => {
  const content = pattern(64 * KIB);
  using b = bench(content);
  const { node: file } = b.open(fileConfig(b.path));
  const raw = { ...common, driver: "raw", file: "file" } as const;
  const { disk, node } = b.open({ ...raw, nodeName: "part", offset: 4096, size: 8192 }, file);
  const { disk: rest } = b.open({ ...raw, nodeName: "rest", offset: 4096 }, file);
  assert.deepEqual([disk.sizeBytes, rest.sizeBytes], [8192, 60 * KIB]);
  assert.equal(disk.read(pieces(b.memory, [0, 4096]), 4096), 0);
  assert.deepEqual(b.memory.read(0, 4096), content.slice(8192, 12288));
  assert.equal(disk.read(pieces(b.memory, [0, 4096]), 8192), -Errno.EIO);
  assert.throws(() => node.resize(4096), { message: "Cannot resize fixed-size raw disks" });
  file.resize(128 * KIB);
  assert.deepEqual([disk.sizeBytes, rest.sizeBytes], [8192, 124 * KIB]);
  const name = `{"driver": "raw", "offset": 4096, "size": 8192,` +
    ` "file": {"driver": "file", "filename": ${JSON.stringify(b.path)}}}`;
  assert.equal(node.filename, `json:${name}`);
  for (
    const [offset, size, message] of [
      [
        1 << 20,
        undefined,
        /^Offset \(1048576\) cannot be greater than size of the containing file/,
      ],
      [0, 1 << 20, /^The sum of offset \(0\) and size \(1048576\) has to be smaller or equal/],
      [0, 513, /^Specified size is not multiple of 512$/],
    ] as const
  ) {
    assert.throws(
      () => openNode({ ...raw, nodeName: "x", offset, size }, { child: file }),
      { message },
    );
  }
});

Deno.test("`null-co` forgets what is written, and reads zeros only if it is told to", () => {
  using b = bench(0);
  const config = { ...common, driver: "null-co", nodeName: "n", size: 1 << 20 } as const;
  const { disk, node } = b.open({ ...config, readZeroes: false });
  b.memory.write(0, Uint8Array.of(7));
  assert.equal(disk.write(pieces(b.memory, [0, 512]), 0), 0);
  assert.equal(disk.read(pieces(b.memory, [0, 512]), 0), 0);
  assert.deepEqual([...b.memory.read(0, 2)], [7, 0]);
  assert.equal(node.filename, 'json:{"driver": "null-co", "size": 1048576}');
  const { disk: zeros } = b.open({ ...config, readZeroes: true });
  assert.equal(zeros.read(pieces(b.memory, [0, 512]), 0), 0);
  assert.equal(b.memory.read(0, 1)[0], 0);
  assert.equal(zeros.read(pieces(b.memory, [0, 1024]), (1 << 20) - 512), -Errno.EIO);
});

Deno.test("a file that cannot be a disk is refused in QEMU's words", () => {
  using b = bench(4096);
  for (
    const [config, message] of [
      [fileConfig("/nonexistent"), "Could not open '/nonexistent': No such file or directory"],
      [fileConfig("/tmp"), "Could not open '/tmp': Is a directory"],
      [
        fileConfig("/tmp", { readOnly: true }),
        "'file' driver requires '/tmp' to be a regular file",
      ],
      [fileConfig("/dev/null"), "'file' driver requires '/dev/null' to be a regular file"],
      [
        fileConfig(b.path, { driver: "host_device" }),
        `'host_device' driver requires '${b.path}' to be a block device`,
      ],
    ] as const
  ) {
    assert.throws(() => openNode(config), { message });
  }
});

Deno.test("a file on a read-only file system is read-only, if that is allowed", () => {
  const path = ["/sys/kernel/uevent_seqnum", "/proc/version"].find((name) => {
    try {
      Deno.openSync(name, { read: true, write: true }).close();
      return false;
    } catch {
      return true;
    }
  })!;
  assert.throws(() => openNode(fileConfig(path)), /^Error: Could not open/);
  const node = openNode(fileConfig(path, { autoReadOnly: true }));
  try {
    assert.equal(node.readOnly, true);
    assert.throws(() => node.resize(10), { message: "Image is read-only" });
  } finally {
    node.close();
  }
});

/** Makes a block device of a file, or takes it away; says whether that went well, and losetup's words. */
async function losetup(...args: string[]): Promise<{ success: boolean; text: string }> {
  try {
    const command = new Deno.Command("losetup", { args, stderr: "null" });
    const { success, stdout } = await command.output();
    return { success, text: new TextDecoder().decode(stdout).trim() };
  } catch {
    return { success: false, text: "" };
  }
}

/** Whether this machine lets us have one. */
async function hasLoopDevices(): Promise<boolean> {
  using b = bench(1 << 20);
  const { success, text } = await losetup("--find", "--show", b.path);
  if (success) await losetup("--detach", text);
  return success;
}

Deno.test({
  name: "a block device of the host's is a disk of its size",
  ignore: !await hasLoopDevices(),
  async fn() {
    using b = bench(1 << 20);
    const { text: path } = await losetup("--find", "--show", b.path);
    try {
      for (const direct of [false, true]) {
        const changes = { discard: "unmap", cache: { direct, noFlush: false } } as const;
        for (const driver of [{ driver: "host_device" }, { eitherDriver: true }] as const) {
          const { disk, node } = b.open(fileConfig(path, { ...changes, ...driver }));
          assert.equal(node.config.driver, "host_device");
          assert.equal(disk.sizeBytes, 1 << 20);
          const content = pattern(8192, Number(direct));
          b.memory.write(3, content);
          assert.equal(disk.write(pieces(b.memory, [3, 8192]), 512), 0);
          assert.equal(disk.writeZeroes(4096, 512, false), 0);
          assert.equal(disk.discard(64 * KIB, 64 * KIB), 0);
          assert.equal(disk.flush(), 0);
          content.fill(0, 3584, 4096);
          b.memory.zero(0, 16 * KIB);
          assert.equal(disk.read(pieces(b.memory, [0, 8192]), 512), 0);
          assert.deepEqual(b.memory.read(0, 8192), content);
          assert.throws(() => node.resize(2 << 20), { message: "Cannot grow device files" });
          node.resize(1 << 20);
        }
      }
      assert.throws(() => b.open(fileConfig(path)), {
        message: `'file' driver requires '${path}' to be a regular file`,
      });
    } finally {
      await losetup("--detach", path);
    }
  },
});
