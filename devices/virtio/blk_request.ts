/**
 * Requests to a disk (virtio 1.2, 5.2.6): every field is checked, and what the host cannot do becomes
 * what `werror` and `rerror` say.
 *
 * @module
 */
import type { Disk } from "../block/disk.ts";
import { SECTOR } from "../block/words.ts";
import type { ErrorAction } from "../block/config.ts";
import { DiskStatistics, type RequestKind } from "../block/statistics.ts";
import { ThrottleGroup } from "../block/throttle.ts";
import { Errno } from "../../ffi/errno.ts";
import { IoVector } from "../../ffi/iovec.ts";
import type { DeviceContext, Properties } from "../device.ts";
import { type Chain, MalformedRing, wide } from "./chain.ts";
import type { Virtio } from "./virtio.ts";

/** Feature bits of a disk (5.2.3). */
export const BlkFeature = {
  SEG_MAX: 2,
  GEOMETRY: 4,
  RO: 5,
  BLK_SIZE: 6,
  FLUSH: 9,
  TOPOLOGY: 10,
  CONFIG_WCE: 11,
  MQ: 12,
  DISCARD: 13,
  WRITE_ZEROES: 14,
} as const;

/** VIRTIO_BLK_T_*: what a request asks for. */
const Type = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8, DISCARD: 11, WRITE_ZEROES: 13 } as const;
/** VIRTIO_BLK_S_*: what became of it. */
const Outcome = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;
type Outcome = typeof Outcome[keyof typeof Outcome];

/** Bytes of struct virtio_blk_req before its data: type, priority, sector. */
const HEADER_SIZE = 16;
/** Bytes of struct virtio_blk_discard_write_zeroes: sector, number of sectors, flags. */
const RANGE_SIZE = HEADER_SIZE;
/** VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP */
const UNMAP = 1;
/** Bytes of a serial number. */
const ID_SIZE = 20;
/** More is no request: what QEMU's block layer does at once, in bytes. */
const MAX_BYTES = 0x3f_ffff * SECTOR;

/** Requests to one disk, on one thread. */
export class BlkRequests {
  readonly #state: { readonly writeback: number };
  readonly #virtio: Virtio;
  readonly #context: DeviceContext;
  readonly #disk: Disk;
  readonly #statistics: DiskStatistics;
  readonly #throttle: ThrottleGroup;
  readonly #block: number;
  readonly #serial: Uint8Array<ArrayBuffer>;
  readonly #most: { readonly discard: number; readonly zero: number };
  readonly #onError: { readonly read: ErrorAction; readonly write: ErrorAction };
  readonly #status = new IoVector(1);
  readonly #statusByte = new Uint8Array(1);
  readonly #header = new DataView(new ArrayBuffer(HEADER_SIZE));
  readonly #headerBytes = new Uint8Array(this.#header.buffer);
  /** When the request in hand was begun. */
  #startNs = 0n;

