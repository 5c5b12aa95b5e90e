/**
 * What all threads know of an image, in shared memory.
 *
 * @module
 */
import type { PartDescription } from "./image.ts";

/** Sizes are multiples of this; a file's last bytes are followed by zeros. */
export const SECTOR = 512;

/** Words of 64 bits, by their index. */
export const SharedWord = {
  /** Bytes of the image. */
  SIZE: 0,
  /** The end of the write that came furthest, in bytes. */
  HIGHEST_WRITE: 1,
  DISCARDS: 2,
  DISCARDED_BYTES: 3,
  FAILED_DISCARDS: 4,
} as const;
/** Bytes of those words. */
export const SHARED_SIZE = 5 * 8;

/** Bytes of a part of an image now: an image can be resized. */
export function partSize(
  { offset, size, shared }: Pick<PartDescription, "offset" | "size" | "shared">,
): number {
  if (size !== undefined) return size;
  const image = Number(Atomics.load(new BigInt64Array(shared), SharedWord.SIZE));
  return Math.max(0, Math.ceil(image / SECTOR) * SECTOR - offset);
}
