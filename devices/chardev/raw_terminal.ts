/**
 * The user's terminal while it is in raw mode: put back however the process ends.
 *
 * @module
 */
import { getTermios, isBackground, makeRaw, setTermios } from "../../ffi/terminal.ts";

/** The signals that ask a process to end. */
export const terminationSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** One of them. */
export type TerminationSignal = typeof terminationSignals[number];

/** How a terminal is made raw. */
export interface RawTerminalOptions {
  /** Whether C-c, C-\ and C-z still send signals. */
  readonly signals: boolean;
  /** The settings to put back, if a predecessor has already made the terminal raw. */
  readonly original?: Uint8Array<ArrayBuffer>;
  /** Called on a termination signal; without it the process dies of the signal. */
  readonly terminate?: (signal: TerminationSignal) => void;
}

/** A terminal in raw mode. */
export class RawTerminal {
  /** The settings to put back. */
  readonly original: Uint8Array<ArrayBuffer>;
  readonly #fd: number;
  readonly #options: RawTerminalOptions;
  /** The settings that are ours: whoever has changed them since has his reasons. */
  #raw: Uint8Array<ArrayBuffer> | undefined;

  /**
   * Makes a terminal raw.
   *
   * @param fd must stay open until `restore()` or `release()`
   */
  constructor(fd: number, options: RawTerminalOptions) {
    this.#fd = fd;
    this.#options = options;
    this.original = options.original ?? getTermios(fd);
    if (options.original) this.#raw = getTermios(fd);
    this.#enter();
    // A shell puts its own settings in place while the process is suspended.
    Deno.addSignalListener("SIGCONT", this.#enter);
    for (const signal of terminationSignals) Deno.addSignalListener(signal, this.#end[signal]);
    for (const event of ["unload", "error", "unhandledrejection"]) {
      addEventListener(event, this.#putBack);
    }
  }

  /** Puts the settings back. */
  restore(): void {
    this.release();
    this.#putBack();
  }

  /** Leaves the terminal raw for a successor. */
  release(): void {
    Deno.removeSignalListener("SIGCONT", this.#enter);
    for (const signal of terminationSignals) Deno.removeSignalListener(signal, this.#end[signal]);
    for (const event of ["unload", "error", "unhandledrejection"]) {
      removeEventListener(event, this.#putBack);
    }
  }

  readonly #enter = (): void => {
    // Brought to the foreground, the process gets SIGCONT.
    if (isBackground(this.#fd)) return;
    setTermios(this.#fd, makeRaw(this.original, { signals: this.#options.signals }));
    this.#raw = getTermios(this.#fd);
  };

  readonly #putBack = (): void => {
    try {
      if (this.#raw && equal(this.#raw, getTermios(this.#fd))) {
        setTermios(this.#fd, this.original);
      }
    } catch {
      // The terminal has gone (a hang-up): nothing is left to be put back.
    }
  };

  readonly #terminated = (signal: TerminationSignal): void => {
    if (this.#options.terminate) return this.#options.terminate(signal);
    this.restore();
    // Without a listener the signal does what it does by default.
    Deno.kill(Deno.pid, signal);
  };

  readonly #end: Record<TerminationSignal, () => void> = {
    SIGINT: () => this.#terminated("SIGINT"),
    SIGTERM: () => this.#terminated("SIGTERM"),
    SIGHUP: () => this.#terminated("SIGHUP"),
  };
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i]);
}
