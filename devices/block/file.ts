/**
 * Files and block devices of the host's that are disks: opening them, their size and alignment.
 *
 * @module
 */
import { resolve } from "node:path";
import { blockDeviceSize, sectorSize } from "../../ffi/disk.ts";
import { Errno, OsError } from "../../ffi/errno.ts";
import {
  accessMode,
  type FileStatus,
  fileStatus,
  hasFlag,
  O,
  openFile,
  type OwnedFd,
  setNonblocking,
} from "../../ffi/fd.ts";
import type { FdRequirement } from "../../ffi/fd_requirement.ts";
import { hasIoUring } from "../../ffi/io_uring.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { mapAnonymous, resizeFile } from "../../ffi/memory.ts";
import type { FileNodeConfig } from "./config.ts";

type FileDriver = FileNodeConfig["driver"];

/** What direct requests are multiples of where the host does not say. */
const PAGE = 4096;
const READ_ONLY_REASONS = ["EACCES", "EPERM", "EROFS"];

/** What a file that a predecessor passes must be. */
export function fileRequirement(config: FileNodeConfig): FdRequirement {
  const { driver, eitherDriver, readOnly, autoReadOnly } = config;
  return {
    ...!eitherDriver && { kind: driver === "file" ? "file" : "block" },
    ...!readOnly && !autoReadOnly && { writable: true },
  };
}

/**
 * Opens the file of a node.
 *
 * @param kept the file as a predecessor has it open; it is owned from now on
 * @param keptName the name by which the predecessor knew it, if it has said so
 * @returns the file, the driver that goes with it, and whether it cannot be written
 * @throws {Error} in QEMU's words; or because what was passed is not what this node is told to be
 */
export function openImageFile(
  config: FileNodeConfig,
  kept?: OwnedFd,
  keptName?: string,
): { file: OwnedFd; driver: FileDriver; readOnly: boolean } {
  const file = kept ?? open(config);
  try {
    if (kept) checkKept(config, kept.fd, keptName);
    const { kind } = fileStatus(file.fd);
    const driver = !config.eitherDriver ? config.driver : kind === "block" ? "host_device" : "file";
    checkKind({ ...config, driver }, kind);
    setNonblocking(file.fd, false);
    return { file, driver, readOnly: config.readOnly || accessMode(file.fd) === O.RDONLY };
  } catch (error) {
    file.close();
    throw error;
  }
}

function open(config: FileNodeConfig): OwnedFd {
  const { filename, readOnly, autoReadOnly, cache } = config;
  // A FIFO that nobody writes to would keep open(2) waiting.
  const flags = O.NONBLOCK | (cache.direct ? O.DIRECT : 0);
  try {
    return openFile(filename, flags | (readOnly ? O.RDONLY : O.RDWR));
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    if (!readOnly && autoReadOnly && READ_ONLY_REASONS.includes(error.code)) {
      return open({ ...config, readOnly: true });
    }
    const reason = cache.direct && error.errno === Errno.EINVAL
      ? "filesystem does not support O_DIRECT"
      : error.reason;
    throw new Error(`Could not open '${filename}': ${reason}`, { cause: error });
  }
}

function checkKind({ driver, filename }: FileNodeConfig, kind: FileStatus["kind"]): void {
  if (driver === "file" && kind !== "file") {
    throw new Error(`'file' driver requires '${filename}' to be a regular file`);
  }
  if (driver === "host_device" && kind !== "block") {
    throw new Error(`'host_device' driver requires '${filename}' to be a block device`);
  }
}

/**
 * Whether requests are made by io_uring.
 *
 * @throws {Error} in QEMU's words if they shall be and there is none
 */
export function usesIoUring({ aio }: FileNodeConfig): boolean {
  if (aio === "threads") return false;
  const there = hasIoUring();
  if (there || aio === "native") return there;
  throw new Error(
    "aio=io_uring was specified, but is not available (disabled via io_uring_disabled sysctl or" +
      " blocked by container runtime seccomp policy?)",
  );
}

/** A node's file by a name that means the same in every folder. */
export function fullName({ filename }: FileNodeConfig): string {
  return resolve(filename);
}

/**
 * A name that leads to another file than the one that the guest has would be another disk after the
 * next start, and one that leads nowhere, none. Only where the predecessor had the same name is its
 * file one that was renamed or removed meanwhile: the guest keeps it.
 */
function checkKept(config: FileNodeConfig, fd: number, keptName?: string): void {
  const { nodeName, filename, cache, readOnly, autoReadOnly } = config;
  refuseChange(nodeName, "cache.direct", hasFlag(fd, O.DIRECT), cache.direct);
  const isReadOnly = accessMode(fd) === O.RDONLY;
  refuseChange(nodeName, "read-only", isReadOnly, readOnly || (isReadOnly && autoReadOnly));
  let named: FileStatus;
  try {
    using other = openFile(filename, O.PATH);
    named = fileStatus(other.fd);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    if (keptName === fullName(config)) return;
    throw new Error(
      `Could not open '${filename}': ${error.reason}; the disk of the guest, node '${nodeName}',` +
        ` is '${nameOf(fd)}': name that`,
      { cause: error },
    );
  }
  const is = fileStatus(fd);
  if (named.dev !== is.dev || named.ino !== is.ino) {
    throw new Error(
      `Node '${nodeName}' is another file than '${filename}' in the old VMM; the disk of the guest` +
        ` is '${nameOf(fd)}': name that`,
    );
  }
}

/** An open file's name by now. */
function nameOf(fd: number): string {
  return Deno.readLinkSync(`/proc/self/fd/${fd}`);
}

/** @throws {Error} unless a property is what the guest has found so far */
function refuseChange(nodeName: string, property: string, was: boolean, is: boolean): void {
  if (was === is) return;
  throw new Error(
    `Node '${nodeName}' has ${property}=${was ? "on" : "off"} in the old VMM: that cannot change` +
      " while the guest runs",
  );
}

/** Bytes of an open file or block device. */
export function imageSize(fd: number, driver: FileDriver): number {
  return driver === "file" ? fileStatus(fd).size : blockDeviceSize(fd);
}

/** Bytes that it takes on the host. */
export function allocatedBytes(fd: number): number {
  return fileStatus(fd).allocated;
}

/**
 * What offsets, lengths and addresses of direct requests must be multiples of. The kernel says so for
 * devices; for files it is tried out, as not every file system says it.
 */
export function directAlignment(fd: number, driver: FileDriver): number {
  if (driver === "host_device") return sectorSize(fd);
  // At the end of a file nothing is refused.
  if (fileStatus(fd).size < PAGE) return PAGE;
  using buffer = mapAnonymous(PAGE);
  const vector = new IoVector(1);
  for (let alignment = 512; alignment < PAGE; alignment *= 2) {
    vector.clear();
    // Neither the address nor the offset is a multiple of more.
    vector.push(buffer.address + alignment, alignment);
    if (vector.readFromAt(fd, alignment) > 0) return alignment;
  }
  return PAGE;
}

/**
 * Changes the size of a file.
 *
 * @throws {Error} in QEMU's words, or for what is no file
 */
export function resizeImage(fd: number, { driver, filename }: FileNodeConfig, size: number): void {
  if (driver === "file") {
    try {
      return resizeFile(fd, size);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      throw new Error(`Failed to resize the file: ${error.reason}`, { cause: error });
    }
  }
  // The host may have changed it: that is how the guest hears of it.
  const now = blockDeviceSize(fd);
  if (size > now) throw new Error("Cannot grow device files");
  if (size < now) throw new Error(`Cannot resize device files: '${filename}' has ${now} bytes`);
}
