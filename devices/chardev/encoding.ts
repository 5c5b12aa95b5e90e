/**
 * How a connection's peer wants bytes to be written, on any thread.
 *
 * @module
 */
import { escapeTelnet } from "./telnet.ts";
import { SHORT_PAYLOAD, websocketFrame } from "./websocket.ts";

/** The ways, as numbers for shared memory. */
export const Encoding = { PLAIN: 0, TELNET: 1, WEBSOCKET: 2 } as const;

/** The most that {@linkcode encode} makes of what it takes, and room for an answer besides. */
export const MAX_ENCODED = 256;

/** Takes the beginning of some data, and gives the bytes that say it to the peer. */
export function encode(
  encoding: number,
  data: Uint8Array,
): { readonly taken: number; readonly bytes: Uint8Array<ArrayBuffer> } {
  const part = data.subarray(0, encoding === Encoding.TELNET ? 64 : SHORT_PAYLOAD);
  const bytes = encoding === Encoding.TELNET ? escapeTelnet(part) : websocketFrame(part);
  return { taken: part.length, bytes };
}
