/**
 * The new VMM's process, which outlives the update that starts it.
 *
 * It has the old VMM's working directory, environment and output, and a session of its own. What it
 * says before the guest is its own comes to the update.
 *
 * @module
 */
import { O, openFile, type OwnedFd, setNonblocking } from "../../ffi/fd.ts";
import { type ChildProcess, ownEnvironment, SIGKILL, spawn } from "../../ffi/process.ts";
import { UPDATE_OUTPUT_FD } from "../../vmm/daemon.ts";
import type { VmmProcess } from "./process.ts";

/** How much of what a process says is told. */
const LAST_LINES = 5;
/** How messages of Denovo's begin, behind a time and a guest's name if those are asked for. */
const MESSAGE = /^(?:.* )?denovo: /;

/** The new VMM. */
export class Successor implements Disposable {
  readonly #child: ChildProcess;
  readonly #errors: string;

  /**
   * Starts it.
   *
   * @param command the command line
   * @param vmm the VMM that it follows
   * @param folder where its errors are kept meanwhile
   * @throws {OsError} if it cannot be started
   */
  constructor(command: readonly string[], vmm: VmmProcess, folder: string) {
    this.#errors = `${folder}/errors`;
    using input = outputOf(vmm, 0, O.RDONLY);
    using output = outputOf(vmm, 1, O.WRONLY | O.APPEND);
    using later = outputOf(vmm, 2, O.WRONLY | O.APPEND);
    using errors = openFile(this.#errors, O.WRONLY | O.CREAT | O.APPEND, 0o600);
    const foreign = Object.keys(ownEnvironment()).map((name) => [name, undefined]);
    this.#child = spawn(command, {
      env: { ...Object.fromEntries(foreign), ...vmm.env, [UPDATE_OUTPUT_FD]: `${later.fd}` },
      fds: [[input.fd, 0], [output.fd, 1], [errors.fd, 2], [later.fd, later.fd]],
      newSession: true,
      cwd: vmm.cwd,
    });
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Whether it has ended. */
  get ended(): boolean {
    return this.#child.poll() !== undefined;
  }

  /** Why it has ended: the last lines that it said, or its exit status. */
  get reason(): string {
    const status = this.#child.poll();
    if (status && "signal" in status) return `signal ${status.signal}`;
    const said = lastWords(Deno.readTextFileSync(this.#errors));
    if (said !== "") return said;
    return status ? `exit status ${status.code}` : "it said nothing";
  }

  /** @throws {Error} with its reason, if it has ended */
  assertAlive(): void {
    if (this.ended) throw new Error(`The new VMM ended: ${this.reason}`);
  }

  /** Ends it at once. Only for one that does not have the guest. */
  kill(): void {
    this.#child.kill(SIGKILL);
    this.#child.wait();
  }

  /** Lets go of it; it is not touched. */
  [Symbol.dispose](): void {
    this.#child[Symbol.dispose]();
  }
}

/**
 * Why a program has ended, of all that it said: its last message, of which warnings are no part, or the
 * last lines of what has no messages.
 */
export function lastWords(text: string): string {
  const lines = text.trim().split("\n").filter((line) => !/(^| )warning: /.test(line));
  const last = lines.findLastIndex((line) => MESSAGE.test(line));
  return lines.slice(Math.max(last, lines.length - LAST_LINES))
    .map((line) => line.replace(MESSAGE, "")).join("; ");
}

/** What a VMM has as stdin, stdout or stderr, opened anew; else `/dev/null`. */
function outputOf(vmm: VmmProcess, fd: number, flags: number): OwnedFd {
  try {
    // A FIFO without a peer would keep the opener waiting.
    const file = openFile(`/proc/${vmm.pid}/fd/${fd}`, flags | O.NONBLOCK | O.NOCTTY);
    setNonblocking(file.fd, false);
    return file;
  } catch {
    // A socket, or a file that this user may not open.
    return openFile("/dev/null", O.RDWR);
  }
}
