/**
 * Why a channel does not go on, in words.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";

/** Nobody reads the channel any more. */
export class ChannelClosed extends Error {}

/** An OsError as a sentence that begins like QEMU's; other errors as they are. */
export function inWords(error: unknown, beginning: string): unknown {
  return error instanceof OsError
    ? new Error(`${beginning}: ${error.reason}`, { cause: error })
    : error;
}
