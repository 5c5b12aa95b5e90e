/**
 * What a descriptor must be that came from another process, which may have sent anything.
 *
 * @module
 */
import { accessMode, type FileStatus, fileStatus, O } from "./fd.ts";
import { Seal, sealsOf } from "./memory.ts";
import { isListening } from "./socket.ts";

/** What whoever takes a descriptor over relies on. */
export interface FdRequirement {
  /** What fstat must say it is. */
  readonly kind?: FileStatus["kind"];
  /** Bytes that it must have at least. */
  readonly bytes?: number;
  /**
   * Nobody can shrink it, for a mapping beyond a file's end kills by SIGBUS: it is `sealed`, or `if
   * possible`: files on tmpfs, and memfds made without seals, can have none.
   */
  readonly sealed?: true | "if possible";
  /** Whether it must be open for writing, and not sealed against that. */
  readonly writable?: boolean;
  /** For a socket: whether it must listen, or must not. */
  readonly listening?: boolean;
}

/** A check of a descriptor: what is wrong with it, or undefined. */
type Check = (fd: number, must: FdRequirement) => string | undefined;

const checks: readonly Check[] = [
  (fd, { kind }) => {
    const is = fileStatus(fd).kind;
    return kind === undefined || is === kind ? undefined : `is a ${is}, expected a ${kind}`;
  },
  (fd, { bytes = 0 }) => {
    const { size } = fileStatus(fd);
    return size >= bytes ? undefined : `has ${size} bytes, expected ${bytes}`;
  },
  (fd, { sealed }) => {
    if (sealed === undefined || !canShrink(fd, sealed)) return undefined;
    return "can shrink: it lacks the seal F_SEAL_SHRINK";
  },
  (fd, { writable }) => {
    const isWritable = accessMode(fd) !== O.RDONLY && ((sealsOf(fd) ?? 0) & Seal.WRITE) === 0;
    return !writable || isWritable ? undefined : "cannot be written";
  },
  (fd, { listening }) => {
    if (listening === undefined || listening === isListening(fd)) return undefined;
    return listening ? "does not listen" : "listens, expected a connection";
  },
];

function canShrink(fd: number, sealed: true | "if possible"): boolean {
  const seals = sealsOf(fd);
  if (sealed === true) return ((seals ?? 0) & Seal.SHRINK) === 0;
  // What cannot be sealed at all has no seals, or F_SEAL_SEAL alone.
  return seals !== undefined && (seals & (Seal.SHRINK | Seal.SEAL)) === 0;
}

/**
 * Compares an open descriptor with what it must be.
 *
 * @returns what is wrong with it, to be put after its name; undefined if nothing is
 * @throws {OsError} if it is not open
 */
export function whyUnfit(fd: number, must: FdRequirement): string | undefined {
  for (const check of checks) {
    const reason = check(fd, must);
    if (reason !== undefined) return reason;
  }
}
