/**
 * Limits on what a disk does in a second: leaky buckets that all disks of a group share (QEMU's
 * docs/throttle.txt and QAPI ThrottleLimits), and all network backends of it: there a request is a frame,
 * to read one is to receive it, and to write one to send it.
 *
 * Each bucket fills with what is done and leaks at the limit's rate. A request waits while a bucket that
 * it counts in is fuller than it may be: by a tenth of a second's worth, or by a burst's.
 *
 * @module
 */
import { lock, unlock } from "../mutex.ts";

/** What is limited. */
export type LimitName =
  | "bps-total"
  | "bps-read"
  | "bps-write"
  | "iops-total"
  | "iops-read"
  | "iops-write";

/** All of it, in the order of the buckets. */
export const limitNames: readonly LimitName[] = [
  ...["bps-total", "bps-read", "bps-write"] as const,
  ...["iops-total", "iops-read", "iops-write"] as const,
];

/** A limit. */
export interface Limit {
  /** Bytes, or requests, in a second; 0 for no limit. */
  readonly average: number;
  /** The same while a burst lasts; 0 for no bursts. */
  readonly max: number;
  /** Seconds that a burst may last. */
  readonly burstLength: number;
}

/** All limits of a group. */
export type ThrottleLimits = Readonly<Record<LimitName, Limit>> & {
  /** Bytes that count as one request; a larger one counts as several. 0: each is one. */
  readonly iopsSize: number;
};

const none: Limit = { average: 0, max: 0, burstLength: 1 };

/** No limits at all. */
export const noLimits: ThrottleLimits = {
  ...{ "bps-total": none, "bps-read": none, "bps-write": none },
  ...{ "iops-total": none, "iops-read": none, "iops-write": none },
  iopsSize: 0,
};

/** The largest value (THROTTLE_VALUE_MAX). */
const MAX_VALUE = 1e15;
const NS = 1e9;

/** Numbers (f64): the mutex's word is in the first. */
const TIME = 1;
const IOPS_SIZE = 2;
const ACTIVE = 3;
const FIRST_BUCKET = 4;
/** Numbers of a bucket. */
const AVERAGE = 0;
const MAX = 1;
const BURST_LENGTH = 2;
const LEVEL = 3;
const BURST_LEVEL = 4;
const BUCKET = 5;

/** Bytes of a group's shared memory. */
export const THROTTLE_SIZE: number = 8 * (FIRST_BUCKET + limitNames.length * BUCKET);

/**
 * Checks limits.
 *
 * @throws {Error} in QEMU's words if they contradict one another
 */
export function checkLimits(limits: ThrottleLimits): void {
  for (const kind of ["bps", "iops"] as const) {
    const [total, read, write] = (["total", "read", "write"] as const)
      .map((one) => limits[`${kind}-${one}`]);
    const both = (part: "average" | "max") => total[part] > 0 && (read[part] || write[part]) > 0;
    if (both("average") || both("max")) {
      throw new Error(
        "bps/iops/max total values and read/write values cannot be used at the same time",
      );
    }
  }
  for (const name of limitNames) checkLimit(limits[name]);
  if (limits.iopsSize < 0) throw new Error(`the iops size cannot be ${limits.iopsSize}`);
  if (limits.iopsSize > 0 && !limitNames.slice(3).some((name) => limits[name].average > 0)) {
    throw new Error("iops size requires an iops value to be set");
  }
}

function checkLimit({ average, max, burstLength }: Limit): void {
  const inRange = (value: number) => value >= 0 && value <= MAX_VALUE;
  if (!inRange(average) || !inRange(max)) {
    throw new Error(`bps/iops/max values must be within [0, ${MAX_VALUE}]`);
  }
  if (burstLength <= 0) throw new Error(`the burst length cannot be ${burstLength}`);
  if (burstLength > 1 && max === 0) throw new Error("burst length set without burst rate");
  if (max > 0 && burstLength > MAX_VALUE / max) {
    throw new Error("burst length too high for this burst rate");
  }
  if (max > 0 && average === 0) {
    throw new Error("bps_max/iops_max require corresponding bps/iops values");
  }
  if (max > 0 && max < average) {
    throw new Error("bps_max/iops_max cannot be lower than bps/iops");
  }
}

