/**
 * A disk behind its transport, with a driver, for tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { AttachedDisk } from "../../../devices/block/disk.ts";
import type { FileNodeConfig } from "../../../devices/block/config.ts";
import type { BlockNode } from "../../../devices/block/node.ts";
import { openNode } from "../../../devices/block/open_node.ts";
import { DiskStatistics, STATISTICS_SIZE } from "../../../devices/block/statistics.ts";
import { ThrottleGroup } from "../../../devices/block/throttle.ts";
import { virtioBlk } from "../../../devices/virtio/blk.ts";
import type { Properties } from "../../../devices/device.ts";
import { duplicate, openFile, redirect } from "../../../ffi/fd.ts";
import type { RigMode } from "../fake_context.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { VirtioRig } from "./rig.ts";

/** Sectors of the disk. */
export const SECTORS = 64;
/** Where a request's header, its data and its status are. */
export const HEADER = RAM + 0xc_0000;
export const DATA = RAM + 0xd_0000;
export const STATUS = RAM + 0xe_0000;
/** VIRTIO_BLK_T_* */
export const Request = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  DISCARD: 11,
  WRITE_ZEROES: 13,
} as const;
/** VIRTIO_BLK_S_* */
export const Outcome = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;
/** What a status byte is before the device writes it. */
export const NOTHING = 0x77;

/** Bytes of which none is like its neighbours, and none is zero. */
export function pattern(length: number, seed = 0): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => 1 + ((i * 7 + seed) % 255));
}

/** What is not as it is by default. */
export interface Setup {
  readonly properties?: Properties;
  readonly node?: Partial<FileNodeConfig>;
  readonly mode?: RigMode;
  readonly features?: bigint;
  readonly drive?: AttachedDisk["drive"];
  readonly content?: Uint8Array;
  /** Entries of each queue. */
  readonly queueSize?: number;
}

/** A request of a burst. */
export interface BurstRequest {
  readonly type: number;
  readonly sector?: number;
  /** Bytes that the device gets, or how many it is to write: 1024 at most. */
  readonly data?: Uint8Array<ArrayBuffer> | number;
}

/** Bytes between the data of a burst's requests. */
const STRIDE = 1024;

/** A disk of 64 sectors with a driver that knows all features unless told. */
export class DiskRig implements Disposable {
  readonly path = Deno.makeTempFileSync();
  readonly node: BlockNode;
  readonly rig: VirtioRig;
  readonly statistics: DiskStatistics;
  readonly throttle = new ThrottleGroup();
  readonly drivers: TestDriver[] = [];

  constructor(
    { properties = {}, node = {}, mode, features, drive, content, queueSize }: Setup = {},
  ) {
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
    for (let i = 0; i < Number(properties["num-queues"] ?? 1); i++) {
      this.drivers.push(rig.setUp(i, queueSize));
    }
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

  /** Makes requests available, all of them before the device hears of one. */
  offer(requests: readonly BurstRequest[]): void {
    const { ram } = this.rig;
    for (const [i, { type, sector = 0, data = 0 }] of requests.entries()) {
      const header = new DataView(new ArrayBuffer(16));
      header.setUint32(0, type, true);
      header.setBigUint64(8, BigInt(sector), true);
      ram.put(HEADER + 16 * i, new Uint8Array(header.buffer));
      ram.put(STATUS + i, Uint8Array.of(NOTHING));
      const isWritable = typeof data === "number";
      const length = isWritable ? data : data.length;
      if (!isWritable) ram.put(DATA + STRIDE * i, data);
      const buffers = [
        { gpa: HEADER + 16 * i, length: 16 },
        ...length > 0 ? [{ gpa: DATA + STRIDE * i, length, writable: isWritable }] : [],
        { gpa: STATUS + i, length: 1, writable: true },
      ];
      this.drivers[0].add(buffers, true);
    }
  }

  /** What a burst's request reads, and its status. */
  answer(index: number, length = 0): { status: number; data: Uint8Array } {
    const { ram } = this.rig;
    return { status: ram.get(STATUS + index, 1)[0], data: ram.get(DATA + STRIDE * index, length) };
  }

  /** Makes requests together. @returns the status of each */
  burst(requests: readonly BurstRequest[]): number[] {
    this.offer(requests);
    this.rig.notify(0);
    this.drivers[0].take();
    return requests.map((_, i) => this.answer(i).status);
  }

  [Symbol.dispose](): void {
    this.rig.context.uring?.close();
    this.node.close();
    Deno.removeSync(this.path);
  }
}

/** Has a disk's accesses go to another file from now on; returns what undoes that. */
export function replaceFile({ node }: DiskRig, path: string, flags: number): () => void {
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
