/**
 * Schemas of commands about disks (QAPI block-core.json): of results the members that are there.
 *
 * @module
 */
import { z } from "zod";

/** QAPI SnapshotInfo. */
const snapshot = z.strictObject({
  id: z.string(),
  name: z.string(),
  "vm-state-size": z.int(),
  "date-sec": z.int(),
  "date-nsec": z.int(),
  "vm-clock-sec": z.int(),
  "vm-clock-nsec": z.int(),
  icount: z.int().optional(),
});

/** QAPI ImageInfo. */
const layer = z.strictObject({
  filename: z.string(),
  format: z.string(),
  "dirty-flag": z.boolean().optional(),
  "actual-size": z.int().optional(),
  "virtual-size": z.int(),
  "cluster-size": z.int().optional(),
  "backing-filename": z.string().optional(),
  "full-backing-filename": z.string().optional(),
  "backing-filename-format": z.string().optional(),
  snapshots: z.array(snapshot).optional(),
  "format-specific": z.discriminatedUnion("type", [
    z.strictObject({
      type: z.literal("qcow2"),
      data: z.strictObject({
        compat: z.string(),
        "lazy-refcounts": z.boolean().optional(),
        corrupt: z.boolean().optional(),
        "extended-l2": z.boolean().optional(),
        "refcount-bits": z.int(),
        "compression-type": z.enum(["zlib", "zstd"]),
      }),
    }),
  ]).optional(),
});

/** The image behind an image comes with it; those behind that one have nodes of their own. */
const image = layer.extend({ "backing-image": layer.optional() });

/** What limits have of bursts, and the size of a request. */
const bursts = {
  bps_max: z.int().optional(),
  bps_rd_max: z.int().optional(),
  bps_wr_max: z.int().optional(),
  iops_max: z.int().optional(),
  iops_rd_max: z.int().optional(),
  iops_wr_max: z.int().optional(),
  bps_max_length: z.int().optional(),
  bps_rd_max_length: z.int().optional(),
  bps_wr_max_length: z.int().optional(),
  iops_max_length: z.int().optional(),
  iops_rd_max_length: z.int().optional(),
  iops_wr_max_length: z.int().optional(),
  iops_size: z.int().optional(),
};

/** QAPI BlockDeviceInfo. */
const node = z.strictObject({
  file: z.string(),
  "node-name": z.string(),
  ro: z.boolean(),
  drv: z.string(),
  backing_file: z.string().optional(),
  backing_file_depth: z.int(),
  children: z.array(z.strictObject({ child: z.string(), "node-name": z.string() })),
  active: z.boolean(),
  encrypted: z.boolean(),
  detect_zeroes: z.enum(["off", "on", "unmap"]),
  bps: z.int(),
  bps_rd: z.int(),
  bps_wr: z.int(),
  iops: z.int(),
  iops_rd: z.int(),
  iops_wr: z.int(),
  ...bursts,
  group: z.string().optional(),
  image,
  cache: z.strictObject({
    writeback: z.boolean(),
    direct: z.boolean(),
    "no-flush": z.boolean(),
  }),
  write_threshold: z.int(),
});

const flat = z.strictObject({ flat: z.boolean().optional() });

/** `query-block` */
export const queryBlock = {
  args: flat,
  returns: z.array(z.strictObject({
    device: z.string(),
    qdev: z.string().optional(),
    type: z.string(),
    removable: z.boolean(),
    locked: z.boolean(),
    inserted: node.optional(),
    "io-status": z.enum(["ok", "failed", "nospace"]).optional(),
  })),
};

/** `query-named-block-nodes` */
export const queryNamedBlockNodes = { args: flat, returns: z.array(node) };

/** QAPI BlockDeviceTimedStats: none is kept. */
const timed = z.strictObject({
  interval_length: z.int(),
  min_rd_latency_ns: z.int(),
  max_rd_latency_ns: z.int(),
  avg_rd_latency_ns: z.int(),
  min_wr_latency_ns: z.int(),
  max_wr_latency_ns: z.int(),
  avg_wr_latency_ns: z.int(),
  min_zone_append_latency_ns: z.int(),
  max_zone_append_latency_ns: z.int(),
  avg_zone_append_latency_ns: z.int(),
  min_flush_latency_ns: z.int(),
  max_flush_latency_ns: z.int(),
  avg_flush_latency_ns: z.int(),
  avg_rd_queue_depth: z.number(),
  avg_wr_queue_depth: z.number(),
  avg_zone_append_queue_depth: z.number(),
});

