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
import type { Transfer } from "../block/transfers.ts";
import { Errno } from "../../ffi/errno.ts";
import { IoVector } from "../../ffi/iovec.ts";
import type { DeviceContext, Properties } from "../device.ts";
import { BlkFrames, HEADER_SIZE } from "./blk_frames.ts";
import { type Chain, MalformedRing, wide } from "./chain.ts";
import type { TakenRequests, Virtio } from "./virtio.ts";

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

/** Bytes of struct virtio_blk_discard_write_zeroes: sector, number of sectors, flags. */
const RANGE_SIZE = 16;
/** VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP */
const UNMAP = 1;
/** Bytes of a serial number. */
const ID_SIZE = 20;
/** More is no request: what QEMU's block layer does at once, in bytes. */
const MAX_BYTES = 0x3f_ffff * SECTOR;

/** After so many nanoseconds the driver is told of what is done, before more is begun. */
const MOST_NS = 200_000n;
/** How many requests are taken together where they are made one by one. */
const MOST_TAKEN = 8;

/** What becomes of a request now: an outcome, or what there is to do first. */
type Step = Outcome | "transfer" | "alone" | "later" | "malformed";

/** A request in hand. */
interface Request extends Transfer {
  /** Where the driver looks for the outcome. */
  readonly status: IoVector;
  /** When it was begun. */
  startNs: bigint;
  /** What it asks for. */
  type: number;
  /** Bytes of data. */
  length: number;
  /** Bytes that the device may write, the status among them. */
  room: number;
}

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
  readonly #frames = new BlkFrames();
  readonly #range = new DataView(new ArrayBuffer(RANGE_SIZE));
  readonly #rangeBytes = new Uint8Array(this.#range.buffer);
  /** Of what was taken from a queue together, in its order. */
  readonly #requests: Request[] = [];

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
    this.#virtio.queues[index].serveMany(Math.max(MOST_TAKEN, this.#disk.depth), (taken) => {
      this.#frames.take(taken);
      try {
        return this.#answer(taken);
      } finally {
        this.#frames.tell();
      }
    });
  }

  /**
   * Reads and writes behind one another are made at once, if the disk can, and all else when those
   * before it are done.
   *
   * @returns false if what is left has to wait
   */
  #answer(taken: TakenRequests): boolean {
    const { depth } = this.#disk;
    let startNs: bigint | undefined;
    for (let i = 0; i < taken.count; i++) {
      const nowNs = this.#context.monotonicNs();
      startNs ??= nowNs;
      if (nowNs - startNs > MOST_NS) return this.#transfer(taken, i);
      const chain = taken.chains[i];
      const request = this.#slot(i);
      request.startNs = nowNs;
      const step = this.#begin(request, i, chain);
      if (step === "transfer") {
        if (i + 1 - taken.finished === depth && !this.#transfer(taken, i + 1)) return false;
        continue;
      }
      if (!this.#transfer(taken, i)) return false;
      if (step === "malformed") throw malformed(chain);
      const outcome = step === "alone" ? this.#carryOut(request, chain) : step;
      if (outcome === "later") return false;
      this.#finish(taken, request, outcome);
    }
    return this.#transfer(taken, taken.count);
  }

  #slot(index: number): Request {
    return this.#requests[index] ??= {
      ...{ isWrite: false, vector: new IoVector(0), offset: 0, result: 0, request: 0 },
      ...{ status: new IoVector(1), startNs: 0n, type: 0, length: 0, room: 0 },
    };
  }

  /** Looks at a request: one that is no transfer waits for those before it. */
  #begin(request: Request, index: number, { readable, writable }: Chain): Step {
    request.room = writable.length;
    if (readable.length < HEADER_SIZE || request.room === 0) return "malformed";
    request.status.clear();
    writable.moveLast(request.status);
    const at = this.#frames.header(index, readable);
    if (at === undefined) return Outcome.IOERR;
    const { headers } = this.#frames;
    const type = headers.getUint32(at, true);
    request.type = type;
    request.offset = SECTOR *
      wide(headers.getUint32(at + 8, true), headers.getUint32(at + 12, true));
    if (type !== Type.IN && type !== Type.OUT) return "alone";
    request.isWrite = type === Type.OUT;
    request.vector = request.isWrite ? readable : writable;
    request.length = request.vector.length;
    return this.#admit(request);
  }

  /** Whether a read or a write can be made, now. */
  #admit({ isWrite, offset, length, startNs }: Request): Step {
    if ((isWrite && this.#disk.readOnly) || !this.#isValid(offset, length)) {
      return this.#invalid(isWrite ? "wr" : "rd");
    }
    return this.#waits(isWrite, length, startNs) ? "later" : "transfer";
  }

  /** Makes all transfers before a request. @returns false if one of them is to be made again later */
  #transfer(taken: TakenRequests, end: number): boolean {
    const first = taken.finished;
    if (first === end) return true;
    this.#disk.transfer(this.#requests, first, end);
    /** One flush is enough for all. */
    let kept: number | undefined;
    for (let i = first; i < end; i++) {
      const request = this.#requests[i];
      const { isWrite, result } = request;
      const error = isWrite && result === 0 ? kept ??= this.#keep() : result;
      const outcome = this.#settle(request, isWrite ? "wr" : "rd", request.length, error);
      if (outcome === "later") {
        // All of them are made again, and count then.
        for (const one of this.#requests.slice(i, end)) {
          this.#throttle.takeBack(one.isWrite, one.length);
        }
        return false;
      }
      this.#finish(taken, request, outcome);
    }
    return true;
  }

  #finish(taken: TakenRequests, { status, room }: Request, outcome: Outcome): void {
    this.#frames.finish(status, outcome);
    taken.finish(room);
  }

  /** Carries out what is no transfer. */
  #carryOut(request: Request, { readable, writable }: Chain): Outcome | "later" {
    switch (request.type) {
      case Type.FLUSH:
        return this.#settle(request, "flush", 0, this.#disk.flush());
      case Type.GET_ID:
        writable.copyIn(this.#serial);
        return Outcome.OK;
      case Type.DISCARD:
      case Type.WRITE_ZEROES:
        return this.#zeroOrDiscard(request, readable);
      default:
        return Outcome.UNSUPP;
    }
  }

  /** Discards a range, or makes it zeros. */
  #zeroOrDiscard(request: Request, readable: IoVector): Outcome | "later" {
    const zero = request.type === Type.WRITE_ZEROES;
    const feature = zero ? BlkFeature.WRITE_ZEROES : BlkFeature.DISCARD;
    // One range is what the device has said that it takes.
    if (!this.#virtio.hasFeature(feature) || readable.length > RANGE_SIZE) return Outcome.UNSUPP;
    if (readable.length < RANGE_SIZE) {
      throw new MalformedRing("virtio-blk discard/write_zeroes header too short");
    }
    if (readable.copyOut(this.#rangeBytes) !== RANGE_SIZE) return Outcome.IOERR;
    const offset = SECTOR * wide(this.#range.getUint32(0, true), this.#range.getUint32(4, true));
    const sectors = this.#range.getUint32(8, true);
    const flags = this.#range.getUint32(12, true);
    const kind = zero ? "wr" : "unmap";
    // Bits that are not known, and one that only zeros may have (5.2.6.2).
    if (flags & ~(zero ? UNMAP : 0)) return Outcome.UNSUPP;
    const most = zero ? this.#most.zero : this.#most.discard;
    const length = sectors * SECTOR;
    if (this.#disk.readOnly || sectors > most || !this.#isValid(offset, length)) {
      return this.#invalid(kind);
    }
    if (!zero) return this.#settle(request, kind, length, this.#disk.discard(offset, length));
    if (this.#waits(true, length, request.startNs)) return "later";
    const error = this.#disk.writeZeroes(offset, length, (flags & UNMAP) !== 0);
    const outcome = this.#settle(request, kind, 0, error === 0 ? this.#keep() : error);
    if (outcome === "later") this.#throttle.takeBack(true, length);
    return outcome;
  }

  /** Whether a request has to wait, since its disk has done enough: all are looked at again then. */
  #waits(isWrite: boolean, length: number, nowNs: bigint): boolean {
    const ns = this.#throttle.admit(isWrite, length, nowNs);
    if (ns > 0) this.#context.timers[0].arm(nowNs + BigInt(ns));
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
  #settle(
    { startNs }: Request,
    kind: RequestKind,
    bytes: number,
    error: number,
  ): Outcome | "later" {
    const now = this.#context.monotonicNs();
    if (error === 0) {
      this.#statistics.done(kind, bytes, startNs, now);
      return Outcome.OK;
    }
    const errno = -error;
    const operation = kind === "rd" ? "read" : "write";
    const wanted = this.#onError[operation];
    const action = wanted === "enospc" ? (errno === Errno.ENOSPC ? "stop" : "report") : wanted;
    if (action !== "stop") this.#statistics.failed(kind, startNs, now);
    this.#statistics.report({ operation, action, errno });
    this.#context.request({ kind: "disk-error" });
    return action === "stop" ? "later" : action === "ignore" ? Outcome.OK : Outcome.IOERR;
  }
}

/** What is wrong with a chain that is no request. */
function malformed({ readable }: Chain): MalformedRing {
  const part = readable.length < HEADER_SIZE ? "outhdr" : "inhdr";
  return new MalformedRing(`virtio-blk request ${part} too short`);
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
