import assert from "node:assert/strict";
import type { FileNodeConfig } from "../../../devices/block/config.ts";
import { noLimits } from "../../../devices/block/throttle.ts";
import { Status } from "../../../devices/virtio/virtio_state.ts";
import { Errno } from "../../../ffi/errno.ts";
import { O } from "../../../ffi/fd.ts";
import { hasIoUring } from "../../../ffi/io_uring.ts";
import type { RigMode } from "../fake_context.ts";
import { DEVICE, RAM } from "./drivers.ts";
import {
  DATA,
  DiskRig,
  HEADER,
  NOTHING,
  Outcome,
  pattern,
  replaceFile,
  Request,
  SECTORS,
  type Setup,
  STATUS,
} from "./disk_rig.ts";

const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = Request;
const { OK, IOERR, UNSUPP } = Outcome;

type How = Pick<Setup, "mode" | "properties"> & { readonly node: Partial<FileNodeConfig> };

/** Requests that are there together, made one after another and all at once. */
function burstTest(name: string, run: (how: How) => void): void {
  for (const aio of ["threads", "io_uring"] as const) {
    for (const packed of [false, true]) {
      for (const mode of ["kept", "saved"] as const satisfies RigMode[]) {
        Deno.test({
          name: `${name} (aio=${aio}, ${mode}, ${packed ? "packed" : "split"})`,
          ignore: aio === "io_uring" && !hasIoUring(),
          fn: () => run({ node: { aio }, mode, properties: { packed } }),
        });
      }
    }
  }
}

function sectors(file: Uint8Array, first: number, count: number): Uint8Array {
  return file.slice(first * 512, (first + count) * 512);
}

burstTest("requests of all kinds that come together are all answered", (how) => {
  using disk = new DiskRig({ ...how, properties: { ...how.properties, serial: "abc" } });
  const before = disk.file;
  const range = new Uint8Array(16);
  range.set([20, 0, 0, 0, 0, 0, 0, 0, 2]);
  const statuses = disk.burst([
    { type: IN, sector: 1, data: 1024 },
    { type: OUT, sector: 10, data: pattern(512, 50) },
    { type: FLUSH },
    { type: OUT, sector: 11, data: pattern(1024, 60) },
    { type: WRITE_ZEROES, data: range },
    { type: IN, sector: SECTORS, data: 512 },
    { type: GET_ID, data: 20 },
    { type: IN, sector: 3, data: 512 },
  ]);
  assert.deepEqual(statuses, [OK, OK, OK, OK, OK, IOERR, OK, OK]);
  assert.deepEqual(disk.answer(0, 1024).data, sectors(before, 1, 2));
  assert.deepEqual(disk.answer(7, 512).data, sectors(before, 3, 1));
  assert.equal(new TextDecoder().decode(disk.answer(6, 4).data), "abc\0");
  assert.deepEqual(sectors(disk.file, 10, 1), pattern(512, 50));
  assert.deepEqual(sectors(disk.file, 11, 2), pattern(1024, 60));
  assert.deepEqual(sectors(disk.file, 20, 2), new Uint8Array(1024));
  const { statistics } = disk;
  const counts = (["rd", "wr", "flush"] as const).map((
    kind,
  ) => [statistics.count(kind, "operations"), statistics.count(kind, "bytes")]);
  assert.deepEqual(counts, [[2, 1536], [3, 1536], [1, 0]]);
  assert.equal(statistics.count("rd", "invalid"), 1);
  assert.deepEqual(disk.burst([{ type: 99, data: 512 }, { type: DISCARD, data: range }]), [
    UNSUPP,
    OK,
  ]);
});

burstTest("bursts go round the ring, each request with its own data", (how) => {
  using disk = new DiskRig(how);
  for (let round = 0; round < 12; round++) {
    const count = 1 + (round * 5) % 8;
    const writes = Array.from({ length: count }, (_, i) => ({
      ...{ type: OUT, sector: (round * 8 + 2 * i) % SECTORS, data: pattern(1024, round * 9 + i) },
    }));
    assert.deepEqual(disk.burst(writes), Array(count).fill(OK));
    const reads = writes.map(({ sector }) => ({ type: IN, sector, data: 1024 }));
    assert.deepEqual(disk.burst(reads), Array(count).fill(OK));
    for (const [i, { data }] of writes.entries()) {
      assert.deepEqual(disk.answer(i, 1024).data, data, `round ${round}, request ${i}`);
    }
  }
});

burstTest("what one of many cannot do is its own affair", (how) => {
  using disk = new DiskRig(how);
  const before = disk.file;
  const undo = replaceFile(disk, disk.path, O.RDONLY);
  const write = { type: OUT, sector: 5, data: pattern(512, 77) };
  const read = { type: IN, sector: 2, data: 512 };
  const statuses = disk.burst([read, write, read, write, write, read]);
  undo();
  assert.deepEqual(statuses, [OK, IOERR, OK, IOERR, IOERR, OK]);
  for (const i of [0, 2, 5]) assert.deepEqual(disk.answer(i, 512).data, sectors(before, 2, 1));
  assert.deepEqual(disk.file, before);
  assert.equal(disk.statistics.count("wr", "failed"), 3);
  assert.equal(disk.statistics.count("rd", "operations"), 3);
});

