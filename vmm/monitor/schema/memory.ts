/**
 * Schemas of commands about guest memory (QAPI machine.json).
 *
 * @module
 */
import { z } from "zod";
import { int64 } from "./types.ts";

/** QAPI HostMemPolicy. */
const hostMemPolicy = z.enum(["default", "preferred", "bind", "interleave"]);

const memdev = z.strictObject({
  share: z.boolean(),
  reserve: z.boolean().optional(),
  prealloc: z.boolean(),
  "host-nodes": z.array(z.int()),
  size: z.int(),
  merge: z.boolean(),
  dump: z.boolean(),
  policy: hostMemPolicy,
  id: z.string().optional(),
});

/** `query-memdev` */
export const queryMemdev = { returns: z.array(memdev) };

/** `query-memory-size-summary` */
export const queryMemorySizeSummary = {
  returns: z.strictObject({
    "base-memory": z.int(),
    "plugged-memory": z.int().optional(),
  }),
};

/** `memsave` */
export const memsave = {
  args: z.strictObject({
    val: int64,
    size: int64,
    filename: z.string(),
    "cpu-index": z.int().optional(),
  }),
};

/** `pmemsave` */
export const pmemsave = {
  args: z.strictObject({ val: int64, size: int64, filename: z.string() }),
};
