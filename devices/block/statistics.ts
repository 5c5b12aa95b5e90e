/**
 * What a disk's device counts of its requests (QAPI BlockDeviceStats), in memory that all threads see.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";

/** Kinds of requests, as QEMU counts them. */
export const requestKinds = ["rd", "wr", "flush", "unmap"] as const;
/** A kind of request. */
export type RequestKind = typeof requestKinds[number];

/** What is counted of each kind. */
const counters = ["bytes", "operations", "total_time_ns", "failed", "invalid"] as const;
type Counter = typeof counters[number];

/** Words of 64 bits before the counters. */
const FIRST_COUNTER = 2;
/** The word with the state of the disk (QAPI BlockDeviceIoStatus). */
const IO_STATUS = 0;
/** The word with the time at which the last request ended. */
const LAST_ACCESS = 1;
const ioStates = ["ok", "failed", "nospace"] as const;

/** Bytes of a disk's statistics. */
export const STATISTICS_SIZE = 8 * (FIRST_COUNTER + requestKinds.length * counters.length);

/** A disk's statistics on this thread. */
export class DiskStatistics {
  readonly #words: BigInt64Array<SharedArrayBuffer>;

  /** @param shared {@linkcode STATISTICS_SIZE} bytes */
  constructor(shared: SharedArrayBuffer) {
    this.#words = new BigInt64Array(shared);
  }

  /** A request has been done. */
  done(kind: RequestKind, bytes: number, startNs: bigint, endNs: bigint): void {
    this.#add(kind, "bytes", BigInt(bytes));
    this.#add(kind, "operations", 1n);
    this.#add(kind, "total_time_ns", endNs - startNs);
    Atomics.store(this.#words, LAST_ACCESS, endNs);
  }

  /** The host could not do a request. */
  failed(kind: RequestKind, startNs: bigint, endNs: bigint): void {
    this.#add(kind, "failed", 1n);
    this.#add(kind, "total_time_ns", endNs - startNs);
    Atomics.store(this.#words, LAST_ACCESS, endNs);
  }

  /** The guest has made a request that cannot be. */
  invalid(kind: RequestKind): void {
    this.#add(kind, "invalid", 1n);
  }

  /** A counter's value. */
  count(kind: RequestKind, counter: Counter): number {
    return Number(Atomics.load(this.#words, wordOf(kind, counter)));
  }

  /** Nanoseconds since the last request ended; undefined if there was none. */
  idleNs(nowNs: bigint): number | undefined {
    const last = Atomics.load(this.#words, LAST_ACCESS);
    return last === 0n ? undefined : Number(nowNs - last);
  }

  /** Whether an error of the host's keeps the guest stopped. */
  get ioStatus(): typeof ioStates[number] {
    return ioStates[Number(Atomics.load(this.#words, IO_STATUS))];
  }

  /** Such an error has come. @param error its errno */
  setFailed(error: number): void {
    const state = error === Errno.ENOSPC ? "nospace" : "failed";
    Atomics.store(this.#words, IO_STATUS, BigInt(ioStates.indexOf(state)));
  }

  /** The guest goes on. */
  setOk(): void {
    Atomics.store(this.#words, IO_STATUS, 0n);
  }

  #add(kind: RequestKind, counter: Counter, n: bigint): void {
    Atomics.add(this.#words, wordOf(kind, counter), n);
  }
}

function wordOf(kind: RequestKind, counter: Counter): number {
  return FIRST_COUNTER + requestKinds.indexOf(kind) * counters.length + counters.indexOf(counter);
}
