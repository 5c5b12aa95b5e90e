/**
 * Images as monitor commands and `denovo img info` describe them.
 *
 * @module
 */
import type { BlockNodeInfo, Qcow2Info, SnapshotInfo } from "../block_info.ts";

/** QAPI ImageInfo, with the image behind it unless `flat`. */
export function describeImage(node: BlockNodeInfo, flat: boolean) {
  const { backing } = node;
  return {
    ...describeLayer(node),
    ...backing && !flat && { "backing-image": describeLayer(backing) },
  };
}

/** QAPI ImageInfo, without the image behind it. */
export function describeLayer(node: BlockNodeInfo) {
  const { filename, driver, size, allocated, qcow2, backing } = node;
  return {
    "virtual-size": size,
    filename,
    format: driver,
    ...allocated !== undefined && { "actual-size": allocated },
    ...driver !== "null-co" && { "dirty-flag": false },
    ...qcow2 && describeQcow2(qcow2, backing),
  };
}

function describeQcow2(image: Qcow2Info, backing: BlockNodeInfo | undefined) {
  const { version, clusterSize, refcountBits, backingName, backingFormat, snapshots } = image;
  return {
    "cluster-size": clusterSize,
    ...backingName !== undefined && { "backing-filename": backingName },
    ...backing && { "full-backing-filename": backing.filename },
    ...backingFormat !== undefined && { "backing-filename-format": backingFormat },
    ...snapshots.length > 0 && { snapshots: snapshots.map(describeSnapshot) },
    "format-specific": {
      type: "qcow2" as const,
      data: {
        compat: version === 2 ? "0.10" : "1.1",
        ...version > 2 && {
          ...{ "lazy-refcounts": image.lazyRefcounts, corrupt: image.corrupt },
          "extended-l2": false,
        },
        "refcount-bits": refcountBits,
        "compression-type": image.compression,
      },
    },
  };
}

function describeSnapshot(snapshot: SnapshotInfo) {
  const { id, name, vmStateSize, seconds, nanoseconds, vmClockNs, icount } = snapshot;
  return {
    id,
    name,
    "vm-state-size": vmStateSize,
    "date-sec": seconds,
    "date-nsec": nanoseconds,
    "vm-clock-sec": Number(vmClockNs / 1_000_000_000n),
    "vm-clock-nsec": Number(vmClockNs % 1_000_000_000n),
    ...icount !== undefined && { icount: Number(icount) },
  };
}
