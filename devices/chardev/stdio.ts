/**
 * The stdio backend: the process's own standard input and output.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { duplicate, fileStatus, O, openFile, type OwnedFd, setNonblocking } from "../../ffi/fd.ts";
import { isTerminal } from "../../ffi/terminal.ts";
import type { ChardevState, KeptChardev } from "./backend.ts";
import type { StdioConfig } from "./config.ts";
import { RawTerminal, type TerminationSignal } from "./raw_terminal.ts";
import { StreamBackend } from "./stream_backend.ts";

/** The one backend that has stdin and stdout. */
let owner: StdioBackend | undefined;

/** Reads stdin, in raw mode if it is a terminal, and writes to stdout. */
export class StdioBackend extends StreamBackend {
  /** What `query-chardev` prints. */
  readonly filename = "stdio";
  /** Descriptors that were made non-blocking for everyone who shares them. */
  readonly #shared: number[] = [];
  #terminal: RawTerminal | undefined;

  /**
   * Takes stdin and stdout, or those that were kept.
   *
   * @param config the configuration
   * @param kept what a predecessor left
   * @param terminate called on SIGINT, SIGTERM and SIGHUP while the terminal is raw; without it the
   * terminal is put back and the process dies of the signal
   * @throws {Error} when there is a stdio backend already
   */
  constructor(
    config: StdioConfig,
    kept?: KeptChardev,
    terminate?: (signal: TerminationSignal) => void,
  ) {
    // The shell opened them, whatever they are.
    super(config, kept, { in: {}, out: {} });
    this.setUp(() => {
      if (owner) throw new Error("cannot use stdio by multiple character devices");
      owner = this;
      this.#open(config, kept, terminate);
    });
  }

  /** The settings that the terminal had at first. */
  override saveState(): ChardevState {
    return this.#terminal ? { termios: this.#terminal.original.toHex() } : {};
  }

  /** Lets go of stdin and stdout; a terminal stays raw. */
  override release(): void {
    this.#terminal?.release();
    super.release();
  }

  /** Stdin is at its end. */
  protected inputEnded(): void {
    this.endInput();
  }

  /** Lets another backend have stdin and stdout. */
  protected override stopped(): void {
    if (owner === this) owner = undefined;
  }

  /** Puts the terminal back. */
  protected override restoreHost(): void {
    this.#terminal?.restore();
    for (const fd of this.#shared) setNonblocking(fd, false);
  }

  #open(
    config: StdioConfig,
    kept: KeptChardev | undefined,
    terminate: ((signal: TerminationSignal) => void) | undefined,
  ): void {
    const input = this.fds.open("in", () => this.#openPrivately(0, O.RDONLY));
    const output = this.fds.open("out", () => this.#openPrivately(1, O.WRONLY));
    this.connect(input, output, fileStatus(output).kind === "socket");
    if (!isTerminal(input)) return;
    const original = savedTermios(kept);
    this.#terminal = new RawTerminal(input, { signals: config.signal, original, terminate });
  }

  /**
   * The file behind `fd`, non-blocking. O_NONBLOCK belongs to the open file, which the shell and
   * others share, so the file is opened once more where that can be done (not for sockets, nor for
   * the terminal of another user).
   */
  #openPrivately(fd: number, flags: number): OwnedFd {
    // Regular files never block, and a second opening would begin again at their start.
    if (fileStatus(fd).kind === "file") return duplicate(fd);
    try {
      return openFile(`/proc/self/fd/${fd}`, flags | O.NONBLOCK | O.NOCTTY);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      const copy = duplicate(fd);
      setNonblocking(copy.fd, true);
      this.#shared.push(copy.fd);
      return copy;
    }
  }
}

function savedTermios(kept: KeptChardev | undefined): Uint8Array<ArrayBuffer> | undefined {
  const saved = kept?.state.termios;
  if (saved === undefined) return undefined;
  if (typeof saved !== "string") throw new TypeError("Saved terminal settings are not a string");
  return Uint8Array.fromHex(saved);
}
