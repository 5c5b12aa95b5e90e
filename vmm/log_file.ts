/**
 * `-D FILE`: where messages go instead of stderr.
 *
 * @module
 */
import { awaitReader, O, openFile, writeAll } from "../ffi/fd.ts";
import { encodeText } from "../ffi/text.ts";

/**
 * Makes the log file, or goes on with the one that is there.
 *
 * @param append whether to keep what is in it: a successor goes on with its predecessor's file
 * @param abort ends the wait for a FIFO's reader
 * @returns writes one line
 * @throws {OsError} if the file cannot be written
 */
export async function openLog(
  path: string,
  append: boolean,
  abort: AbortSignal,
): Promise<(text: string) => void> {
  await awaitReader(path, abort);
  const write = (text: string, flags: number) => {
    using file = openFile(path, O.WRONLY | O.CREAT | flags);
    writeAll(file.fd, encodeText(text));
  };
  write("", append ? O.APPEND : O.TRUNC);
  return (text) => write(`${text}\n`, O.APPEND);
}
