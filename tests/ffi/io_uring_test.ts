import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { O, openFile } from "../../ffi/fd.ts";
import { hasIoUring, IoUring } from "../../ffi/io_uring.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { makeMemfd, mapAnonymous, mapShared, resizeFile } from "../../ffi/memory.ts";

const PAGE = 4096;
const HALF = PAGE / 2;
const BATCH = 8;
// What is done where there is none is tested with the block nodes.
const ignore = !hasIoUring();

function vectorOf(...parts: [address: number, length: number][]): IoVector {
  const vector = new IoVector(parts.length);
  for (const [address, length] of parts) vector.push(address, length);
  return vector;
}

Deno.test({
  name:
    "batches of an io_uring read and write pieces of memory, however often its rings come round",
  ignore,
  fn() {
    using ring = new IoUring(BATCH);
    assert.equal(ring.capacity, BATCH);
    using file = makeMemfd("ring", BATCH * PAGE);
    using region = mapAnonymous(BATCH * PAGE);
    using content = mapShared(file.fd, BATCH * PAGE);
    const numbers = Array.from({ length: BATCH }, (_, i) => i);
    // The halves of each page are the other way round in the file.
    const swapped = (i: number) => {
      const at = region.address + i * PAGE;
      return vectorOf([at + HALF, HALF], [at, HALF]);
    };
    for (let round = 0; round < 40; round++) {
      // Batches of all sizes, so that their ends are everywhere in the rings.
      const batch = numbers.slice(0, 1 + round % BATCH);
      const halves = (i: number) =>
        [2 * i, 2 * i + 1].map((seed) => new Uint8Array(HALF).fill(round * 7 + seed));
      for (const i of batch) {
        const [first, second] = halves(i);
        content.write(i * PAGE, first);
        content.write(i * PAGE + HALF, second);
      }
      const reads = batch.map((i) => ring.read(file.fd, swapped(i), i * PAGE));
      ring.finish();
      assert.deepEqual(reads.map((one) => ring.resultOf(one)), batch.map(() => PAGE));
      for (const i of batch) {
        const [first, second] = halves(i);
        assert.deepEqual(region.read(i * PAGE + HALF, HALF), first);
        assert.deepEqual(region.read(i * PAGE, HALF), second);
      }
      content.zero(0, BATCH * PAGE);
      const writes = batch.map((i) => ring.write(file.fd, swapped(i), i * PAGE));
      ring.finish();
      assert.deepEqual(writes.map((one) => ring.resultOf(one)), batch.map(() => PAGE));
      for (const i of batch) assert.deepEqual(content.read(i * PAGE, HALF), halves(i)[0]);
      assert(content.isZero(batch.length * PAGE, (BATCH - batch.length) * PAGE));
    }
  },
});

Deno.test({
  name: "each request of an io_uring's batch says what became of it",
  ignore,
  fn() {
    using ring = new IoUring(BATCH);
    using file = makeMemfd("ring", PAGE + 100);
    using nothing = openFile("/dev/null", O.RDONLY);
    using cut = makeMemfd("cut", PAGE);
    using lost = mapShared(cut.fd, PAGE);
    using region = mapAnonymous(PAGE);
    resizeFile(cut.fd, 0);
    const memory = () => vectorOf([region.address, PAGE]);
    const requests = [
      ring.read(file.fd, memory(), 0),
      // What there is before the end of the file, and nothing after it.
      ring.read(file.fd, memory(), PAGE),
      ring.read(file.fd, memory(), 2 * PAGE),
      ring.write(nothing.fd, memory(), 0),
      ring.read(-1, memory(), 0),
      // A page of the guest's that the host has lost.
      ring.write(file.fd, vectorOf([lost.address, PAGE]), 0),
    ];
    ring.finish();
    const results = [PAGE, 100, 0, -Errno.EBADF, -Errno.EBADF, -Errno.EFAULT];
    assert.deepEqual(requests.map((one) => ring.resultOf(one)), results);
    // A batch that is empty waits for nothing.
    ring.finish();
    for (let i = 0; i < BATCH; i++) ring.read(file.fd, memory(), 0);
    assert.throws(() => ring.read(file.fd, memory(), 0), RangeError);
    ring.finish();
  },
});
