/**
 * Schema of the command that types (QAPI ui.json).
 *
 * @module
 */
import { z } from "zod";
import { keyNames } from "../../../devices/isa/ps2_keys.ts";

/** QAPI QKeyCode. */
const keyCode = z.enum(keyNames as [string, ...string[]]);

/** QAPI KeyValue: a key by its name, or by its code in scancode set 1 with the high bit for extended. */
const keyValue = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("number"), data: z.int() }),
  z.strictObject({ type: z.literal("qcode"), data: keyCode }),
]);

/** `send-key` */
export const sendKey = {
  args: z.strictObject({ keys: z.array(keyValue), "hold-time": z.int().optional() }),
};
