/**
 * What a character backend is to the rest of the VMM, on the main thread.
 *
 * A backend has two halves. The *sink* is what devices write to; every thread builds its own from
 * plain data (`sink.ts`). The *backend* opens, accepts, reads and closes, on the main thread only.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { CharacterSink } from "../device.ts";
import type { SinkDescription } from "./sink.ts";

/**
 * What a frontend is told: a peer is there or has gone, a break condition came, or the frontend has
 * got or lost the input focus of a multiplexer (QEMU's QEMUChrEvent).
 */
export type CharacterEvent = "opened" | "closed" | "break" | "mux-in" | "mux-out";

/** The user of a backend: a device or a monitor. All calls come on the main thread. */
export interface CharacterFrontend {
  /** How many bytes of input it takes now. */
  inputRoom(): number;
  /** Whether it takes descriptors that a peer passes over a UNIX socket (SCM_RIGHTS). */
  readonly wantsFds?: boolean;
  /**
   * Input, at most `inputRoom()` bytes; `data` is reused after the call.
   *
   * @param fds the descriptors that came with it, if it wants them; it owns them from here on
   */
  input(data: Uint8Array, fds?: readonly OwnedFd[]): void;
  /** Something other than data. */
  event(event: CharacterEvent): void;
  /** After a write that did not take all bytes: the host takes bytes again. */
  writable(): void;
  /** In plain text what the successor's frontend goes on from, if there is something. */
  saveState?(): string | undefined;
  /**
   * The backend, which a predecessor had, is this VMM's own now.
   *
   * @param state what the predecessor's frontend gave, if anything; it may come from anywhere
   */
  restoreState?(state: string | undefined): void;
}

/** Values that a backend hands to its successor besides descriptors: plain JSON. */
export type ChardevState = Readonly<Record<string, string | number | boolean>>;

/** What a backend takes over from its predecessor. */
export interface KeptChardev {
  /** Descriptors by the names of {@linkcode CharacterBackend.keptFds}. */
  readonly fds: Map<string, OwnedFd>;
  /** What {@linkcode CharacterBackend.saveState} gave. */
  readonly state: ChardevState;
}

/**
 * What a backend leaves alone while its descriptors have two owners, a VMM and its successor:
 * nothing, new peers, or all that peers do.
 */
export type Held = "nothing" | "peers" | "everything";

/** A descriptor to keep open over CPR. */
export interface KeptFd {
  /** Unique within the backend. */
  readonly name: string;
  /** Its number in this process. */
  readonly fd: number;
}

/** A character backend. The write side is for the main thread; devices have sinks of their own. */
export interface CharacterBackend extends CharacterSink {
  /** The backend's id. */
  readonly label: string;
  /** What `query-chardev` and `info chardev` print as `filename`. */
  readonly filename: string;
  /** Whether somebody is there to read the output. */
  readonly connected: boolean;
  /** Whether a frontend uses the backend, `frontend-open` in `query-chardev`. */
  readonly frontendOpen: boolean;
  /** From this any thread makes its sink. */
  readonly sink: SinkDescription;
  /**
   * Binds a frontend and begins to accept and to read.
   *
   * @throws {Error} in QEMU's words when the backend is in use
   */
  attach(reactor: Reactor, frontend: CharacterFrontend): void;
  /** Tells the frontend that a break condition has come (`chardev-send-break`). */
  receiveBreak(): void;
  /** Ends the connection with a peer, if the backend has connections. */
  hangUp(): void;
  /** The open descriptors that a successor takes over. */
  keptFds(): KeptFd[];
  /** What is left alone now. Clients wait in the listener's queue, input in the host's buffers. */
  held: Held;
  /** What a successor must know besides. */
  saveState(): ChardevState;
  /** Takes what `saveState()` gave later than what the backend was opened with. */
  restoreState(state: ChardevState): void;
  /**
   * Closes everything, but leaves alone what a successor goes on using: the terminal stays raw, the
   * connection up, the socket file in place.
   */
  release(): void;
  /** Closes everything and leaves the host as it was found. A second call does nothing. */
  close(): void;
}
