/**
 * Disks as monitor commands see them.
 *
 * @module
 */
import type { DriveThrottle } from "../../devices/block/config.ts";

/** What a node knows of an image in QEMU's own format. */
export interface Qcow2Info {
  /** Of the format: 2 or 3. */
  readonly version: number;
  /** Bytes. */
  readonly clusterSize: number;
  /** Bits of a refcount. */
  readonly refcountBits: number;
  readonly lazyRefcounts: boolean;
  readonly compression: "zlib" | "zstd";
  /** Whether it has been found to contradict itself. */
  readonly corrupt: boolean;
  /** The name of the image behind it, as it is written there. */
  readonly backingName?: string;
  /** That image's format, as it is written there. */
  readonly backingFormat?: string;
  readonly snapshots: readonly SnapshotInfo[];
}

/** One snapshot in an image. */
export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  /** Bytes of the machine's saved state. */
  readonly vmStateSize: number;
  /** When it was taken, since 1970. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** What the guest's clock said, in nanoseconds. */
  readonly vmClockNs: bigint;
  /** How many instructions the guest had executed, where that was counted. */
  readonly icount?: bigint;
}

/** One block node. */
export interface BlockNodeInfo {
  /** Its name in the block graph. */
  readonly nodeName: string;
  /** Name of the driver, for example `raw`. */
  readonly driver: string;
  /** Path of the image, or a `json:` name. */
  readonly filename: string;
  /** Whether it cannot be written. */
  readonly readOnly: boolean;
  /** Bytes. */
  readonly size: number;
  /** Bytes that it takes on the host; undefined where that is not known. */
  readonly allocated?: number;
  /** Whether the host's page cache is bypassed (`cache.direct=on`). */
  readonly direct: boolean;
  /** Whether flushes are left out (`cache.no-flush=on`). */
  readonly noFlush: boolean;
  /** Whether writes of zeros are looked for. */
  readonly detectZeroes: "off" | "on" | "unmap";
  /** The node that it is made of. */
  readonly child?: string;
  /** The node behind it. */
  readonly backing?: BlockNodeInfo;
  /** What is known of it if it is a qcow2 image. */
  readonly qcow2?: Qcow2Info;
  /** The end of the write that came furthest, in bytes. */
  readonly highestWrite: number;
  /** What was given back to the host, of nodes that are files. */
  readonly discards?: { readonly done: number; readonly failed: number; readonly bytes: number };
}

/** What is counted of one kind of requests. */
export interface RequestCounts {
  /** Bytes of those that were done. */
  readonly bytes: number;
  /** Those that were done. */
  readonly operations: number;
  /** Nanoseconds that they took. */
  readonly totalTimeNs: number;
  /** Those that the host could not do. */
  readonly failed: number;
  /** Those that cannot be. */
  readonly invalid: number;
}

/** What a disk's device has counted. */
export interface BlockStatistics {
  /** By kind of request. */
  readonly counts: Readonly<Record<"rd" | "wr" | "flush" | "unmap", RequestCounts>>;
  /** Nanoseconds since the last request ended; undefined if there was none. */
  readonly idleNs?: number;
}

/** One disk: a drive, or a node that a device uses without one. */
export interface BlockInfo {
  /** Name of the drive; empty for a node without one. */
  readonly device: string;
  /** Id of the device it is attached to, or its place in the machine. */
  readonly qdev?: string;
  /** Whether an error of the host's has stopped the guest; undefined where none can. */
  readonly ioStatus?: "ok" | "failed" | "nospace";
  /** Whether the guest is told that it has to flush. */
  readonly writeback: boolean;
  /** Its limits, if it has any. */
  readonly throttle?: DriveThrottle;
  /** The medium; undefined for a drive without one. */
  readonly node?: BlockNodeInfo;
  /** Counts. */
  readonly statistics: BlockStatistics;
}