/** QAPI BlockDeviceStats. */
const counts = z.strictObject({
  rd_bytes: z.int(),
  wr_bytes: z.int(),
  zone_append_bytes: z.int(),
  unmap_bytes: z.int(),
  rd_operations: z.int(),
  wr_operations: z.int(),
  zone_append_operations: z.int(),
  flush_operations: z.int(),
  unmap_operations: z.int(),
  rd_total_time_ns: z.int(),
  wr_total_time_ns: z.int(),
  zone_append_total_time_ns: z.int(),
  flush_total_time_ns: z.int(),
  unmap_total_time_ns: z.int(),
  wr_highest_offset: z.int(),
  rd_merged: z.int(),
  wr_merged: z.int(),
  zone_append_merged: z.int(),
  unmap_merged: z.int(),
  idle_time_ns: z.int().optional(),
  failed_rd_operations: z.int(),
  failed_wr_operations: z.int(),
  failed_zone_append_operations: z.int(),
  failed_flush_operations: z.int(),
  failed_unmap_operations: z.int(),
  invalid_rd_operations: z.int(),
  invalid_wr_operations: z.int(),
  invalid_zone_append_operations: z.int(),
  invalid_flush_operations: z.int(),
  invalid_unmap_operations: z.int(),
  account_invalid: z.boolean(),
  account_failed: z.boolean(),
  timed_stats: z.array(timed),
});

/** QAPI BlockStatsSpecificFile: members of each driver's own. */
const discards = () => ({
  "discard-nb-ok": z.int(),
  "discard-nb-failed": z.int(),
  "discard-bytes-ok": z.int(),
});

/** QAPI BlockStats; what a node is made of comes in `parent`. */
const nodeStatistics = z.strictObject({
  "node-name": z.string().optional(),
  stats: counts,
  "driver-specific": z.discriminatedUnion("driver", [
    z.strictObject({ driver: z.literal("file"), ...discards() }),
    z.strictObject({ driver: z.literal("host_device"), ...discards() }),
  ]).optional(),
});

const statistics = nodeStatistics.extend({
  device: z.string().optional(),
  qdev: z.string().optional(),
  parent: nodeStatistics.extend({ parent: nodeStatistics.optional() }).optional(),
});

/** `query-blockstats` */
export const queryBlockstats = {
  args: z.strictObject({ "query-nodes": z.boolean().optional() }),
  returns: z.array(statistics),
};

/** QAPI BlockdevOptions: what all drivers have. */
const common = {
  "node-name": z.string().optional(),
  discard: z.enum(["ignore", "unmap"]).optional(),
  cache: z.strictObject({ direct: z.boolean().optional(), "no-flush": z.boolean().optional() })
    .optional(),
  "read-only": z.boolean().optional(),
  "auto-read-only": z.boolean().optional(),
  "detect-zeroes": z.enum(["off", "on", "unmap"]).optional(),
};

const file = {
  filename: z.string(),
  locking: z.enum(["auto", "on", "off"]).optional(),
  aio: z.enum(["threads", "native", "io_uring"]).optional(),
};

const bases = [
  z.strictObject({ driver: z.literal("file"), ...common, ...file }),
  z.strictObject({ driver: z.literal("host_device"), ...common, ...file }),
  z.strictObject({
    driver: z.literal("null-co"),
    ...common,
    size: z.int().min(0).optional(),
    "read-zeroes": z.boolean().optional(),
  }),
] as const;

const raw = z.strictObject({
  driver: z.literal("raw"),
  ...common,
  file: z.union([z.string(), z.discriminatedUnion("driver", bases)]),
  offset: z.int().min(0).optional(),
  size: z.int().min(0).optional(),
});

/** A node that another is made of: its name, or what it is. */
const parts = [z.string(), z.discriminatedUnion("driver", [...bases, raw])] as const;

/** `blockdev-add` */
export const blockdevAdd = {
  args: z.discriminatedUnion("driver", [
    ...bases,
    raw,
    z.strictObject({
      driver: z.literal("qcow2"),
      ...common,
      file: z.union(parts),
      backing: z.union([...parts, z.null()]).optional(),
    }),
    z.strictObject({
      driver: z.literal("throttle"),
      ...common,
      "throttle-group": z.string(),
      file: z.union(parts),
    }),
  ]),
};

/** `blockdev-del` */
export const blockdevDel = { args: z.strictObject({ "node-name": z.string() }) };

/** `block_resize` */
export const blockResize = {
  args: z.strictObject({
    device: z.string().optional(),
    "node-name": z.string().optional(),
    size: z.int(),
  }),
};

/** `block_set_io_throttle` */
export const blockSetIoThrottle = {
  args: z.strictObject({
    device: z.string().optional(),
    id: z.string().optional(),
    bps: z.int(),
    bps_rd: z.int(),
    bps_wr: z.int(),
    iops: z.int(),
    iops_rd: z.int(),
    iops_wr: z.int(),
    ...bursts,
    group: z.string().optional(),
  }),
};
