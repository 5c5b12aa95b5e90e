/**
 * Commands about disks.
 *
 * @module
 */
import type { BlockInfo, BlockNodeInfo, BlockStatistics } from "../block_info.ts";
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import { QmpError } from "../errors.ts";
import { limitsOf, shortLimits } from "../../options/throttle.ts";
import { describeImage } from "./block_image.ts";

const schemas = () => import("../schema/block.ts");

/** No limit on bandwidth or operations. */
const noLimits = { bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 } as const;
const rates = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"] as const;
const UNITS = "BKMGTPE";

/** Commands that look at disks, and that make, change and remove what is behind them. */
export const blockCommands: readonly Command[] = [
  defineCommand({
    name: "query-block",
    help: "show the disks",
    schema: async () => (await schemas()).queryBlock,
    handler: ({ machine }, { flat = false }) =>
      machine.blockDevices.map((disk) => describeDisk(disk, flat)),
  }),
  defineCommand({
    name: "query-named-block-nodes",
    help: "show the block nodes",
    schema: async () => (await schemas()).queryNamedBlockNodes,
    handler: ({ machine }, { flat = false }) =>
      machine.blockNodes.map((node) => describeNode(node, true, flat)),
  }),
  defineCommand({
    name: "query-blockstats",
    help: "show what the disks have counted",
    schema: async () => (await schemas()).queryBlockstats,
    handler: ({ machine }, { "query-nodes": ofNodes = false }) => {
      const nodes = new Map(machine.blockNodes.map((node) => [node.nodeName, node]));
      return ofNodes
        ? [...nodes.values()].map((node) => nodeStatistics(node, nodes))
        : machine.blockDevices.map((disk) => diskStatistics(disk, nodes));
    },
  }),
  defineCommand({
    name: "blockdev-add",
    help: "open a block node, like -blockdev on the command line",
    schema: async () => (await schemas()).blockdevAdd,
    handler: ({ machine }, options) => machine.blockdevAdd(options),
  }),
  defineCommand({
    name: "blockdev-del",
    help: "close a block node",
    schema: async () => (await schemas()).blockdevDel,
    handler: ({ machine }, { "node-name": name }) => machine.blockdevDel(name),
  }),
  defineCommand({
    name: "block_resize",
    help: "resize a block image",
    schema: async () => (await schemas()).blockResize,
    handler: ({ machine }, { device, "node-name": nodeName, size }) => {
      if (size < 0) throw new QmpError("Parameter 'size' expects a >0 size");
      return machine.blockResize({ device, nodeName }, size);
    },
    hmp: {
      parameters: [{ name: "device", type: "string" }, { name: "size", type: "string" }],
      usage: "device size",
      run: ({ machine }, { device, size }) => machine.blockResize({ device }, readSize(size)),
    },
  }),
  defineCommand({
    name: "block_set_io_throttle",
    help: "change I/O throttle limits for a block drive",
    schema: async () => (await schemas()).blockSetIoThrottle,
    handler: ({ machine }, args) =>
      machine.blockSetIoThrottle({ device: args.device, id: args.id }, limitsOf(args), args.group),
    hmp: {
      parameters: [
        { name: "device", type: "string" },
        ...rates.map((name) => ({ name, type: "long" }) as const),
      ],
      usage: "device bps bps_rd bps_wr iops iops_rd iops_wr",
      run: ({ machine }, { device, ...limits }) =>
        machine.blockSetIoThrottle({ device: String(device) }, limitsOf(limits)),
    },
  }),
];

/** A size as HMP takes it: mebibytes unless it has a suffix. */
function readSize(text: string): number {
  const [, digits, fraction = "", unit = "M"] = /^(\d+)(\.\d+)?([BKMGTPE]?)$/i.exec(text) ?? [];
  const bytes = Number(digits + fraction) * 1024 ** UNITS.indexOf((unit || "M").toUpperCase());
  if (digits === undefined || !Number.isSafeInteger(bytes)) throw new QmpError("invalid size");
  return bytes;
}

function describeDisk(disk: BlockInfo, flat: boolean) {
  const { device, qdev, ioStatus, node, writeback, throttle } = disk;
  return {
    ...ioStatus !== undefined && { "io-status": ioStatus },
    device,
    locked: false,
    // A drive that no device uses, as QEMU has it.
    removable: qdev === undefined,
    ...node && {
      inserted: {
        ...describeNode(node, writeback, flat),
        ...throttle && { ...shortLimits(throttle.limits), group: throttle.group },
      },
    },
    ...qdev !== undefined && { qdev },
    type: "unknown",
  };
}

