/**
 * CRC-32 (ISO-HDLC, the one of zlib and PNG). Our own, because loading `node:zlib` for it costs 19 ms
 * at every start, which is in the pause of a cpr-exec.
 *
 * @module
 */

const POLYNOMIAL = 0xedb8_8320;

/** The CRC of each byte, and of each byte followed by one to seven zeros, to take eight at a time. */
const tables: readonly Uint32Array[] = (() => {
  const all = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
    all[0][byte] = crc;
  }
  for (let zeros = 1; zeros < 8; zeros++) {
    for (let byte = 0; byte < 256; byte++) {
      const before = all[zeros - 1][byte];
      all[zeros][byte] = (before >>> 8) ^ all[0][before & 0xff];
    }
  }
  return all;
})();

const [t0, t1, t2, t3, t4, t5, t6, t7] = tables;

/**
 * The checksum of `bytes`, or of what `previous` is the checksum of followed by `bytes`.
 *
 * @param bytes the data
 * @param previous a checksum to go on from
 */
export function crc32(bytes: Uint8Array, previous = 0): number {
  let crc = ~previous;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    crc = t7[(crc ^ bytes[i]) & 0xff] ^ t6[((crc >>> 8) ^ bytes[i + 1]) & 0xff] ^
      t5[((crc >>> 16) ^ bytes[i + 2]) & 0xff] ^ t4[(crc >>> 24) ^ bytes[i + 3]] ^
      t3[bytes[i + 4]] ^ t2[bytes[i + 5]] ^ t1[bytes[i + 6]] ^ t0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ t0[(crc ^ bytes[i]) & 0xff];
  return ~crc >>> 0;
}
