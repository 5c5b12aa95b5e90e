/**
 * Numbers of several bytes, the lowest one first, as devices' registers have them.
 *
 * @module
 */

/** Reads a number of `size` bytes; what is behind the end of them is 0. */
export function readLittleEndian(bytes: Uint8Array, offset: number, size: number): number {
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + (bytes[offset + i] ?? 0);
  return value;
}
