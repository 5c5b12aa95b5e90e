import assert from "node:assert/strict";
import type { AttachedDisk } from "../../../devices/block/disk.ts";
import { noLimits } from "../../../devices/block/throttle.ts";
import { BlkFeature } from "../../../devices/virtio/blk_request.ts";
import { InterruptCause, Status } from "../../../devices/virtio/virtio_state.ts";
import type { Properties } from "../../../devices/device.ts";
import { O } from "../../../ffi/fd.ts";
import { Errno } from "../../../ffi/errno.ts";
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
  STATUS,
} from "./disk_rig.ts";
import type { TestDriver } from "./drivers.ts";
import { bit, type VirtioRig } from "./rig.ts";

const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = Request;
const { OK, IOERR, UNSUPP } = Outcome;

for (const mode of ["kept", "shared", "saved"] as const) {
  for (const packed of [false, true]) {
    const how = `(${mode}, ${packed ? "packed" : "split"})`;
    Deno.test(`a disk reads and writes what its driver asks for ${how}`, () => {
      using disk = new DiskRig({ mode, properties: { packed } });
      assert.deepEqual(disk.request(IN, 3, 1024), {
        ...{ status: OK, written: 1025 },
        data: pattern(SECTORS * 512).slice(3 * 512, 5 * 512),
      });
      const data = pattern(1536, 99);
      assert.equal(disk.request(OUT, 7, data).status, OK);
      assert.deepEqual(disk.file.slice(7 * 512, 10 * 512), data);
      assert.deepEqual(disk.request(IN, 7, 1536).data, data);
      assert.equal(disk.request(FLUSH, 0).status, OK);
      assert.equal(disk.range(WRITE_ZEROES, 8, 1), OK);
      assert.deepEqual(disk.request(IN, 8, 512).data, new Uint8Array(512));
      assert.equal(disk.range(DISCARD, 16, 16), OK);
      assert.deepEqual(disk.file.slice(10 * 512, 16 * 512), pattern(32768).slice(5120, 8192));
      const count = (kind: "rd" | "wr" | "flush" | "unmap") =>
        ["operations", "bytes"].map((what) =>
          disk.statistics.count(kind, what as "operations" | "bytes")
        );
      assert.deepEqual(
        [count("rd"), count("wr"), count("flush"), count("unmap")],
        [[3, 3072], [2, 1536], [1, 0], [1, 8192]],
      );
    });
  }
}

Deno.test("data in many pieces, and a header and a status that are no buffers of their own", () => {
  using disk = new DiskRig();
  const { rig, drivers: [driver] } = disk;
  const header = new Uint8Array(16);
  header[8] = 1;
  rig.ram.put(HEADER, header);
  // The header in two parts; the status behind the data in the same buffer.
  driver.add([
    { gpa: HEADER, length: 7 },
    { gpa: HEADER + 7, length: 9 },
    { gpa: DATA, length: 100, writable: true },
    { gpa: DATA + 0x1000, length: 413, writable: true },
  ]);
  rig.notify(0);
  assert.deepEqual(driver.take().map(({ written }) => written), [513]);
  const expected = pattern(SECTORS * 512).slice(512, 1024);
  assert.deepEqual(rig.ram.get(DATA, 100), expected.slice(0, 100));
  assert.deepEqual(rig.ram.get(DATA + 0x1000, 412), expected.slice(100));
  assert.equal(rig.ram.get(DATA + 0x1000 + 412, 1)[0], OK);
  // The same of a write: header and data in one buffer.
  header[0] = OUT;
  rig.ram.put(DATA, header);
  rig.ram.put(DATA + 16, pattern(512, 5));
  driver.add([{ gpa: DATA, length: 528 }, { gpa: STATUS, length: 1, writable: true }], true);
  rig.notify(0);
  assert.deepEqual(driver.take().map(({ written }) => written), [1]);
  assert.deepEqual(disk.file.slice(512, 1024), pattern(512, 5));
});

Deno.test("a serial number is told as far as there is room", () => {
  using disk = new DiskRig({ properties: { serial: "0123456789abcdefghijklm" } });
  const text = (length: number) =>
    new TextDecoder().decode(disk.request(GET_ID, 0, length).data.slice(0, 22));
  assert.equal(text(20), "0123456789abcdefghij");
  using short = new DiskRig({ properties: { serial: "abc" } });
  assert.equal(new TextDecoder().decode(short.request(GET_ID, 0, 4).data), "abc\0");
});

