/**
 * Bytes as text, one character a byte, and back: what a terminal or a program sends may be cut
 * anywhere, so it is no UTF-8.
 *
 * @module
 */

/** The bytes of a text. */
export function toBytes(latin1: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(latin1, (char) => char.charCodeAt(0));
}

/** The text of some bytes. */
export function toLatin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