/** The limits of a group, on any thread. */
export class ThrottleGroup {
  /** Shared memory of {@linkcode THROTTLE_SIZE} bytes. */
  readonly shared: SharedArrayBuffer;
  readonly #mutex: Int32Array<SharedArrayBuffer>;
  readonly #words: Float64Array<SharedArrayBuffer>;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(THROTTLE_SIZE)) {
    this.shared = shared;
    this.#mutex = new Int32Array(shared, 0, 1);
    this.#words = new Float64Array(shared);
  }

  /** Whether there is any limit. */
  get active(): boolean {
    return this.#words[ACTIVE] !== 0;
  }

  /** The limits. */
  get limits(): ThrottleLimits {
    return this.#locked(() => {
      const limits = limitNames.map((name, index) => {
        const [average, max, burstLength] = this.#words.subarray(bucket(index));
        return [name, { average, max, burstLength: burstLength || 1 }];
      });
      return { ...Object.fromEntries(limits), iopsSize: this.#words[IOPS_SIZE] };
    });
  }

  /** Other limits, which begin with empty buckets. */
  set limits(limits: ThrottleLimits) {
    this.#locked(() => {
      this.#words[IOPS_SIZE] = limits.iopsSize;
      for (const [index, name] of limitNames.entries()) {
        const { average, max, burstLength } = limits[name];
        this.#words.set([average, max, burstLength, 0, 0], bucket(index));
      }
      this.#words[ACTIVE] = Number(limitNames.some((name) => limits[name].average > 0));
    });
  }

  /** How full the buckets are, and since when: for another VMM of this host. */
  get levels(): number[] {
    return this.#locked(() => [
      this.#words[TIME],
      ...limitNames.flatMap((_, index) => {
        const at = bucket(index);
        return [this.#words[at + LEVEL], this.#words[at + BURST_LEVEL]];
      }),
    ]);
  }

  /** Goes on where another VMM was. @throws {Error} if these are no levels */
  set levels(levels: readonly number[]) {
    const isRight = levels.length === 1 + 2 * limitNames.length &&
      levels.every((level) => Number.isFinite(level) && level >= 0);
    if (!isRight) throw new Error("Levels of a throttle group make no sense");
    this.#locked(() => {
      this.#words[TIME] = levels[0];
      for (const index of limitNames.keys()) {
        this.#words[bucket(index) + LEVEL] = levels[1 + 2 * index];
        this.#words[bucket(index) + BURST_LEVEL] = levels[2 + 2 * index];
      }
    });
  }

  /**
   * Asks whether a request may be made now; if so, it counts.
   *
   * @param bytes that it moves
   * @param nowNs CLOCK_MONOTONIC
   * @returns nanoseconds to wait before asking again; 0 if it may
   */
  admit(isWrite: boolean, bytes: number, nowNs: bigint): number {
    if (!this.active) return 0;
    return this.#locked(() => {
      const wait = this.#waitFor(isWrite, nowNs);
      if (wait === 0) this.#fill(isWrite, bytes, 1);
      return wait;
    });
  }

  /**
   * Asks whether a request may be made now, of which it is not known yet how large it is: it counts by
   * {@linkcode count}.
   *
   * @param nowNs CLOCK_MONOTONIC
   * @returns nanoseconds to wait before asking again; 0 if it may
   */
  wait(isWrite: boolean, nowNs: bigint): number {
    return this.active ? this.#locked(() => this.#waitFor(isWrite, nowNs)) : 0;
  }

  /** Counts a request that has been made. */
  count(isWrite: boolean, bytes: number): void {
    if (this.active) this.#locked(() => this.#fill(isWrite, bytes, 1));
  }

  /** A request that was admitted is made again later, and asks then: it does not count. */
  takeBack(isWrite: boolean, bytes: number): void {
    if (this.active) this.#locked(() => this.#fill(isWrite, bytes, -1));
  }

  #waitFor(isWrite: boolean, nowNs: bigint): number {
    this.#leak(Number(nowNs));
    return Math.ceil(Math.max(...bucketsOf(isWrite).map((index) => this.#wait(bucket(index)))));
  }

  #fill(isWrite: boolean, bytes: number, sign: 1 | -1): void {
    const size = this.#words[IOPS_SIZE];
    const requests = size > 0 && bytes > size ? bytes / size : 1;
    for (const index of bucketsOf(isWrite)) {
      const units = sign * (index < 3 ? bytes : requests);
      const add = (part: number) => {
        // Some of what is taken back has leaked since.
        this.#words[bucket(index) + part] = Math.max(0, this.#words[bucket(index) + part] + units);
      };
      add(LEVEL);
      if (this.#words[bucket(index) + BURST_LENGTH] > 1) add(BURST_LEVEL);
    }
  }

  #leak(now: number): void {
    // A clock that seems to have gone back is another boot's: nothing is known of what was before.
    const seconds = Math.max(0, now - this.#words[TIME]) / NS;
    this.#words[TIME] = now;
    for (const index of limitNames.keys()) {
      const at = bucket(index);
      const leak = (part: number, rate: number) => {
        this.#words[at + part] = Math.max(0, this.#words[at + part] - rate * seconds);
      };
      leak(LEVEL, this.#words[at + AVERAGE]);
      leak(BURST_LEVEL, this.#words[at + MAX]);
    }
  }

  /** Nanoseconds until a bucket is no fuller than it may be. */
  #wait(at: number): number {
    const [average, max, burstLength, level, burstLevel] = this.#words.subarray(at, at + BUCKET);
    if (average === 0) return 0;
    const extra = level - (max > 0 ? max * burstLength : average / 10);
    if (extra > 0) return extra / average * NS;
    // In a burst, it is the burst's rate that counts.
    const extraBurst = burstLength > 1 ? burstLevel - max / 10 : 0;
    return extraBurst > 0 ? extraBurst / max * NS : 0;
  }

  #locked<T>(action: () => T): T {
    lock(this.#mutex, 0);
    try {
      return action();
    } finally {
      unlock(this.#mutex, 0);
    }
  }
}

/** Those that a request counts in: all of both kinds, and the ones of its direction. */
function bucketsOf(isWrite: boolean): number[] {
  const direction = isWrite ? 2 : 1;
  return [0, direction, 3, 3 + direction];
}

function bucket(index: number): number {
  return FIRST_BUCKET + index * BUCKET;
}