Deno.test("requests that cannot be are refused, and change nothing", () => {
  using disk = new DiskRig();
  const before = disk.file;
  const beyond: [sector: number | bigint, length: number][] = [
    ...[[SECTORS, 512], [SECTORS - 1, 1024], [2 ** 32, 512]] as [number, number][],
    ...[[2n ** 55n, 512], [2n ** 64n - 1n, 512], [2n ** 63n, 512]] as [bigint, number][],
    ...[[0, 511], [0, 100]] as [number, number][],
  ];
  for (const [sector, length] of beyond) {
    assert.equal(disk.request(IN, sector, length).status, IOERR, `read ${sector} ${length}`);
    assert.equal(disk.request(OUT, sector, pattern(length, 3)).status, IOERR, `write ${sector}`);
  }
  for (const [sector, sectors] of [[SECTORS, 1], [0, SECTORS + 1], [2n ** 64n - 1n, 2]] as const) {
    assert.equal(disk.range(DISCARD, sector, sectors), IOERR);
    assert.equal(disk.range(WRITE_ZEROES, sector, sectors), IOERR);
  }
  // Flags that nobody knows, or that discarding has not; more than one range; other kinds.
  assert.equal(disk.range(DISCARD, 0, 1, 1), UNSUPP);
  assert.equal(disk.range(WRITE_ZEROES, 0, 1, 2), UNSUPP);
  assert.equal(disk.request(WRITE_ZEROES, 0, new Uint8Array(32)).status, UNSUPP);
  for (const type of [2, 3, 10, 14, 24, 0x8000_0000, 0xffff_ffff]) {
    assert.equal(disk.request(type, 0, 512).status, UNSUPP);
  }
  assert.deepEqual(disk.file, before);
  assert.deepEqual(
    [disk.statistics.count("rd", "invalid"), disk.statistics.count("wr", "invalid")],
    [
      beyond.length,
      beyond.length + 3,
    ],
  );
  assert.deepEqual(disk.rig.context.requests, []);
});

Deno.test("no more than the device has said is discarded or made zeros at once", () => {
  using disk = new DiskRig({
    properties: { "max-discard-sectors": 4, "max-write-zeroes-sectors": 8 },
  });
  assert.equal(disk.range(DISCARD, 0, 5), IOERR);
  assert.equal(disk.range(WRITE_ZEROES, 0, 9), IOERR);
  assert.equal(disk.range(DISCARD, 0, 4), OK);
  assert.equal(disk.range(WRITE_ZEROES, 0, 8), OK);
});

Deno.test("what a driver has not asked for is not done", () => {
  using disk = new DiskRig({ features: 0n });
  const before = disk.file;
  assert.equal(disk.range(DISCARD, 0, 1), UNSUPP);
  assert.equal(disk.range(WRITE_ZEROES, 0, 1), UNSUPP);
  assert.deepEqual(disk.file, before);
});

Deno.test("a disk that cannot be written says so, and is not written", () => {
  using disk = new DiskRig({ node: { readOnly: true } });
  assert.notEqual(disk.rig.offered() & bit(BlkFeature.RO), 0n);
  const before = disk.file;
  assert.equal(disk.request(OUT, 0, pattern(512, 3)).status, IOERR);
  assert.equal(disk.range(DISCARD, 0, 1), IOERR);
  assert.equal(disk.range(WRITE_ZEROES, 0, 1), IOERR);
  assert.equal(disk.request(IN, 0, 512).status, OK);
  assert.deepEqual(disk.file, before);
});

Deno.test("blocks of more than a sector are read and written whole", () => {
  using disk = new DiskRig({
    properties: { logical_block_size: 4096, physical_block_size: 8192 },
  });
  assert.equal(disk.request(IN, 8, 4096).status, OK);
  assert.equal(disk.request(IN, 1, 4096).status, IOERR);
  assert.equal(disk.request(IN, 0, 512).status, IOERR);
  assert.equal(disk.request(OUT, 8, pattern(512)).status, IOERR);
});

