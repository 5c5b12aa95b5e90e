/**
 * The byte stream under a monitor session.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";

/** Where a session's output goes: a character device. */
export interface ByteTransport {
  /** Sends bytes, all or later. */
  write(bytes: Uint8Array<ArrayBuffer>): void;
  /** Ends the connection. */
  close(): void;
}

/** Most descriptors that a client may have in flight: as many as one SCM_RIGHTS message carries. */
const maxPending = 253;

/** Descriptors that came with a client's bytes, until a command takes them. */
export class PassedFds {
  #waiting: OwnedFd[] = [];

  /** Adds what came with a read; the oldest are closed when there are too many. */
  push(fds: readonly OwnedFd[]): void {
    this.#waiting.push(...fds);
    while (this.#waiting.length > maxPending) this.#waiting.shift()!.close();
  }

  /** Takes the oldest, with the duty to close it. */
  take(): OwnedFd | undefined {
    return this.#waiting.shift();
  }

  /** Closes all. */
  close(): void {
    for (const owned of this.#waiting) owned.close();
    this.#waiting = [];
  }
}
