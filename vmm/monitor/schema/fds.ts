/**
 * Schemas of commands that pass file descriptors (QAPI misc.json).
 *
 * @module
 */
import { z } from "zod";

/** `getfd` */
export const getfd = { args: z.strictObject({ fdname: z.string() }) };

/** `closefd` */
export const closefd = { args: z.strictObject({ fdname: z.string() }) };

/** `add-fd` */
export const addFd = {
  args: z.strictObject({ "fdset-id": z.int().optional(), opaque: z.string().optional() }),
  returns: z.strictObject({ "fdset-id": z.int(), fd: z.int() }),
};

/** `remove-fd` */
export const removeFd = {
  args: z.strictObject({ "fdset-id": z.int(), fd: z.int().optional() }),
};

const member = z.strictObject({ fd: z.int(), opaque: z.string().optional() });

/** `query-fdsets` */
export const queryFdsets = {
  returns: z.array(z.strictObject({ "fdset-id": z.int(), fds: z.array(member) })),
};
