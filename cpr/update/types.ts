/**
 * What an update is asked for, and what it tells.
 *
 * @module
 */

/** How the guest gets to its new VMM: QEMU's `cpr-transfer`, `cpr-exec` and `cpr-reboot`. */
export type UpdateMode = "transfer" | "exec" | "reboot";

/** All modes. */
export const updateModes: readonly UpdateMode[] = ["transfer", "exec", "reboot"];

/** Which VMM is updated, and how. */
export interface UpdateOptions {
  /** Its QMP socket: a path, `unix:PATH` or, on this host, `tcp:HOST:PORT`. */
  readonly socket: string;
  /**
   * The way. Unless given it is `transfer`, or `exec` where something of the VMM cannot be in two
   * processes at once: a monitor on TCP or with `cpr=on`, a console on a terminal.
   */
  readonly mode?: UpdateMode;
  /** The new VMM's options, instead of those that the running one was started with. */
  readonly options?: readonly string[];
  /** Cancels the update as long as the guest has not moved. */
  readonly signal?: AbortSignal;
  /** Called as each step begins, with a line of text. */
  readonly onProgress?: (step: string) => void;
}

/** One step of the pause. */
export interface TimelineStep {
  /** What was done. */
  readonly step: string;
  /** When it was done: microseconds after the guest stopped; what came before is negative. */
  readonly us: number;
  /** Which of the two VMMs did it. */
  readonly process: string;
}

/** An update that was done. */
export interface UpdateResult {
  /** The way that was taken. */
  readonly mode: UpdateMode;
  /** The process that had the guest. */
  readonly oldPid: number;
  /** The process that has it now; the same in mode `exec`. */
  readonly newPid: number;
  /** The new VMM's command line. */
  readonly commandLine: readonly string[];
  /** The guest's run state, with QEMU's names. */
  readonly runState: string;
  /**
   * For how long the guest stood still, microseconds; undefined if it did not run before. By way of a
   * helper it stood still twice: then this is the longer time.
   */
  readonly pauseUs?: number;
  /** Both times, where it stood still twice. */
  readonly pausesUs?: readonly number[];
  /** The steps of the update, in the order in which they were done. */
  readonly timeline: readonly TimelineStep[];
}

/** What is known of an update that failed. */
export interface UpdateFailure {
  /** The way that was to be taken, if it was decided. */
  readonly mode?: UpdateMode;
  /** The VMM's process, if it was found. */
  readonly oldPid?: number;
  /** The process that has the guest, if that is another: a helper of `exec` that goes on as a VMM. */
  readonly newPid?: number;
  /** The new VMM's command line, if it was known. */
  readonly commandLine?: readonly string[];
  /** The guest's run state in its VMM afterwards, with QEMU's names; undefined if nobody knows. */
  readonly runState?: string;
}

/** An update failed; the message says why, and what has become of the guest. */
export class UpdateError extends Error {
  /** The class's name. */
  override readonly name = "UpdateError";
  /** What is known. */
  readonly failure: UpdateFailure;

  /**
   * Makes the error.
   *
   * @param message the reason, and what has become of the guest
   * @param failure what is known
   * @param cause the error behind it
   */
  constructor(message: string, failure: UpdateFailure, cause?: unknown) {
    super(message, { cause });
    this.failure = failure;
  }
}
