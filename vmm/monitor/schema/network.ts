/**
 * Schema of the command about the network (QAPI net.json).
 *
 * @module
 */
import { z } from "zod";

/** `set_link` */
export const setLink = { args: z.strictObject({ name: z.string(), up: z.boolean() }) };
