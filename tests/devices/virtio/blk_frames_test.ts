import assert from "node:assert/strict";
import { BlkFrames, HEADER_SIZE } from "../../../devices/virtio/blk_frames.ts";
import { TakenRequests } from "../../../devices/virtio/virtio.ts";
import { IoVector } from "../../../ffi/iovec.ts";
import { makeMemfd, mapShared, resizeFile } from "../../../ffi/memory.ts";

const PAGE = 4096;

/** Memory of three pages, of which the last is lost, and requests whose headers begin at these places. */
function withRequests(
  places: readonly number[],
  run: (at: number, taken: TakenRequests, read: (offset: number) => number) => void,
): void {
  using file = makeMemfd("frames", 3 * PAGE);
  using region = mapShared(file.fd, 3 * PAGE);
  region.write(0, Uint8Array.from({ length: 2 * PAGE }, (_, i) => i % 251));
  const taken = new TakenRequests();
  for (const place of places) {
    const chain = taken.next();
    chain.clear();
    // In two parts, with data behind it.
    chain.readable.push(region.address + place, 5);
    chain.readable.push(region.address + place + 6, HEADER_SIZE);
    taken.count++;
  }
  resizeFile(file.fd, 2 * PAGE);
  run(region.address, taken, (offset) => region.read(offset, 1)[0]);
}

function statusAt(address: number): IoVector {
  const status = new IoVector(1);
  status.push(address, 1);
  return status;
}

Deno.test("headers are read together, and taken off what is read next", () => {
  const places = [100, 1000, 5000];
  withRequests(places, (_, taken) => {
    const frames = new BlkFrames();
    for (let round = 0; round < 2; round++) frames.take(taken);
    for (const [i, place] of places.entries()) {
      const { readable } = taken.chains[i];
      const at = frames.header(i, readable);
      assert.notEqual(at, undefined);
      assert.equal(frames.headers.getUint8(at! + 4), (place + 4) % 251);
      assert.equal(frames.headers.getUint8(at! + 5), (place + 6) % 251);
      assert.equal(readable.length, 5);
    }
  });
});

Deno.test("a header that is lost, or too short, is no other request's trouble", () => {
  withRequests([100, 2 * PAGE + 100, 200], (_, taken) => {
    const frames = new BlkFrames();
    frames.take(taken);
    const headers = taken.chains.map(({ readable }, i) => frames.header(i, readable));
    assert.deepEqual(headers, [0, undefined, 2 * HEADER_SIZE]);
    assert.equal(frames.headers.getUint8(2 * HEADER_SIZE), 200);
  });
  withRequests([100, 300, 200], (_, taken) => {
    const frames = new BlkFrames();
    taken.chains[1].readable.truncate(3);
    frames.take(taken);
    assert.equal(frames.header(2, taken.chains[2].readable), 2 * HEADER_SIZE);
    assert.equal(frames.headers.getUint8(2 * HEADER_SIZE), 200);
  });
});

Deno.test("outcomes are told together, and each where memory is lost", () => {
  for (const lost of [[], [1], [0, 2]]) {
    withRequests([], (address, _, read) => {
      const frames = new BlkFrames();
      for (const round of [7, 3]) {
        for (const i of [0, 1, 2]) {
          frames.finish(statusAt(address + (lost.includes(i) ? 2 * PAGE : 0) + 10 * i), round + i);
        }
        // Nothing is told before its time.
        if (!lost.includes(1)) assert.notEqual(read(10), round + 1);
        frames.tell();
        for (const i of [0, 1, 2]) if (!lost.includes(i)) assert.equal(read(10 * i), round + i);
      }
      assert.equal(read(1), 1);
    });
  }
});
