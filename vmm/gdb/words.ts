/**
 * Numbers as gdb writes them: in hexadecimal, registers with their lowest byte first.
 *
 * @module
 */

/** `ADDRESS,LENGTH` in hexadecimal. @throws {Error} if it is not that */
export function parseRange(text: string): [bigint, number] {
  const [address, length] = text.split(",");
  const bytes = parseInt(length, 16);
  if (!Number.isInteger(bytes)) throw new Error(`'${text}' is no range of memory`);
  return [parseAddress(address), bytes];
}

/** @throws {SyntaxError} if it is no number */
export function parseAddress(text: string): bigint {
  return BigInt.asUintN(64, BigInt(`0x${text}`));
}

/** A 64-bit register's bytes. */
export function littleEndian(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}
