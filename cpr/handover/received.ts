/**
 * What a successor has before its machine is built.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Inheritance } from "../../vmm/inheritance.ts";
import type { AnchoredGuest } from "./anchored_guest.ts";

/** When a process began, nanoseconds of CLOCK_MONOTONIC. */
export interface Begun {
  /** The runtime's first moment. */
  readonly runtimeNs: number;
  /** The program's first moment. */
  readonly programNs: number;
}

/** What a predecessor handed over, by whatever way. */
export interface Received {
  readonly inheritance: Inheritance;
  /** The cpr connection, whose end tells the old VMM that the main channel listens. */
  readonly connection?: OwnedFd;
  /** The main channel, where it is connected already. */
  readonly main?: OwnedFd;
  /** The guest, where an anchor runs it until it is taken. */
  readonly anchored?: AnchoredGuest;
  /** When this process began, where that is part of the update. */
  readonly begun?: Begun;
}
