/**
 * `-pidfile`: a file with the process id, which is a lock as well, as QEMU's is.
 *
 * The lock is one of the open file (fcntl(2), F_OFD_SETLK): a successor that gets the descriptor has it
 * too, and keeps it when the old VMM ends.
 *
 * @module
 */
import { OsError } from "../ffi/errno.ts";
import {
  fileStatus,
  findNamed,
  O,
  openFile,
  type OwnedFd,
  readAt,
  seekFd,
  unlinkNamed,
  writeAll,
} from "../ffi/fd.ts";
import { lockFile, unlockFile } from "../ffi/file_lock.ts";
import type { FdRequirement } from "../ffi/fd_requirement.ts";
import { resizeFile } from "../ffi/memory.ts";
import type { Handover, Inheritance, Keeper } from "./inheritance.ts";

/** What it is handed over as. */
const PIDFILE = "pidfile";
const pidfileFd: FdRequirement = { kind: "file", writable: true };
/** The longest content that is looked at: a process id and more. */
const MAX_CONTENT = 32;

/** An open pidfile. */
export class Pidfile implements Disposable, Keeper {
  readonly #path: string;
  #file: OwnedFd;
  readonly #kept: OwnedFd | undefined;
  #held = true;

  private constructor(path: string, file: OwnedFd, kept: OwnedFd | undefined) {
    this.#path = path;
    this.#file = file;
    this.#kept = kept;
  }

  /**
   * Opens and locks the pidfile that a VM shall have, if it shall; nothing is written yet.
   *
   * @param path its name
   * @param inheritance what a predecessor left, its pidfile perhaps
   * @throws {Error} in QEMU's words, or because what was left is no pidfile
   */
  static takeOver(path: string | undefined, inheritance?: Inheritance): Pidfile | undefined {
    const kept = inheritance?.takeFd(PIDFILE, "", pidfileFd);
    if (path !== undefined) return Pidfile.lock(path, kept);
    kept?.close();
  }

  /**
   * Opens and locks a pidfile; nothing is written yet.
   *
   * @param path its name
   * @param kept what a predecessor passed, which may be another file; it is owned from now on
   * @throws {Error} in QEMU's words
   */
  private static lock(path: string, kept?: OwnedFd): Pidfile {
    let file = kept;
    try {
      file ??= open(path);
      const pidfile = new Pidfile(path, file, kept);
      if (!pidfile.hold()) {
        throw new Error("Cannot lock pid file: Resource temporarily unavailable");
      }
      return pidfile;
    } catch (error) {
      file?.close();
      throw new Error(`cannot create PID file: ${(error as Error).message}`, { cause: error });
    }
  }

  handOver(): Handover {
    return { fds: [{ name: PIDFILE, id: "", fd: this.fd, optional: true }], values: [] };
  }

  /** The descriptor. */
  get fd(): number {
    return this.#file.fd;
  }

  /** Whether it is a predecessor's, which still has the guest perhaps. */
  get inherited(): boolean {
    return this.#file === this.#kept;
  }

  /** Takes the lock, unless another process has it; says whether it is this one's. */
  hold(): boolean {
    while (lockFile(this.#file.fd, "exclusive")) {
      if (this.#isThere()) return this.#held = true;
      // Whoever had the lock has removed the file since, or it is a predecessor's with another name.
      const file = open(this.#path);
      this.#file.close();
      this.#file = file;
    }
    return this.#held = false;
  }

  /** Leaves the lock to others: the guest may go on in another process. */
  letGo(): void {
    unlockFile(this.#file.fd);
    this.#held = false;
  }

  /** Writes this process's id. @throws {Error} in QEMU's words */
  write(): void {
    try {
      // Never empty in between: a predecessor that ends at this moment would take it for its own.
      const content = new TextEncoder().encode(`${Deno.pid}\n`);
      seekFd(this.fd, 0);
      writeAll(this.fd, content);
      resizeFile(this.fd, content.length);
    } catch (cause) {
      const reason = cause instanceof OsError ? cause.reason : String(cause);
      throw new Error(`cannot create PID file: Failed to write pid file: ${reason}`, { cause });
    }
  }

  /** Closes the file, and removes it if it is this process's. */
  [Symbol.dispose](): void {
    const named = findNamed(this.#path);
    if (named && this.#held && this.#isThere() && this.#isOurs()) unlinkNamed(named);
    this.#file.close();
  }

  /** Whether the name leads to the open file. */
  #isThere(): boolean {
    const named = findNamed(this.#path);
    const { dev, ino } = fileStatus(this.fd);
    return named?.dev === dev && named.ino === ino;
  }

  /** Whether nobody has written another id: after a live update a successor has. */
  #isOurs(): boolean {
    const content = new Uint8Array(MAX_CONTENT);
    const text = new TextDecoder().decode(content.subarray(0, readAt(this.fd, content, 0)));
    return text === "" || text === `${Deno.pid}\n`;
  }
}

function open(path: string): OwnedFd {
  try {
    return openFile(path, O.RDWR | O.CREAT, 0o600);
  } catch (cause) {
    const reason = cause instanceof OsError ? cause.reason : String(cause);
    throw new Error(`Cannot open pid file '${path}': ${reason}`, { cause });
  }
}