Deno.test("a chain that is no request breaks the device, and a reset mends it", () => {
  const broken: [string, Parameters<TestDriver["add"]>[0]][] = [
    ["virtio-blk request outhdr too short", [
      { gpa: HEADER, length: 15 },
      { gpa: STATUS, length: 1, writable: true },
    ]],
    ["virtio-blk request outhdr too short", [{ gpa: STATUS, length: 1, writable: true }]],
    ["virtio-blk request inhdr too short", [{ gpa: HEADER, length: 16 }]],
  ];
  for (const [message, buffers] of broken) {
    using disk = new DiskRig();
    const { rig, drivers: [driver] } = disk;
    driver.add(buffers);
    rig.notify(0);
    assert.deepEqual(rig.context.warnings, [`virtio-blk-device: ${message}`]);
    assert.notEqual(rig.get(0x70) & Status.NEEDS_RESET, 0);
    assert.equal(rig.takeInterrupt(), InterruptCause.CONFIG_CHANGE);
    rig.negotiate(0n);
    rig.ram.clear();
    disk.drivers[0] = rig.setUp(0);
    rig.start();
    assert.equal(disk.request(IN, 0, 512).status, OK);
  }
  using disk = new DiskRig();
  disk.request(DISCARD, 0, new Uint8Array(15));
  assert.deepEqual(disk.rig.context.warnings, [
    "virtio-blk-device: virtio-blk discard/write_zeroes header too short",
  ]);
});

/** The configuration space, by names. */
function configOf(rig: VirtioRig) {
  const get = (offset: number, size: number) => rig.read(0x100 + offset, size);
  return {
    capacity: get(0, 4),
    seg_max: get(12, 4),
    geometry: [get(16, 2), get(18, 1), get(19, 1)],
    blk_size: get(20, 4),
    topology: [get(24, 1), get(25, 1), get(26, 2), get(28, 4)],
    writeback: get(32, 1),
    num_queues: get(34, 2),
    discard: [get(36, 4), get(40, 4), get(44, 4)],
    zero: [get(48, 4), get(52, 4), get(56, 1)],
  };
}

Deno.test("the configuration space is QEMU's", () => {
  using disk = new DiskRig();
  assert.deepEqual(configOf(disk.rig), {
    ...{ capacity: SECTORS, seg_max: 254, geometry: [2, 16, 63], blk_size: 512 },
    ...{ topology: [0, 0, 0, 0], writeback: 1, num_queues: 1 },
    ...{ discard: [0x3f_ffff, 1, 1], zero: [0x3f_ffff, 1, 1] },
  });
  assert.equal(disk.rig.read(0x100 + 60, 4), 0);
  assert.equal(disk.rig.read(0x100 + 0xfc, 4), 0);
  using other = new DiskRig({
    properties: {
      ...{ logical_block_size: 1024, physical_block_size: 4096, "queue-size": 64 },
      ...{ "num-queues": 3, min_io_size: 2048, opt_io_size: 8192, discard: false },
      ...{ "write-zeroes": false },
    },
  });
  assert.deepEqual(configOf(other.rig), {
    ...{ capacity: SECTORS, seg_max: 62, geometry: [2, 16, 63], blk_size: 1024 },
    ...{ topology: [2, 0, 2, 8], writeback: 1, num_queues: 3 },
    ...{ discard: [0, 0, 0], zero: [0, 0, 0] },
  });
  const both = bit(BlkFeature.DISCARD) | bit(BlkFeature.WRITE_ZEROES);
  assert.equal(other.rig.offered() & both, 0n);
  assert.notEqual(other.rig.offered() & bit(BlkFeature.MQ), 0n);
  assert.deepEqual(other.request(IN, 2, 1024, 2).data, pattern(4096).slice(1024, 2048));
});

Deno.test("a disk that is resized tells its driver", () => {
  using disk = new DiskRig();
  const generation = disk.rig.get(0xfc);
  disk.rig.takeInterrupt();
  disk.node.resize(2 * SECTORS * 512);
  disk.rig.call((device) => device.resized!());
  assert.equal(disk.rig.takeInterrupt(), InterruptCause.CONFIG_CHANGE);
  assert.notEqual(disk.rig.get(0xfc), generation);
  assert.equal(configOf(disk.rig).capacity, 2 * SECTORS);
  assert.equal(disk.request(OUT, 2 * SECTORS - 1, pattern(512)).status, OK);
});

