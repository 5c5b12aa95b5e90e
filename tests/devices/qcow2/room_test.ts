/** What happens when as many clusters wait to be let go as can, and when that fails. */
import assert from "node:assert/strict";
import { Field, MAX_PENDING } from "../../../devices/block/qcow2/metadata.ts";
import { Errno } from "../../../ffi/errno.ts";
import { MemoryDisk, MemoryFile, newImage } from "./memory_image.ts";

const CLUSTER = 4096;
const LIMIT = 1 << 20;
/** Where new images have their only L1 table, and their first L2 table. */
const L1 = 3 * CLUSTER;
const L2 = 4 * CLUSTER;
/** A cluster that nobody uses: it is let go without effect. */
const UNUSED = 200;

/** An image with a cluster of data, and an entry that says that what it leads to is not its own. */
function sharing(entry: number): MemoryFile {
  const file = newImage(LIMIT, { size: 128 << 10, clusterBits: 12 });
  using disk = new MemoryDisk(file);
  assert.equal(disk.write(0, new Uint8Array(CLUSTER).fill(1)), 0);
  disk.image.layer.settle();
  const { content } = file;
  assert.equal(content[entry], 0x80);
  content[entry] = 0;
  return new MemoryFile(LIMIT, content);
}

function fillRoom({ image }: MemoryDisk): void {
  const { fields, pending } = image.layer.metadata;
  pending.fill(UNUSED);
  fields[Field.PENDING] = MAX_PENDING;
}

function assertSound(disk: MemoryDisk): void {
  disk.image.layer.settle();
  const wrong: string[] = [];
  const { corruptions, leaks } = disk.check((text) => wrong.push(text));
  assert.deepEqual([corruptions, leaks], [0, 0], wrong.join("\n"));
}

Deno.test("an L2 table that is let go finds room among those that wait", () => {
  using disk = new MemoryDisk(sharing(L1));
  fillRoom(disk);
  assert.equal(disk.write(2 * CLUSTER, new Uint8Array(CLUSTER).fill(2)), 0);
  assert.ok(disk.image.layer.metadata.fields[Field.PENDING] <= MAX_PENDING);
  assertSound(disk);
});

Deno.test("a write that fails for want of room leaves nothing mapped that is not counted", () => {
  const file = sharing(L2);
  using disk = new MemoryDisk(file);
  fillRoom(disk);
  const flush = file.flush;
  file.flush = () => -Errno.EIO;
  assert.equal(disk.write(0, new Uint8Array(CLUSTER).fill(2)), -Errno.EIO);
  file.flush = flush;
  assert.deepEqual(disk.read(0, CLUSTER), new Uint8Array(CLUSTER).fill(1));
  assert.equal(disk.write(0, new Uint8Array(CLUSTER).fill(2)), 0);
  assert.equal(disk.write(2 * CLUSTER, new Uint8Array(CLUSTER).fill(3)), 0);
  assert.deepEqual(disk.read(0, CLUSTER), new Uint8Array(CLUSTER).fill(2));
  assertSound(disk);
});
