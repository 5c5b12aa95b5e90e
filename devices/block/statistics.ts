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

/** What is done about an error that the host has had (QAPI BlockErrorAction). */
export const errorActions = ["ignore", "report", "stop"] as const;
const operations = ["read", "write"] as const;

/** An error that the host has had with a guest's request. */
export interface DiskError {
  readonly operation: typeof operations[number];
  readonly action: typeof errorActions[number];
  readonly errno: number;
}

/** The words with the last error of each operation and action that nobody has taken. */
const ERRORS = 2;
/** Words of 64 bits before the counters. */
const FIRST_COUNTER = ERRORS + operations.length * errorActions.length;
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

  /** An error has come, which the main thread tells of; of several alike it tells of the last. */
  report({ operation, action, errno }: DiskError): void {
    Atomics.store(this.#words, errorWord(operation, action), BigInt(errno));
    if (action !== "stop") return;
    const state = errno === Errno.ENOSPC ? "nospace" : "failed";
    Atomics.store(this.#words, IO_STATUS, BigInt(ioStates.indexOf(state)));
  }

  /** Takes the errors that have come. */
  takeErrors(): DiskError[] {
    return operations.flatMap((operation) =>
      errorActions.flatMap((action) => {
        const errno = Number(Atomics.exchange(this.#words, errorWord(operation, action), 0n));
        return errno === 0 ? [] : [{ operation, action, errno }];
      })
    );
  }

  /** The guest goes on. */
  setOk(): void {
    Atomics.store(this.#words, IO_STATUS, 0n);
  }

  #add(kind: RequestKind, counter: Counter, n: bigint): void {
    Atomics.add(this.#words, wordOf(kind, counter), n);
  }
}

function errorWord(operation: DiskError["operation"], action: DiskError["action"]): number {
  return ERRORS + operations.indexOf(operation) * errorActions.length +
    errorActions.indexOf(action);
}

function wordOf(kind: RequestKind, counter: Counter): number {
  return FIRST_COUNTER + requestKinds.indexOf(kind) * counters.length + counters.indexOf(counter);
}
