/**
 * QAPI types that zod does not have by itself.
 *
 * A message with `%` for the parameter's name replaces the standard one.
 *
 * @module
 */
import { z } from "zod";

const notInteger = { error: "Invalid parameter type for '%', expected: integer" };

/** QAPI's `int` over its whole range, as bigint: addresses and sizes of guest memory. */
export const int64 = z.union([
  z.int(),
  z.bigint().min(-(1n << 63n), notInteger).max((1n << 63n) - 1n, notInteger),
], notInteger).transform(BigInt);

const notSize = { error: "Parameter '%' expects uint64" };

/** QAPI's `size`: a number of bytes. */
export const size = () => z.int(notSize).min(0, notSize);
