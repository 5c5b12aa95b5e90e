/**
 * The other end of the guest's connection, in a network namespace of its own: says `listening`, then how
 * many blocks there were, now and then, and `end N` when the guest has closed the connection. Whatever
 * is wrong is an error, and a second connection is.
 *
 * @module
 */
import { addresses, block, BLOCK_SIZE, TOLD_EVERY } from "./stream.ts";

/** Fills a buffer. @returns how much of it, if the connection ended before */
async function readFully(connection: Deno.Conn, buffer: Uint8Array): Promise<number> {
  let length = 0;
  while (length < buffer.length) {
    const n = await connection.read(buffer.subarray(length));
    if (n === null) break;
    length += n;
  }
  return length;
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  while (bytes.length > 0) bytes = bytes.subarray(await connection.write(bytes));
}

/** Gives back what comes. @returns how many blocks */
async function serve(connection: Deno.Conn): Promise<number> {
  const buffer = new Uint8Array(BLOCK_SIZE);
  const decoder = new TextDecoder();
  for (let count = 0;; count++) {
    const length = await readFully(connection, buffer);
    if (length === 0) return count;
    const text = decoder.decode(buffer.subarray(0, length));
    if (text !== block(count + 1)) {
      throw new Error(
        `Block ${count + 1} is ${length} bytes that begin with '${text.slice(0, 16)}'`,
      );
    }
    await writeAll(connection, buffer);
    if ((count + 1) % TOLD_EVERY === 0) console.log(count + 1);
  }
}

using listener = Deno.listen({ hostname: "0.0.0.0", port: addresses.port });
console.log("listening");
using connection = await listener.accept();
listener.accept().then(
  () => {
    console.error("The guest has connected a second time");
    Deno.exit(1);
  },
  () => {}, // The end.
);
console.log(`end ${await serve(connection)}`);