burstTest("of a burst, what stopped the guest and all behind it is done when it goes on", (how) => {
  using disk = new DiskRig({ ...how, properties: { ...how.properties, werror: "stop" } });
  const { rig, statistics, throttle, drivers: [driver] } = disk;
  const iops = { average: 1000, max: 2000, burstLength: 2 };
  throttle.limits = { ...noLimits, "iops-total": iops };
  /** How many requests its buckets have counted: no time passes here. */
  const counted = () => throttle.levels.slice(7, 9);
  const undo = replaceFile(disk, disk.path, O.RDONLY);
  const read = { type: IN, sector: 2, data: 512 };
  const writes = [5, 6].map((sector) => ({ type: OUT, sector, data: pattern(512, sector) }));
  disk.offer([read, read, writes[0], read, writes[1]]);
  rig.notify(0);
  assert.equal(driver.take().length, 2);
  assert.deepEqual([0, 1, 2, 3, 4].map((i) => disk.answer(i).status), [
    ...[OK, OK, NOTHING, NOTHING, NOTHING],
  ]);
  assert.equal(statistics.ioStatus, "failed");
  const told = [{ operation: "write", action: "stop", errno: Errno.EBADF }];
  assert.deepEqual(statistics.takeErrors(), told);
  assert.deepEqual(counted(), [2, 2]);
  undo();
  statistics.setOk();
  rig.call((device) => device.rung!(0));
  assert.equal(driver.take().length, 3);
  assert.deepEqual(counted(), [5, 5]);
  assert.deepEqual([2, 3, 4].map((i) => disk.answer(i).status), [OK, OK, OK]);
  for (const { sector, data } of writes) assert.deepEqual(sectors(disk.file, sector, 1), data);
  assert.equal(statistics.count("rd", "operations"), 3);
  assert.equal(statistics.count("wr", "operations"), 2);
});

burstTest("a chain that is no request comes after those before it, and nothing after it", (how) => {
  using disk = new DiskRig(how);
  const { rig, drivers: [driver] } = disk;
  disk.offer([
    { type: OUT, sector: 4, data: pattern(512, 8) },
    { type: IN, sector: 0, data: 512 },
  ]);
  driver.add([{ gpa: HEADER + 0x800, length: 3 }, {
    ...{ gpa: STATUS + 9, length: 1, writable: true },
  }], true);
  rig.notify(0);
  assert.equal(driver.take().length, 2);
  assert.deepEqual([disk.answer(0).status, disk.answer(1).status], [OK, OK]);
  assert.deepEqual(sectors(disk.file, 4, 1), pattern(512, 8));
  assert.notEqual(rig.get(0x70) & Status.NEEDS_RESET, 0);
  assert.deepEqual(rig.context.warnings, [
    "virtio-blk-device: virtio-blk request outhdr too short",
  ]);
});

burstTest(
  "a ring that is broken in the middle of a burst is found when what was before is done",
  (how) => {
    using disk = new DiskRig(how);
    const { rig, drivers: [driver] } = disk;
    disk.offer([{ type: OUT, sector: 4, data: pattern(512, 8) }]);
    driver.add([{ gpa: 0x10, length: 16 }, { gpa: STATUS + 9, length: 1, writable: true }], true);
    rig.notify(0);
    assert.equal(driver.take().length, 1);
    assert.equal(disk.answer(0).status, OK);
    assert.notEqual(rig.get(0x70) & Status.NEEDS_RESET, 0);
    assert.deepEqual(rig.context.warnings, [
      "virtio-blk-device: virtio: no guest memory for 16 bytes at 0x10",
    ]);
  },
);

burstTest("a file that ends within a sector reads as zeros after its end", (how) => {
  const content = pattern(SECTORS * 512 - 100, 3);
  using disk = new DiskRig({ ...how, content });
  const last = { type: IN, sector: SECTORS - 2, data: 1024 };
  assert.deepEqual(disk.burst([last, { type: IN, sector: 0, data: 512 }, last]), [OK, OK, OK]);
  const expected = new Uint8Array(1024);
  expected.set(content.slice((SECTORS - 2) * 512));
  for (const i of [0, 2]) assert.deepEqual(disk.answer(i, 1024).data, expected);
});

burstTest(
  "what waits for the disk's limits keeps those behind it waiting, not those before it",
  (how) => {
    // In another VMM, the thread that works on queues looks at all of them when it begins.
    using disk = new DiskRig({ ...how, mode: how.mode === "saved" ? "shared" : how.mode });
    const { rig, throttle, drivers: [driver] } = disk;
    throttle.limits = { ...noLimits, "iops-total": { average: 10, max: 0, burstLength: 1 } };
    disk.offer(Array(5).fill({ type: IN, sector: 2, data: 512 }));
    rig.notify(0);
    // A tenth of a second's worth fits, and what is begun then.
    assert.equal(driver.take().length, 2);
    throttle.limits = noLimits;
    rig.call((device) => device.limitsChanged!());
    rig.call((device) => device.rung!(0));
    assert.equal(driver.take().length, 3);
    assert.equal(disk.statistics.count("rd", "operations"), 5);
  },
);

