/**
 * `info block` and `info blockstats`.
 *
 * @module
 */
import type { DriveThrottle } from "../../../devices/block/config.ts";
import { shortLimits } from "../../options/throttle.ts";
import type { BlockInfo, BlockNodeInfo, BlockStatistics } from "../block_info.ts";
import type { HmpCommand } from "../context.ts";
import { defineHmp } from "../hmp_command.ts";
import { sizeText } from "../../size_text.ts";

/** Limits in the order in which QEMU prints them. */
const printedLimits = [
  ...["bps", "bps_rd", "bps_wr", "bps_max", "bps_rd_max", "bps_wr_max"],
  ...["iops", "iops_rd", "iops_wr", "iops_max", "iops_rd_max", "iops_wr_max", "iops_size"],
];

/** The sub-commands. */
export const infoBlockCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "block",
    parameters: [
      { name: "nodes", type: "flag", letter: "n" },
      { name: "verbose", type: "flag", letter: "v" },
      { name: "device", type: "string", optional: true },
    ],
    usage: "[-n] [-v] [device]",
    help: "show info of one block device or all block devices (-n: show named nodes; " +
      "-v: show details)",
    run: ({ machine }, { nodes, verbose, device }) => {
      const disks = nodes ? [] : machine.blockDevices;
      const text = list(
        disks.map((disk) => [disk.device, diskText(disk, verbose)]),
        device,
      );
      if (text !== "" || (device === undefined && !nodes)) return text;
      return list(
        machine.blockNodes.map((node) => [node.nodeName, nodeText(node, node.nodeName, verbose)]),
        device,
      );
    },
  }),
  defineHmp({
    name: "blockstats",
    help: "show block device statistics",
    run: ({ machine }) => machine.blockDevices.map(statisticsText).join(""),
  }),
];

/** Those of one name, or all; an empty line before each but the very first, as QEMU prints it. */
function list(entries: [name: string, text: string][], wanted: string | undefined): string {
  return entries.map(([name, text], index) =>
    wanted === undefined || wanted === name ? (index > 0 ? `\n${text}` : text) : ""
  ).join("");
}

function diskText(disk: BlockInfo, verbose: boolean): string {
  const { device, node, qdev, ioStatus, writeback, throttle } = disk;
  const name = device === ""
    ? node?.nodeName ?? qdev ?? "<anonymous>"
    : node
    ? `${device} (${node.nodeName})`
    : device;
  const attached = (qdev === undefined ? "" : `    Attached to:      ${qdev}\n`) +
    (ioStatus === undefined || ioStatus === "ok" ? "" : `    I/O status:       ${ioStatus}\n`) +
    (qdev === undefined ? "    Removable device: not locked, tray closed\n" : "");
  if (!node) return `${name}: [not inserted]\n${attached}`;
  return nodeText(node, name, verbose, { writeback, attached, throttle });
}

/** What is said of a node only as a disk. */
interface DiskLines {
  readonly writeback?: boolean;
  readonly attached?: string;
  readonly throttle?: DriveThrottle;
}

function nodeText(
  node: BlockNodeInfo,
  name: string,
  verbose: boolean,
  { writeback = true, attached = "", throttle }: DiskLines = {},
): string {
  const { filename, driver, readOnly, direct, noFlush, detectZeroes } = node;
  const cache = writeback ? "writeback" : "writethrough";
  return `${name}: ${filename} (${driver}${readOnly ? ", read-only" : ""})\n${attached}` +
    `    Cache mode:       ${cache}${direct ? ", direct" : ""}` +
    `${noFlush ? ", ignore flushes" : ""}\n` +
    (detectZeroes === "off" ? "" : `    Detect zeroes:    ${detectZeroes}\n`) +
    (throttle ? throttleText(throttle) : "") +
    (verbose ? imageText(node) : "");
}

function throttleText(throttle: DriveThrottle): string {
  const values = shortLimits(throttle.limits);
  const text = printedLimits.map((name) => `${name}=${values[name] ?? 0}`).join(" ");
  return `    I/O throttling:   ${text} group=${throttle.group}\n`;
}

function imageText({ filename, driver, size, allocated }: BlockNodeInfo): string {
  return `\nImages:\nimage: ${filename}\nfile format: ${driver}\n` +
    `virtual size: ${sizeText(size)} (${size} bytes)\n` +
    `disk size: ${allocated === undefined ? "unavailable" : sizeText(allocated)}\n`;
}

function statisticsText({ device, statistics }: BlockInfo): string {
  const { counts: { rd, wr, flush }, idleNs = 0 }: BlockStatistics = statistics;
  return `${device}: rd_bytes=${rd.bytes} wr_bytes=${wr.bytes} rd_operations=${rd.operations}` +
    ` wr_operations=${wr.operations} flush_operations=${flush.operations}` +
    ` wr_total_time_ns=${wr.totalTimeNs} rd_total_time_ns=${rd.totalTimeNs}` +
    ` flush_total_time_ns=${flush.totalTimeNs} rd_merged=0 wr_merged=0 idle_time_ns=${idleNs}\n`;
}
