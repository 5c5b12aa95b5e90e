/**
 * Compressed clusters.
 *
 * @module
 */
import process from "node:process";

/** Loaded when there is something compressed: few images have it. */
const zlib = () => process.getBuiltinModule("node:zlib");

/**
 * Decompresses a cluster.
 *
 * @param data the compressed cluster, and whatever follows it
 * @param size bytes that it must become
 * @returns undefined if it does not become so many
 */
export function decompress(
  data: Uint8Array<ArrayBuffer>,
  size: number,
  type: "zlib" | "zstd",
): Uint8Array<ArrayBuffer> | undefined {
  const { constants: { Z_SYNC_FLUSH }, inflateRawSync, zstdDecompressSync } = zlib();
  const options = { maxOutputLength: size };
  try {
    const bytes = type === "zlib"
      ? inflateRawSync(data, { ...options, finishFlush: Z_SYNC_FLUSH })
      : zstdDecompressSync(data.subarray(0, zstdFrameLength(data)), options);
    return bytes.length === size ? new Uint8Array(bytes) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Compresses a cluster. The window is as small as other programs' (4 KiB), and with that lower levels find
 * little of what is there again.
 */
export function compress(
  bytes: Uint8Array<ArrayBuffer>,
  type: "zlib" | "zstd",
): Uint8Array<ArrayBuffer> {
  const { deflateRawSync, zstdCompressSync } = zlib();
  return new Uint8Array(
    type === "zlib"
      ? deflateRawSync(bytes, { windowBits: 12, memLevel: 9, level: 7 })
      : zstdCompressSync(bytes),
  );
}

/** Bytes of the Zstandard frame at the start (RFC 8878, 3.1.1); too many if it is none. */
function zstdFrameLength(data: Uint8Array<ArrayBuffer>): number {
  const descriptor = data[4];
  const singleSegment = (descriptor >> 5) & 1;
  const contentSize = [singleSegment, 2, 4, 8][descriptor >> 6];
  const dictionaryId = [0, 1, 2, 4][descriptor & 3];
  let at = 5 + (1 - singleSegment) + dictionaryId + contentSize;
  while (at + 3 <= data.length) {
    const header = data[at] | data[at + 1] << 8 | data[at + 2] << 16;
    // A run is one byte, repeated.
    at += 3 + ((header >> 1 & 3) === 1 ? 1 : header >> 3);
    if (header & 1) return at + (descriptor & 4);
  }
  return data.length;
}