Deno.test("without a write cache every write is flushed, and the driver may turn it on", () => {
  const writeback = (disk: DiskRig) => configOf(disk.rig).writeback;
  /** Takes writes, but cannot be flushed. */
  const isFlushed = (disk: DiskRig) => {
    const undo = replaceFile(disk, "/dev/null", O.WRONLY);
    const { status } = disk.request(OUT, 0, pattern(512, 1));
    undo();
    return status === IOERR;
  };
  using disk = new DiskRig({ properties: { writeback: false } });
  assert.deepEqual([writeback(disk), isFlushed(disk)], [0, true]);
  disk.rig.write(0x100 + 32, 1, 1);
  assert.deepEqual([writeback(disk), isFlushed(disk)], [1, false]);
  disk.rig.write(0x100 + 32, 0, 1);
  assert.deepEqual([writeback(disk), isFlushed(disk)], [0, true]);
  disk.rig.write(0x100 + 34, 7, 1);
  assert.equal(configOf(disk.rig).num_queues, 1);

  using fixed = new DiskRig({ properties: { writeback: false, "config-wce": false } });
  fixed.rig.write(0x100 + 32, 1, 1);
  assert.deepEqual([writeback(fixed), isFlushed(fixed)], [0, true]);
  assert.equal(fixed.rig.offered() & (bit(BlkFeature.FLUSH) | bit(BlkFeature.CONFIG_WCE)), 0n);

  // A driver that knows neither flushes nor the switch must not lose what it wrote (5.2.6.2).
  using simple = new DiskRig({ features: 0n });
  assert.ok(isFlushed(simple));
  using flushing = new DiskRig({ features: bit(BlkFeature.FLUSH) });
  assert.ok(!isFlushed(flushing));
});

Deno.test("werror and rerror: what the host cannot do is reported, ignored, or stops the guest", () => {
  const cases: [Properties, AttachedDisk["drive"], number, number][] = [
    [{}, undefined, IOERR, IOERR],
    [{ rerror: "ignore", werror: "ignore" }, undefined, OK, OK],
    [{}, { id: "d", writeCache: true, readError: "ignore", writeError: "report" }, OK, IOERR],
    [{ werror: "ignore" }, { id: "d", writeCache: true, writeError: "report" }, IOERR, OK],
    [{ rerror: "stop", werror: "stop" }, undefined, NOTHING, NOTHING],
  ];
  for (const [properties, drive, read, write] of cases) {
    for (const operation of ["read", "write"] as const) {
      using disk = new DiskRig({ properties, drive });
      const undo = replaceFile(disk, "/dev/null", operation === "read" ? O.WRONLY : O.RDONLY);
      const expected = operation === "read" ? read : write;
      const { status } = operation === "read"
        ? disk.request(IN, 0, 512)
        : disk.request(OUT, 0, pattern(512));
      undo();
      assert.equal(status, expected);
      const action = expected === OK ? "ignore" : expected === IOERR ? "report" : "stop";
      assert.deepEqual(disk.rig.context.requests, [{ kind: "disk-error" }]);
      assert.equal(disk.statistics.ioStatus, action === "stop" ? "failed" : "ok");
      const told = [{ operation, action, errno: Errno.EBADF }];
      assert.deepEqual(disk.statistics.takeErrors(), told);
      assert.deepEqual(disk.statistics.takeErrors(), []);
    }
  }
});

Deno.test("a request that stopped the guest is done when it goes on, before those behind it", () => {
  for (const mode of ["kept", "saved"] as const) {
    for (const packed of [false, true]) {
      // Where a disk is full the guest is stopped without being told to.
      using disk = new DiskRig({ mode, properties: { packed } });
      const { rig, drivers: [driver] } = disk;
      const undo = replaceFile(disk, "/dev/full", O.RDWR);
      assert.equal(disk.request(OUT, 5, pattern(512, 42)).written, undefined);
      driver.add([{ gpa: HEADER, length: 16 }, { gpa: DATA, length: 512 }, {
        ...{ gpa: STATUS, length: 1, writable: true },
      }]);
      // However often the driver rings: it is tried once, until the guest goes on.
      rig.notify(0);
      rig.notify(0);
      assert.deepEqual(rig.context.requests, [{ kind: "disk-error" }]);
      assert.equal(disk.statistics.ioStatus, "nospace");
      const told = [{ operation: "write", action: "stop", errno: Errno.ENOSPC }];
      assert.deepEqual(disk.statistics.takeErrors(), told);
      undo();
      disk.statistics.setOk();
      rig.call((device) => device.rung!(0));
      assert.equal(driver.take().length, 2);
      assert.equal(rig.ram.get(STATUS, 1)[0], OK);
      assert.deepEqual(disk.file.slice(5 * 512, 6 * 512), pattern(512, 42));
      assert.equal(disk.statistics.count("wr", "operations"), 2);
    }
  }
});

