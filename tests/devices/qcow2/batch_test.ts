/** Requests to a qcow2 image that are made at once: those whose clusters have a place of their own. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Disk } from "../../../devices/block/disk.ts";
import { MOST_TRANSFERS, type Transfer } from "../../../devices/block/transfers.ts";
import { Errno } from "../../../ffi/errno.ts";
import { hasIoUring, IoUring } from "../../../ffi/io_uring.ts";
import { IoVector } from "../../../ffi/iovec.ts";
import { mapAnonymous, type MappedRegion } from "../../../ffi/memory.ts";
import { checkImage, create, Dice, Model, OpenImage, withFolder } from "./testing.ts";

const SIZE = 2 << 20;
/** Each transfer of a batch is within a part of the disk of its own. */
const PART = SIZE / MOST_TRANSFERS;

/** A disk with a ring, which counts the requests that it makes at once. */
class Batches implements Disposable {
  readonly disk: Disk;
  readonly memory: MappedRegion = mapAnonymous(SIZE);
  /** Requests of the ring. */
  count = 0;
  readonly #uring = new IoUring(MOST_TRANSFERS);

  constructor(image: OpenImage) {
    const uring = this.#uring;
    for (const name of ["read", "write"] as const) {
      const make = uring[name].bind(uring);
      uring[name] = (...args) => {
        this.count++;
        return make(...args);
      };
    }
    this.disk = new Disk(image.disk.description, uring);
  }

  /** A transfer between a place of the disk and the same place in memory. */
  transfer(isWrite: boolean, offset: number, length: number): Transfer {
    const vector = new IoVector(2);
    const half = Math.floor(length / 1024) * 512;
    if (half > 0) vector.push(this.memory.address + offset, half);
    vector.push(this.memory.address + offset + half, length - half);
    return { isWrite, vector, offset, result: 1, request: 0 };
  }

  /** Makes transfers. @returns their results */
  make(...transfers: Transfer[]): number[] {
    this.disk.transfer(transfers, 0, transfers.length);
    return transfers.map(({ result }) => result);
  }

  [Symbol.dispose](): void {
    this.#uring.close();
    this.memory.close();
  }
}

for (const clusterBits of [9, 12, 16]) {
  for (const direct of [false, true]) {
    Deno.test({
      name: `batches of requests leave what single ones would: 2^${clusterBits}, direct: ${direct}`,
      ignore: !hasIoUring(),
      fn: () =>
        withFolder((folder) => {
          const path = `${folder}/disk`;
          create(path, { size: SIZE, clusterBits });
          const model = new Model(SIZE, clusterBits);
          using image = new OpenImage(path, {}, { aio: "io_uring", cache: { direct } });
          // Some have a place, some are zeros, and some nothing.
          for (let i = 0; i < 30; i++) model.step(image);
          using batches = new Batches(image);
          assert.equal(batches.disk.depth, MOST_TRANSFERS);
          const dice = new Dice(clusterBits + Number(direct));
          for (let round = 0; round < 12; round++) {
            const all = Array.from({ length: 1 + dice.below(MOST_TRANSFERS) }, (_, part) => {
              const first = dice.below(PART / 512 - 1);
              const length = (1 + dice.below(PART / 512 - first)) * 512;
              const offset = part * PART + first * 512;
              const isWrite = dice.below(2) === 0;
              if (isWrite) batches.memory.write(offset, model.data(length));
              return { offset, length, one: batches.transfer(isWrite, offset, length) };
            });
            const results = batches.make(...all.map(({ one }) => one));
            assert.ok(results.every((result) => result === 0), `round ${round}: ${results}`);
            for (const { offset, length, one: { isWrite } } of all) {
              const bytes = batches.memory.read(offset, length);
              if (isWrite) model.bytes.set(bytes, offset);
              else {assert.ok(
                  Buffer.from(bytes).equals(model.bytes.subarray(offset, offset + length)),
                );}
            }
          }
          // What is not aligned for the file system is made by itself.
          if (!direct) assert.ok(batches.count > 0);
          model.assertHeld(image);
          const { corruptions, leaks } = checkImage(image);
          assert.deepEqual([corruptions, leaks], [0, 0]);
        }),
    });
  }
}

Deno.test({
  name: "all requests to clusters that have a place are one batch, and others none of it",
  ignore: !hasIoUring(),
  fn: () =>
    withFolder((folder) => {
      const path = `${folder}/disk`;
      create(path, { size: SIZE, clusterBits: 16 });
      using image = new OpenImage(path, {}, { aio: "io_uring" });
      assert.equal(image.write(0, new Uint8Array(SIZE).fill(7)), 0);
      using batches = new Batches(image);
      const all = (isWrite: boolean) =>
        Array.from(
          { length: MOST_TRANSFERS },
          (_, i) => batches.transfer(isWrite, i * PART + 1024, 4096),
        );
      for (const isWrite of [false, true]) {
        const before = batches.count;
        assert.ok(batches.make(...all(isWrite)).every((result) => result === 0));
        assert.equal(batches.count - before, MOST_TRANSFERS);
      }
      // Zeros are nowhere.
      assert.equal(image.disk.writeZeroes(0, SIZE, true), 0);
      const before = batches.count;
      assert.ok(batches.make(...all(false)).every((result) => result === 0));
      assert.equal(batches.count, before);
      // One is beyond the disk.
      assert.deepEqual(
        batches.make(batches.transfer(false, 0, 512), {
          ...batches.transfer(false, 0, 512),
          offset: SIZE,
        }),
        [0, -Errno.EIO],
      );
    }),
});

Deno.test({
  name: "a write of a batch that an image leads to its own tables is not made, those before it are",
  ignore: !hasIoUring(),
  fn: () =>
    withFolder((folder) => {
      const path = `${folder}/disk`;
      create(path, { size: SIZE, clusterBits: 16 });
      {
        using image = new OpenImage(path);
        assert.equal(image.write(0, new Uint8Array(4 << 16).fill(7)), 0);
      }
      const bytes = Deno.readFileSync(path);
      const view = new DataView(bytes.buffer);
      const l1 = Number(view.getBigUint64(40));
      const l2 = Number(view.getBigUint64(l1) & 0xff_ffff_ffff_fe00n);
      view.setBigUint64(l2 + 8, 1n << 63n | BigInt(l1));
      Deno.writeFileSync(path, bytes);
      using image = new OpenImage(path, {}, { aio: "io_uring" });
      using batches = new Batches(image);
      const results = batches.make(
        batches.transfer(false, 0, 4096),
        batches.transfer(true, 1 << 16, 4096),
        batches.transfer(true, 2 << 16, 4096),
      );
      assert.deepEqual(results, [0, -Errno.EIO, 0]);
      assert.deepEqual(batches.memory.read(0, 4096), new Uint8Array(4096).fill(7));
      const left = Deno.readFileSync(path).subarray(l1, l1 + 65536);
      assert.deepEqual(left, bytes.subarray(l1, l1 + 65536));
      // Nothing is done any more.
      assert.deepEqual(
        batches.make(batches.transfer(false, 0, 512), batches.transfer(true, 2 << 16, 512)),
        [-Errno.EIO, -Errno.EIO],
      );
    }),
});
