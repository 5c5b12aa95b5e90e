/**
 * Files that state is written to and read from, by name or out of a set of descriptors.
 *
 * @module
 */
import { Errno, OsError } from "../../ffi/errno.ts";
import {
  accessMode,
  duplicate,
  fileStatus,
  O,
  openFile,
  type OwnedFd,
  seekFd,
} from "../../ffi/fd.ts";
import { lockFile } from "../../ffi/file_lock.ts";
import { resizeFile } from "../../ffi/memory.ts";
import type { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import type { FileAddress } from "./address.ts";
import { inWords } from "./errors.ts";

/** Makes a file for state, or opens one that is there. @throws {Error} in QEMU's words */
export function createStateFile({ filename, offset }: FileAddress, fds: FdRegistry): OwnedFd {
  let fd: OwnedFd;
  try {
    fd = fromFdset(filename, O.WRONLY, fds) ??
      openStateFile(filename, O.WRONLY | O.CREAT, "exclusive");
  } catch (error) {
    throw inWords(error, `Could not create '${filename}'`);
  }
  try {
    if (fileStatus(fd.fd).kind !== "fifo") resizeFile(fd.fd, offset);
    if (offset > 0) seekFd(fd.fd, offset);
    return fd;
  } catch (error) {
    fd.close();
    throw inWords(error, `failed to truncate migration file to offset ${offset.toString(16)}`);
  }
}

/** Opens a file with state in it. @throws {Error} in QEMU's words */
export function readStateFile({ filename, offset }: FileAddress, fds: FdRegistry): OwnedFd {
  try {
    const fd = fromFdset(filename, O.RDONLY, fds) ??
      openStateFile(filename, O.RDONLY, "shared");
    if (offset > 0) seekFd(fd.fd, offset);
    return fd;
  } catch (error) {
    throw inWords(error, `Could not open '${filename}'`);
  }
}

/**
 * Opens a file for state. A FIFO's other end is not waited for: one that nobody reads is an error. A
 * file that is being written is another VMM's.
 *
 * @throws {OsError}
 */
function openStateFile(filename: string, flags: number, lock: "shared" | "exclusive"): OwnedFd {
  const fd = openFile(filename, flags | O.NONBLOCK, 0o660);
  if (fileStatus(fd.fd).kind !== "file" || lockIfPossible(fd.fd, lock)) return fd;
  fd.close();
  throw new OsError("fcntl(F_OFD_SETLK)", Errno.EAGAIN, filename);
}

/** A file system without locks is no reason not to write there. */
function lockIfPossible(fd: number, kind: "shared" | "exclusive"): boolean {
  try {
    return lockFile(fd, kind);
  } catch (error) {
    if (error instanceof OsError) return true;
    throw error;
  }
}

/**
 * `/dev/fdset/N`: the descriptor with the right access mode in a set that `add-fd` made.
 *
 * @returns undefined for other names
 * @throws {OsError} ENOENT without such a set, EACCES without such a descriptor in it
 */
function fromFdset(filename: string, mode: number, fds: FdRegistry): OwnedFd | undefined {
  const id = /^\/dev\/fdset\/(\d+)$/.exec(filename)?.[1];
  if (id === undefined) return undefined;
  const set = fds.sets.find(({ fdsetId }) => fdsetId === Number(id));
  if (!set) throw new OsError("open", Errno.ENOENT, filename);
  const member = set.fds.find(({ fd }) => accessMode(fd) === mode);
  if (!member) throw new OsError("open", Errno.EACCES, filename);
  return duplicate(member.fd);
}
