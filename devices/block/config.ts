/**
 * What a block node is told by `-blockdev`, `-drive` and `blockdev-add` (QAPI BlockdevOptions).
 *
 * @module
 */
import type { ThrottleLimits } from "./throttle.ts";

/** What all nodes have in common. */
export interface BlockNodeCommon {
  /** Unique among nodes; one that nobody named begins with `#`. */
  readonly nodeName: string;
  /** Nobody can write to it. */
  readonly readOnly: boolean;
  /** It is read-only where it cannot be written. */
  readonly autoReadOnly: boolean;
  /** How the host caches it. */
  readonly cache: {
    /** The host's page cache is left out (O_DIRECT). */
    readonly direct: boolean;
    /** Flushes are left out: what a crash of the host leaves is anybody's guess. */
    readonly noFlush: boolean;
  };
  /** What becomes of ranges that the guest discards. */
  readonly discard: "ignore" | "unmap";
  /** Whether writes of zeros become requests to zero, which may give back what they cover. */
  readonly detectZeroes: "off" | "on" | "unmap";
}

/** A file, or a device of the host's. */
export interface FileNodeConfig extends BlockNodeCommon {
  /** QEMU's name of the driver. */
  readonly driver: "file" | "host_device";
  /** It is the other of the two if the file turns out to be one: `-drive` does not say. */
  readonly eitherDriver?: boolean;
  /** The file's path. */
  readonly filename: string;
  /** Whether others are kept away by locks; `auto` where the file system knows them. */
  readonly locking: "on" | "off" | "auto";
  /**
   * How requests are made: one after another by the thread that takes them, or many at once by the
   * kernel. For `native` that is by io_uring where there is one.
   */
  readonly aio: "threads" | "native" | "io_uring";
  /** Whether the open file, with its locks, is handed to a successor (on unless given). */
  readonly cpr?: boolean;
}

/** Nothing: writes vanish. */
export interface NullNodeConfig extends BlockNodeCommon {
  /** QEMU's name of the driver. */
  readonly driver: "null-co";
  /** Bytes. */
  readonly size: number;
  /** Reads give zeros; else they leave the guest's memory as it is. */
  readonly readZeroes: boolean;
}

/** A disk image without a format: another node, or a part of it. */
export interface RawNodeConfig extends BlockNodeCommon {
  /** QEMU's name of the driver. */
  readonly driver: "raw";
  /** The name of the node that it is made of. */
  readonly file: string;
  /** Bytes of that node before it begins. */
  readonly offset: number;
  /** Bytes; all that is left after `offset` unless given. */
  readonly size?: number;
}

/** An image in QEMU's own format, which grows as it is written to. */
export interface Qcow2NodeConfig extends BlockNodeCommon {
  /** QEMU's name of the driver. */
  readonly driver: "qcow2";
  /** The name of the node that it is made of. */
  readonly file: string;
  /** The name of the node behind it, null for none; as the image says unless given. */
  readonly backing?: string | null;
  /** It is opened to be checked and repaired, whatever is wrong with it. */
  readonly check?: boolean;
}

/** A node whose requests are limited. */
export interface ThrottleNodeConfig extends BlockNodeCommon {
  /** QEMU's name of the driver. */
  readonly driver: "throttle";
  /** The id of the throttle group, or the name of one that drives share. */
  readonly group: string;
  /** The name of the node that is limited. */
  readonly file: string;
}

/** A node's configuration. */
export type BlockNodeConfig =
  | FileNodeConfig
  | NullNodeConfig
  | RawNodeConfig
  | Qcow2NodeConfig
  | ThrottleNodeConfig;

/** What is done about an error that the host has with a guest's request. */
export type ErrorAction = "report" | "ignore" | "stop" | "enospc";

/** Limits of a drive. */
export interface DriveThrottle {
  /** Drives of a group share its limits, which are those of the one that came last. */
  readonly group: string;
  /** What it may do in a second. */
  readonly limits: ThrottleLimits;
}

/** `-drive`: a name for a node that a device can use, and how it is used. */
export interface DriveConfig {
  /** Unique among drives. */
  readonly id: string;
  /** The node at its root; none for a drive without a medium. */
  readonly nodeName?: string;
  /** `werror=`; `auto` unless given. */
  readonly writeError?: ErrorAction;
  /** `rerror=`; `auto` unless given. */
  readonly readError?: ErrorAction;
  /** Whether the guest is told that it has to flush; if not, every write is flushed. */
  readonly writeCache: boolean;
  /** `throttling.…`; no limits unless given. */
  readonly throttle?: DriveThrottle;
}
