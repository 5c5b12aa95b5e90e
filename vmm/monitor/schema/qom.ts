/**
 * Schemas of the commands about objects' properties (QAPI qom.json).
 *
 * @module
 */
import { z } from "zod";
import type { JsonValue } from "../json_value.ts";

const place = { path: z.string(), property: z.string() };
/** QAPI's `any`. */
const any = () => z.any() as z.ZodType<JsonValue>;

/** `qom-get` */
export const qomGet = { args: z.strictObject(place), returns: any() };

/** `qom-set` */
export const qomSet = { args: z.strictObject({ ...place, value: any() }) };