function describeNode(node: BlockNodeInfo, writeback: boolean, flat: boolean) {
  const { filename, nodeName, driver, readOnly, child, backing, direct, noFlush } = node;
  return {
    ...noLimits,
    detect_zeroes: node.detectZeroes,
    image: describeImage(node, flat),
    ro: readOnly,
    "node-name": nodeName,
    ...backing && { backing_file: backing.filename },
    backing_file_depth: depthOf(node),
    children: [
      ...child === undefined ? [] : [{ child: "file", "node-name": child }],
      ...backing ? [{ child: "backing", "node-name": backing.nodeName }] : [],
    ],
    active: true,
    drv: driver,
    write_threshold: 0,
    encrypted: false,
    cache: { "no-flush": noFlush, direct, writeback },
    file: filename,
  };
}

/** How many images are behind one. */
function depthOf({ backing }: BlockNodeInfo): number {
  return backing ? depthOf(backing) + 1 : 0;
}

type Nodes = ReadonlyMap<string, BlockNodeInfo>;

function diskStatistics({ device, qdev, node, statistics }: BlockInfo, nodes: Nodes) {
  return {
    device,
    ...qdev !== undefined && { qdev },
    ...node && { "node-name": node.nodeName, ...ofDriver(node) },
    stats: describeStatistics(statistics, node, true),
    ...parentOf(node, nodes),
  };
}

type NodeStatistics = {
  readonly "node-name": string;
  readonly stats: ReturnType<typeof describeStatistics>;
  readonly parent?: NodeStatistics;
};

function nodeStatistics(node: BlockNodeInfo, nodes: Nodes): NodeStatistics {
  return {
    "node-name": node.nodeName,
    ...ofDriver(node),
    stats: describeStatistics(undefined, node, false),
    ...parentOf(node, nodes),
  };
}

/** QEMU calls what a node is made of its parent here. */
function parentOf(node: BlockNodeInfo | undefined, nodes: Nodes) {
  const child = node?.child === undefined ? undefined : nodes.get(node.child);
  return child && { parent: nodeStatistics(child, nodes) };
}

function ofDriver({ driver, discards }: BlockNodeInfo) {
  if (!discards || (driver !== "file" && driver !== "host_device")) return {};
  return {
    "driver-specific": {
      driver,
      "discard-nb-ok": discards.done,
      "discard-nb-failed": discards.failed,
      "discard-bytes-ok": discards.bytes,
    } as const,
  };
}

const noCounts = { bytes: 0, operations: 0, totalTimeNs: 0, failed: 0, invalid: 0 };
const nothing = { rd: noCounts, wr: noCounts, flush: noCounts, unmap: noCounts };

/** Zones are counted as well, of which there are none; requests are not merged. */
function describeStatistics(
  statistics: BlockStatistics | undefined,
  node: BlockNodeInfo | undefined,
  accounts: boolean,
) {
  const { rd, wr, flush, unmap } = statistics?.counts ?? nothing;
  return {
    rd_bytes: rd.bytes,
    wr_bytes: wr.bytes,
    zone_append_bytes: 0,
    unmap_bytes: unmap.bytes,
    rd_operations: rd.operations,
    wr_operations: wr.operations,
    zone_append_operations: 0,
    flush_operations: flush.operations,
    unmap_operations: unmap.operations,
    rd_total_time_ns: rd.totalTimeNs,
    wr_total_time_ns: wr.totalTimeNs,
    zone_append_total_time_ns: 0,
    flush_total_time_ns: flush.totalTimeNs,
    unmap_total_time_ns: unmap.totalTimeNs,
    wr_highest_offset: node?.highestWrite ?? 0,
    rd_merged: 0,
    wr_merged: 0,
    zone_append_merged: 0,
    unmap_merged: 0,
    ...statistics?.idleNs !== undefined && { idle_time_ns: statistics.idleNs },
    failed_rd_operations: rd.failed,
    failed_wr_operations: wr.failed,
    failed_zone_append_operations: 0,
    failed_flush_operations: flush.failed,
    failed_unmap_operations: unmap.failed,
    invalid_rd_operations: rd.invalid,
    invalid_wr_operations: wr.invalid,
    invalid_zone_append_operations: 0,
    invalid_flush_operations: flush.invalid,
    invalid_unmap_operations: unmap.invalid,
    account_invalid: accounts,
    account_failed: accounts,
    timed_stats: [],
  };
}
