/**
 * Schema of `query-block` (QAPI block-core.json): the members of BlockInfo that are not optional.
 *
 * @module
 */
import { z } from "zod";

const image = z.strictObject({
  filename: z.string(),
  format: z.string(),
  "virtual-size": z.int(),
});

const inserted = z.strictObject({
  file: z.string(),
  "node-name": z.string(),
  ro: z.boolean(),
  drv: z.string(),
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
  image,
  cache: z.strictObject({
    writeback: z.boolean(),
    direct: z.boolean(),
    "no-flush": z.boolean(),
  }),
  write_threshold: z.int(),
});

/** `query-block` */
export const queryBlock = {
  // Images here have no backing chain to leave out, so both values of `flat` give the same.
  args: z.strictObject({ flat: z.boolean().optional() }),
  returns: z.array(z.strictObject({
    device: z.string(),
    qdev: z.string().optional(),
    type: z.string(),
    removable: z.boolean(),
    locked: z.boolean(),
    inserted: inserted.optional(),
  })),
};
