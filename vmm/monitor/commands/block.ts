/**
 * Query about disks.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import type { BlockInfo } from "../control.ts";

/** No limit on bandwidth or operations is set, since there is no throttling. */
const noLimits = { bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 } as const;

/** `query-block` */
export const blockCommands: readonly Command[] = [
  defineCommand({
    name: "query-block",
    help: "show the disks",
    schema: async () => (await import("../schema/block.ts")).queryBlock,
    handler: ({ machine }) =>
      machine.blockDevices.map((disk) => ({
        device: disk.device,
        locked: false,
        removable: false,
        inserted: inserted(disk),
        ...disk.qdev !== undefined && { qdev: disk.qdev },
        type: "unknown",
      })),
  }),
];

function inserted({ file, nodeName, driver, readOnly, size, direct }: BlockInfo) {
  return {
    ...noLimits,
    detect_zeroes: "off" as const,
    image: { "virtual-size": size, filename: file, format: driver },
    ro: readOnly,
    "node-name": nodeName,
    backing_file_depth: 0,
    children: [],
    active: true,
    drv: driver,
    write_threshold: 0,
    encrypted: false,
    cache: { "no-flush": false, direct, writeback: true },
    file,
  };
}
