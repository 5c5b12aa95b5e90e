/**
 * What a monitor session that lives through a live update hands to its successor.
 *
 * It is text in a state stream, so it may be anything.
 *
 * @module
 */
import { z } from "zod";
import { maxHistory, maxLineBytes } from "../readline.ts";

/** Bytes, one a character. */
const latin1 = z.string().regex(/^[\0-\xff]*$/);
const line = latin1.max(maxLineBytes);

/** A human's session. */
export const hmpState = z.strictObject({
  /** What was typed and not looked at yet. */
  typed: latin1,
  /** Whether a command runs whose prompt is still to come. */
  busy: z.boolean(),
  /** The vCPU that commands look at. */
  cpuIndex: z.int().nonnegative(),
  readline: z.strictObject({
    line,
    cursor: z.int().nonnegative(),
    escape: latin1.max(8),
    history: z.array(line).max(maxHistory),
  }),
});

/** A program's session. */
export const qmpState = z.strictObject({
  negotiated: z.boolean(),
  /** What was sent since the last complete command. */
  received: latin1,
});

/** A session, and what its client has not taken of the output. */
export const sessionState = z.strictObject({
  output: latin1,
  session: z.union([hmpState, qmpState]),
});

/** A human's session. */
export type HmpState = z.infer<typeof hmpState>;
/** A program's session. */
export type QmpState = z.infer<typeof qmpState>;