Deno.test("a request beyond the disk's limits waits, and those behind it, until there is room", () => {
  // In another VMM, the thread that works on queues looks at all of them when it begins.
  for (const mode of ["kept", "shared"] as const) {
    using disk = new DiskRig({ mode });
    const { rig, throttle, drivers: [driver] } = disk;
    const iops = { average: 10, max: 0, burstLength: 1 };
    throttle.limits = { ...noLimits, "iops-total": iops };
    // A tenth of a second's worth fits, and what is begun then.
    assert.equal(disk.request(IN, 0, 512).status, OK);
    assert.equal(disk.request(OUT, 1, pattern(512, 9)).status, OK);
    assert.equal(disk.request(IN, 2, 512).written, undefined);
    driver.add([{ gpa: HEADER, length: 16 }, { gpa: STATUS, length: 1, writable: true }]);
    const [deadline] = rig.context.deadlines;
    assert.equal(deadline, rig.context.monotonic + 100_000_000n);
    rig.context.monotonic = deadline - 1000n;
    rig.notify(0);
    assert.equal(driver.take().length, 0);
    rig.context.monotonic = deadline;
    rig.call((device) => device.timer!(0, deadline));
    rig.call((device) => device.rung!(0));
    // The one behind it waits for its own time.
    assert.equal(driver.take().length, 1);
    throttle.limits = noLimits;
    rig.call((device) => device.limitsChanged!());
    rig.call((device) => device.rung!(0));
    assert.equal(driver.take().length, 1);
    assert.equal(disk.statistics.count("rd", "operations"), 3);
  }
});

Deno.test("zeros that could not be written count in the disk's limits when they are", () => {
  using disk = new DiskRig({ properties: { werror: "stop" } });
  const { rig, throttle } = disk;
  throttle.limits = { ...noLimits, "bps-write": { average: 1 << 20, max: 0, burstLength: 1 } };
  /** Bytes that its bucket has counted: no time passes here. */
  const counted = () => throttle.levels[5];
  const undo = replaceFile(disk, disk.path, O.RDONLY);
  assert.equal(disk.range(WRITE_ZEROES, 8, 3), NOTHING);
  assert.equal(counted(), 0);
  undo();
  disk.statistics.setOk();
  rig.call((device) => device.rung!(0));
  assert.equal(rig.ram.get(STATUS, 1)[0], OK);
  assert.equal(counted(), 3 * 512);
});

Deno.test("properties that make no sense are refused in QEMU's words", () => {
  const cases: [Properties, string][] = [
    [{ "num-queues": 0 }, "num-queues property must be larger than 0"],
    [{ "num-queues": 1025 }, "num-queues property must be at most 1024, not 1025"],
    [{ "queue-size": 5 }, "invalid queue-size property (5), must be a power of 2 (max 1024)"],
    [{ "queue-size": 2048 }, "invalid queue-size property (2048), must be a power of 2 (max 1024)"],
    [
      { logical_block_size: 5 },
      "Property .logical_block_size doesn't take value 5 (minimum: 512, maximum: 2097152)",
    ],
    [
      { physical_block_size: 1000 },
      "Property .physical_block_size doesn't take value '1000', it's not a power of 2",
    ],
    [
      { logical_block_size: 4096, physical_block_size: 512 },
      "logical_block_size > physical_block_size not supported",
    ],
    [
      { "max-discard-sectors": 0 },
      "invalid max-discard-sectors property (0), must be between 1 and 4194303",
    ],
    [{ werror: "foo" }, "Parameter 'werror' does not accept value 'foo'"],
    [{ rerror: "enospc" }, "Parameter 'rerror' does not accept value 'enospc'"],
  ];
  for (const [properties, message] of cases) {
    assert.throws(() => new DiskRig({ properties })[Symbol.dispose](), { message });
  }
});
