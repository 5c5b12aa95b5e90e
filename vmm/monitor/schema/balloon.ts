/**
 * Schemas of the commands about the memory balloon (QAPI machine.json).
 *
 * @module
 */
import { z } from "zod";
import { int64 } from "./types.ts";

/** `balloon` */
export const balloon = { args: z.strictObject({ value: int64 }) };

/** `query-balloon` */
export const queryBalloon = { returns: z.strictObject({ actual: z.int() }) };