burstTest("without a write cache, writes that come together are flushed", (how) => {
  using disk = new DiskRig({ ...how, properties: { ...how.properties, writeback: false } });
  const write = { type: OUT, sector: 5, data: pattern(512, 77) };
  // It takes writes, but cannot be flushed.
  const undo = replaceFile(disk, "/dev/null", O.WRONLY);
  assert.deepEqual(disk.burst([write, write, write]), [IOERR, IOERR, IOERR]);
  undo();
  assert.deepEqual(disk.burst([write, write]), [OK, OK]);
});

burstTest("of requests that come together, zeros become holes where that is wanted", (how) => {
  const node = { ...how.node, detectZeroes: "unmap", discard: "unmap" } as const;
  using disk = new DiskRig({ ...how, node });
  const zeros = { type: OUT, sector: 8, data: new Uint8Array(1024) };
  const data = { type: OUT, sector: 16, data: pattern(512, 5) };
  assert.deepEqual(disk.burst([zeros, data, { type: IN, sector: 0, data: 512 }]), [OK, OK, OK]);
  assert.deepEqual(sectors(disk.file, 8, 2), new Uint8Array(1024));
  assert.deepEqual(sectors(disk.file, 16, 1), data.data);
});

burstTest("by cache.direct, requests that come together read and write what they shall", (how) => {
  const content = pattern(SECTORS * 512, 3);
  const node = { ...how.node, cache: { direct: true, noFlush: false } };
  using disk = new DiskRig({ ...how, node, content });
  // Memory of requests is anywhere here: they are made in whole blocks by way of a buffer.
  for (let round = 0; round < 3; round++) {
    const writes = [1, 2, 3, 5].map((sector) => ({
      ...{ type: OUT, sector, data: pattern(512, sector + round) },
    }));
    assert.deepEqual(disk.burst(writes), Array(4).fill(OK));
    for (const { sector, data } of writes) assert.deepEqual(sectors(disk.file, sector, 1), data);
    const reads = [0, 1, 4, 5].map((sector) => ({ type: IN, sector, data: 512 }));
    assert.deepEqual(disk.burst(reads), Array(4).fill(OK));
    for (const [i, { sector }] of reads.entries()) {
      assert.deepEqual(disk.answer(i, 512).data, sectors(disk.file, sector, 1));
    }
  }
});

Deno.test("more requests than are made at once are made in batches", {
  ignore: !hasIoUring(),
}, () => {
  using disk = new DiskRig({ node: { aio: "io_uring" }, queueSize: 64 });
  const { rig, drivers: [driver] } = disk;
  const uring = rig.context.uring!;
  const finish = uring.finish.bind(uring);
  let batches = 0;
  uring.finish = () => {
    batches++;
    finish();
  };
  const writes = Array.from({ length: 60 }, (_, i) => ({
    ...{ type: OUT, sector: i, data: pattern(512, i) },
  }));
  disk.offer(writes);
  rig.notify(0);
  assert.equal(batches, 2);
  assert.equal(driver.take().length, 60);
  for (const [i, { data }] of writes.entries()) {
    assert.equal(disk.answer(i).status, OK);
    assert.deepEqual(sectors(disk.file, i, 1), data);
  }
  // One alone is made by a call.
  assert.deepEqual(disk.burst([{ type: IN, data: 512 }]), [OK]);
  assert.equal(batches, 2);
});

Deno.test("a thread that shall park begins none of a burst", () => {
  using disk = new DiskRig({ node: { aio: hasIoUring() ? "io_uring" : "threads" } });
  const { rig, drivers: [driver] } = disk;
  rig.context.parking = true;
  disk.offer([{ type: IN, data: 512 }, { type: OUT, sector: 1, data: pattern(512, 1) }]);
  rig.notify(0);
  assert.equal(driver.take().length, 0);
  rig.context.parking = false;
  rig.call((device) => device.rung!(0));
  assert.equal(driver.take().length, 2);
  assert.deepEqual(rig.ram.get(DATA, 512), sectors(pattern(SECTORS * 512), 0, 1));
});

Deno.test("of a burst that takes long, the driver is told of what is done before the end", () => {
  using disk = new DiskRig();
  const { rig, drivers: [driver] } = disk;
  const { context } = rig;
  /** How many requests the driver has been told of, each time that the device looks at the clock. */
  const told = new Set<number>();
  let stepNs = 0n;
  context.monotonicNs = () => {
    told.add(rig.ram.data.getUint16(DEVICE + 2 - RAM, true));
    return context.monotonic += stepNs;
  };
  const reads = Array(8).fill({ type: IN, data: 512 });
  assert.deepEqual(disk.burst(reads), Array(8).fill(OK));
  assert.deepEqual([...told], [0]);
  told.clear();
  stepNs = 150_000n;
  assert.deepEqual(disk.burst(reads), Array(8).fill(OK));
  assert.deepEqual([...told], [8, 9, 10, 11, 12, 13, 14, 15]);
  assert.equal(driver.take().length, 0);
});