  /**
   * @param state the device's own state
   * @param virtio its common part
   * @param context its surroundings
   * @param disk what it shows the guest
   * @param properties its properties
   * @throws {Error} in QEMU's words if a property has no such value
   */
  constructor(
    state: { readonly writeback: number },
    virtio: Virtio,
    context: DeviceContext,
    disk: Disk,
    properties: Properties,
  ) {
    this.#state = state;
    this.#virtio = virtio;
    this.#context = context;
    this.#disk = disk;
    const { statistics, throttle, drive } = context.disk!;
    this.#statistics = new DiskStatistics(statistics);
    this.#throttle = new ThrottleGroup(throttle);
    this.#block = Number(properties.logical_block_size);
    this.#serial = new TextEncoder().encode(`${properties.serial}\0`).slice(0, ID_SIZE);
    this.#most = {
      discard: Number(properties["max-discard-sectors"]),
      zero: Number(properties["max-write-zeroes-sectors"]),
    };
    this.#onError = {
      read: errorAction("rerror", properties.rerror, ["report", "ignore", "stop"]) ??
        drive?.readError ?? "report",
      write: errorAction("werror", properties.werror, ["report", "ignore", "stop", "enospc"]) ??
        drive?.writeError ?? "enospc",
    };
  }

  /** Answers the requests in a queue, unless an error keeps the guest stopped. */
  serve(index: number): void {
    if (this.#statistics.ioStatus !== "ok") return;
    this.#virtio.queues[index].serve((chain) => this.#answer(chain));
  }

  /** @returns bytes written, or undefined if the request is to be tried again later */
  #answer(chain: Chain): number | undefined {
    const { readable, writable } = chain;
    const { length } = writable;
    if (readable.length < HEADER_SIZE) {
      throw new MalformedRing("virtio-blk request outhdr too short");
    }
    this.#status.clear();
    if (!writable.moveLast(this.#status)) {
      throw new MalformedRing("virtio-blk request inhdr too short");
    }
    const outcome = this.#read(readable)
      ? this.#carryOut(chain)
      // The guest's memory is lost to the host.
      : Outcome.IOERR;
    if (outcome === undefined) return undefined;
    this.#statusByte[0] = outcome;
    this.#status.copyIn(this.#statusByte);
    return length;
  }

  /** Takes a header, or a range, of what the driver wrote into `header`: both have its size. */
  #read(vector: IoVector): boolean {
    if (vector.copyOut(this.#headerBytes) !== HEADER_SIZE) return false;
    vector.skip(HEADER_SIZE);
    return true;
  }

  #carryOut({ readable, writable }: Chain): Outcome | undefined {
    const type = this.#header.getUint32(0, true);
    const offset = SECTOR * wide(this.#header.getUint32(8, true), this.#header.getUint32(12, true));
    this.#startNs = this.#context.monotonicNs();
    switch (type) {
      case Type.IN:
        return this.#readDisk(writable, offset);
      case Type.OUT:
        return this.#writeDisk(readable, offset);
      case Type.FLUSH:
        return this.#finish("flush", 0, this.#disk.flush());
      case Type.GET_ID:
        writable.copyIn(this.#serial);
        return Outcome.OK;
      case Type.DISCARD:
      case Type.WRITE_ZEROES:
        return this.#range(type, readable);
      default:
        return Outcome.UNSUPP;
    }
  }

  #readDisk(data: IoVector, offset: number): Outcome | undefined {
    const { length } = data;
    if (!this.#isValid(offset, length)) return this.#invalid("rd");
    if (this.#waits(false, length)) return undefined;
    return this.#finish("rd", length, this.#disk.read(data, offset));
  }

  #writeDisk(data: IoVector, offset: number): Outcome | undefined {
    const { length } = data;
    if (this.#disk.readOnly || !this.#isValid(offset, length)) return this.#invalid("wr");
    if (this.#waits(true, length)) return undefined;
    const error = this.#disk.write(data, offset);
    return this.#finish("wr", length, error === 0 ? this.#keep() : error);
  }

  /** Discards a range, or makes it zeros. */
  #range(
    type: typeof Type.DISCARD | typeof Type.WRITE_ZEROES,
    readable: IoVector,
  ): Outcome | undefined {
    const zero = type === Type.WRITE_ZEROES;
    const feature = zero ? BlkFeature.WRITE_ZEROES : BlkFeature.DISCARD;
    // One range is what the device has said that it takes.
    if (!this.#virtio.hasFeature(feature) || readable.length > RANGE_SIZE) return Outcome.UNSUPP;
    if (readable.length < RANGE_SIZE) {
      throw new MalformedRing("virtio-blk discard/write_zeroes header too short");
    }
    if (!this.#read(readable)) return Outcome.IOERR;
    const offset = SECTOR * wide(this.#header.getUint32(0, true), this.#header.getUint32(4, true));
    const sectors = this.#header.getUint32(8, true);
    const flags = this.#header.getUint32(12, true);
    const kind = zero ? "wr" : "unmap";
    // Bits that are not known, and one that only zeros may have (5.2.6.2).
    if (flags & ~(zero ? UNMAP : 0)) return Outcome.UNSUPP;
    const most = zero ? this.#most.zero : this.#most.discard;
    const length = sectors * SECTOR;
    if (this.#disk.readOnly || sectors > most || !this.#isValid(offset, length)) {
      return this.#invalid(kind);
    }
    if (!zero) return this.#finish(kind, length, this.#disk.discard(offset, length));
    if (this.#waits(true, length)) return undefined;
    const error = this.#disk.writeZeroes(offset, length, (flags & UNMAP) !== 0);
    return this.#finish(kind, 0, error === 0 ? this.#keep() : error);
  }

  /** Whether a request has to wait, since its disk has done enough: all are looked at again then. */
  #waits(isWrite: boolean, length: number): boolean {
    const ns = this.#throttle.admit(isWrite, length, this.#startNs);
    if (ns > 0) this.#context.timers[0].arm(this.#startNs + BigInt(ns));
    return ns > 0;
  }

  /** Flushes what was written, if the guest does not do so itself (5.2.6.2). */
  #keep(): number {
    const writeback = this.#virtio.hasFeature(BlkFeature.CONFIG_WCE)
      ? this.#state.writeback !== 0
      : this.#virtio.hasFeature(BlkFeature.FLUSH);
    return writeback ? 0 : this.#disk.flush();
  }

  /** Whole blocks within the disk. */
  #isValid(offset: number, length: number): boolean {
    return length <= MAX_BYTES && offset % this.#block === 0 && length % this.#block === 0 &&
      this.#disk.contains(offset, length);
  }

  #invalid(kind: RequestKind): Outcome {
    this.#statistics.invalid(kind);
    return Outcome.IOERR;
  }

  /** Counts a request that the host has done, or could not do, and says what the guest is told. */
  #finish(kind: RequestKind, bytes: number, error: number): Outcome | undefined {
    const now = this.#context.monotonicNs();
    if (error === 0) {
      this.#statistics.done(kind, bytes, this.#startNs, now);
      return Outcome.OK;
    }
    const errno = -error;
    const operation = kind === "rd" ? "read" : "write";
    const wanted = this.#onError[operation];
    const action = wanted === "enospc" ? (errno === Errno.ENOSPC ? "stop" : "report") : wanted;
    if (action !== "stop") this.#statistics.failed(kind, this.#startNs, now);
    this.#statistics.report({ operation, action, errno });
    this.#context.request({ kind: "disk-error" });
    return action === "stop" ? undefined : action === "ignore" ? Outcome.OK : Outcome.IOERR;
  }
}

/** `werror` or `rerror`; undefined for `auto`. @throws {Error} in QEMU's words */
function errorAction(
  name: string,
  value: unknown,
  actions: readonly ErrorAction[],
): ErrorAction | undefined {
  const found = actions.find((action) => action === value);
  if (found === undefined && value !== "auto") {
    throw new Error(`Parameter '${name}' does not accept value '${value}'`);
  }
  return found;
}
