/**
 * The VM's disks as monitor commands see them.
 *
 * @module
 */
import { diskSize } from "../../devices/block/disk.ts";
import { SharedWord } from "../../devices/block/words.ts";
import type { BlockNode } from "../../devices/block/node.ts";
import { clusterSize } from "../../devices/block/qcow2/format.ts";
import { Qcow2Node } from "../../devices/block/qcow2/node.ts";
import {
  type DiskStatistics,
  type RequestKind,
  requestKinds,
} from "../../devices/block/statistics.ts";
import { monotonicNs } from "../../ffi/event.ts";
import type { BlockBackend, BlockSet } from "../block_set.ts";
import type {
  BlockInfo,
  BlockNodeInfo,
  BlockStatistics,
  Qcow2Info,
  RequestCounts,
} from "../monitor/block_info.ts";

/** All disks. */
export function blockInfos({ backends }: BlockSet): BlockInfo[] {
  return backends.map(describeBackend);
}

/** All nodes. */
export function blockNodeInfos({ nodes }: BlockSet): BlockNodeInfo[] {
  return nodes.map(describeNode);
}

function describeBackend({ drive, node, user, throttle, statistics }: BlockBackend): BlockInfo {
  return {
    device: drive?.id ?? "",
    ...user && { qdev: user.device, ioStatus: statistics.ioStatus },
    writeback: drive?.writeCache ?? true,
    ...throttle && { throttle },
    ...node && { node: describeNode(node) },
    statistics: describeStatistics(statistics),
  };
}

/** One node. */
export function describeNode(node: BlockNode): BlockNodeInfo {
  const { config, child, description, allocated } = node;
  const words = new BigInt64Array(description.shared);
  const word = (index: number) => Number(Atomics.load(words, index));
  return {
    nodeName: config.nodeName,
    driver: config.driver,
    filename: node.filename,
    readOnly: node.readOnly,
    size: diskSize(description),
    ...allocated !== undefined && { allocated },
    direct: config.cache.direct,
    noFlush: config.cache.noFlush,
    detectZeroes: config.detectZeroes,
    ...child && { child: child.config.nodeName },
    ...node.backing && { backing: describeNode(node.backing) },
    ...node instanceof Qcow2Node && { qcow2: describeImage(node) },
    highestWrite: word(SharedWord.HIGHEST_WRITE),
    ...description.image.kind !== "null" && !child && {
      discards: {
        done: word(SharedWord.DISCARDS),
        failed: word(SharedWord.FAILED_DISCARDS),
        bytes: word(SharedWord.DISCARDED_BYTES),
      },
    },
  };
}

function describeImage({ format, corrupt, snapshots }: Qcow2Node): Qcow2Info {
  const { version, refcountOrder, lazyRefcounts, compression, backing } = format;
  return {
    ...{ version, lazyRefcounts, compression, corrupt, snapshots },
    clusterSize: clusterSize(format),
    refcountBits: 2 ** refcountOrder,
    ...backing && { backingName: backing.filename },
    ...backing?.format !== undefined && { backingFormat: backing.format },
  };
}

function describeStatistics(statistics: DiskStatistics): BlockStatistics {
  const idleNs = statistics.idleNs(monotonicNs());
  const counts = Object.fromEntries(requestKinds.map((kind) => [kind, countsOf(statistics, kind)]));
  return {
    counts: counts as BlockStatistics["counts"],
    ...idleNs !== undefined && { idleNs },
  };
}

function countsOf(statistics: DiskStatistics, kind: RequestKind): RequestCounts {
  return {
    bytes: statistics.count(kind, "bytes"),
    operations: statistics.count(kind, "operations"),
    totalTimeNs: statistics.count(kind, "total_time_ns"),
    failed: statistics.count(kind, "failed"),
    invalid: statistics.count(kind, "invalid"),
  };
}
