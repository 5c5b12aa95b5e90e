import assert from "node:assert/strict";
import type { AttachedDisk } from "../../../devices/block/disk.ts";
import type { FileNodeConfig } from "../../../devices/block/config.ts";
import type { BlockNode } from "../../../devices/block/node.ts";
import { openNode } from "../../../devices/block/open_node.ts";
import { DiskStatistics, STATISTICS_SIZE } from "../../../devices/block/statistics.ts";
import { noLimits, ThrottleGroup } from "../../../devices/block/throttle.ts";
import { virtioBlk } from "../../../devices/virtio/blk.ts";
import { BlkFeature } from "../../../devices/virtio/blk_request.ts";
import { InterruptCause, Status } from "../../../devices/virtio/virtio_state.ts";
import type { Properties } from "../../../devices/device.ts";
import { duplicate, O, openFile, redirect } from "../../../ffi/fd.ts";
import { Errno } from "../../../ffi/errno.ts";
import type { RigMode } from "../fake_context.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { bit, VirtioRig } from "./rig.ts";

const SECTORS = 64;
/** Where a request's header, its data and its status are. */
const HEADER = RAM + 0xc_0000;
const DATA = RAM + 0xd_0000;
const STATUS = RAM + 0xe_0000;
const IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13;
const OK = 0, IOERR = 1, UNSUPP = 2;
/** What a status byte is before the device writes it. */
const NOTHING = 0x77;

/** Bytes of which none is like its neighbours, and none is zero. */
function pattern(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => 1 + ((i * 7 + seed) % 255));
}

interface Setup {
  readonly properties?: Properties;
  readonly node?: Partial<FileNodeConfig>;
  readonly mode?: RigMode;
  readonly features?: bigint;
  readonly drive?: AttachedDisk["drive"];
  readonly content?: Uint8Array;
}

/** A disk of 64 sectors with a driver that knows all features unless told. */
class DiskRig implements Disposable {
  readonly path = Deno.makeTempFileSync();
  readonly node: BlockNode;
  readonly rig: VirtioRig;
  readonly statistics: DiskStatistics;
  readonly throttle = new ThrottleGroup();
  readonly drivers: TestDriver[] = [];

  constructor({ properties = {}, node = {}, mode, features, drive, content }: Setup = {}) {
    Deno.writeFileSync(this.path, content ?? pattern(SECTORS * 512));
    const config: FileNodeConfig = {
      ...{ driver: "file", nodeName: "n", filename: this.path, locking: "off", aio: "threads" },
      ...{ readOnly: false, autoReadOnly: false, cache: { direct: false, noFlush: false } },
      ...{ discard: "unmap", detectZeroes: "off" },
      ...node,
    };
    this.node = openNode(config);
    const statistics = new SharedArrayBuffer(STATISTICS_SIZE);
    this.statistics = new DiskStatistics(statistics);
    const found = { "read-only": this.node.readOnly, writeback: true };
    const { shared: throttle } = this.throttle;
    const disk = { disk: this.node.description, statistics, throttle, drive };
    this.rig = new VirtioRig(virtioBlk, mode, { ...found, ...properties }, disk);
    const { rig } = this;
    rig.negotiate(features ?? rig.offered());
    for (let i = 0; i < Number(properties["num-queues"] ?? 1); i++) this.drivers.push(rig.setUp(i));
    rig.start();
  }

  get file(): Uint8Array {
    return Deno.readFileSync(this.path);
  }

  /**
   * Makes a request and waits for it.
   *
   * @param data bytes that the device gets, or how many it is to write
   * @returns the status, how many bytes it says that it has written, and the data
   */
  request(type: number, sector: number | bigint, data: Uint8Array | number = 0, queue = 0) {
    const { ram } = this.rig;
    const header = new DataView(new ArrayBuffer(16));
    header.setUint32(0, type, true);
    header.setBigUint64(8, BigInt(sector), true);
    ram.put(HEADER, new Uint8Array(header.buffer));
    ram.put(STATUS, Uint8Array.of(NOTHING));
    const length = typeof data === "number" ? data : data.length;
    if (typeof data !== "number") ram.put(DATA, data);
    const buffers = [
      { gpa: HEADER, length: 16 },
      ...length > 0 ? [{ gpa: DATA, length, writable: typeof data === "number" }] : [],
      { gpa: STATUS, length: 1, writable: true },
    ];
    this.drivers[queue].add(buffers);
    this.rig.notify(queue);
    const [done] = this.drivers[queue].take();
    return { status: ram.get(STATUS, 1)[0], written: done?.written, data: ram.get(DATA, length) };
  }

  /** A range to discard or to zero. */
  range(type: number, sector: number | bigint, sectors: number, flags = 0): number {
    const range = new DataView(new ArrayBuffer(16));
    range.setBigUint64(0, BigInt(sector), true);
    range.setUint32(8, sectors, true);
    range.setUint32(12, flags, true);
    return this.request(type, 0, new Uint8Array(range.buffer)).status;
  }

  [Symbol.dispose](): void {
    this.node.close();
    Deno.removeSync(this.path);
  }
}

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

/** Has a disk's accesses go to another file from now on; returns what undoes that. */
function replaceFile({ node }: DiskRig, path: string, flags: number): () => void {
  const { image } = node.description;
  assert.ok(image.kind === "file");
  const { fd } = image;
  const kept = duplicate(fd);
  using other = openFile(path, flags);
  redirect(other.fd, fd);
  return () => {
    redirect(kept.fd, fd);
    kept.close();
  };
}

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
