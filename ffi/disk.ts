/**
 * What disks need beyond reading and writing: flushing, holes, zeros, and a block device's geometry.
 *
 * Calls on the way of a guest's request report as the kernel does: 0, or a negative errno.
 *
 * @module
 */
import { check, Errno, errno } from "./errno.ts";
import { libc } from "./libc.ts";

/** ioctls of block devices (linux/fs.h). */
const BLKSSZGET = 0x1268;
const BLKGETSIZE64 = 0x80081272;
const BLKDISCARD = 0x1277;
const BLKZEROOUT = 0x127f;

/** fallocate(2) modes (linux/falloc.h). */
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 0x10;

function result(call: () => number): number {
  for (;;) {
    if (call() !== -1) return 0;
    const error = errno();
    if (error !== Errno.EINTR) return -error;
  }
}

/** Writes what is in the page cache to the disk (fdatasync). */
export function flushData(fd: number): number {
  return result(() => libc.fdatasync(fd));
}

/** Gives a range of a file back to its file system; it reads as zeros. */
export function punchHole(fd: number, offset: number, length: number): number {
  const mode = PUNCH_HOLE | KEEP_SIZE;
  return result(() => libc.fallocate(fd, mode, BigInt(offset), BigInt(length)));
}

/** Has a file system keep room for a range of a file, which grows to it. */
export function allocateRange(fd: number, offset: number, length: number): number {
  return length === 0 ? 0 : result(() => libc.fallocate(fd, 0, BigInt(offset), BigInt(length)));
}

/** Makes a range of a file zeros, without writing them; its size stays. */
export function zeroRange(fd: number, offset: number, length: number): number {
  const mode = ZERO_RANGE | KEEP_SIZE;
  return result(() => libc.fallocate(fd, mode, BigInt(offset), BigInt(length)));
}

function rangeIoctl(fd: number, request: number, offset: number, length: number): number {
  const range = new Uint8Array(new BigUint64Array([BigInt(offset), BigInt(length)]).buffer);
  return result(() => libc.ioctl_buffer(fd, request, range));
}

/** Tells a block device that a range is not in use. */
export function discardBlocks(fd: number, offset: number, length: number): number {
  return rangeIoctl(fd, BLKDISCARD, offset, length);
}

/** Makes a range of a block device zeros. */
export function zeroBlocks(fd: number, offset: number, length: number): number {
  return rangeIoctl(fd, BLKZEROOUT, offset, length);
}

/** Bytes of a block device. @throws {OsError} */
export function blockDeviceSize(fd: number): number {
  const size = new BigUint64Array(1);
  check(libc.ioctl_buffer(fd, BLKGETSIZE64, new Uint8Array(size.buffer)), "ioctl(BLKGETSIZE64)");
  return Number(size[0]);
}

/** Bytes of a block device's logical sector. @throws {OsError} */
export function sectorSize(fd: number): number {
  const size = new Int32Array(1);
  check(libc.ioctl_buffer(fd, BLKSSZGET, new Uint8Array(size.buffer)), "ioctl(BLKSSZGET)");
  return size[0];
}
