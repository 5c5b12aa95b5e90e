/**
 * The steps of the pause's two halves, for the pause and for its rehearsals alike: what has been
 * rehearsed is compiled, and a function that only looks the same is another one.
 *
 * @module
 */
import type { Machine } from "../vmm/machine.ts";
import { awaitAnswer, type Channel, ChannelClosed } from "./channel.ts";
import type { Entering, Leaving } from "./pause.ts";
import { type ReadOptions, readVm } from "./vm_state.ts";

/**
 * The old VMM's half.
 *
 * @param channel to the successor
 * @param own what differs between the pause and its rehearsal
 */
export function leavingBy(
  channel: Channel,
  own: Pick<Leaving, "ownership" | "image" | "stop" | "chardevs">,
): Leaving {
  return {
    ...own,
    send: (bytes) => sendIfThere(channel, bytes),
    await: () => awaitAnswer(channel),
  };
}

/** Sends to a peer that may be gone: it has said why before, or says it by that, to who reads. */
export function sendIfThere(channel: Channel, bytes: Uint8Array<ArrayBuffer>): void {
  try {
    channel.sink(bytes);
  } catch (error) {
    if (!(error instanceof ChannelClosed)) throw error;
  }
}

/** What differs between the new VMM's half and its rehearsal. */
export interface EnteringParts extends Pick<Entering, "ownership"> {
  readonly machine: Machine;
  readonly reading: ReadOptions;
  /** Whether the guest's TSC goes on over the pause, if it was saved since this host was booted. */
  readonly tscGoesOn: boolean;
  /** Whether a guest that ran shall run. */
  mayRun(): boolean;
  /** The guest runs, or does not; nothing waits any more. */
  done(runs: boolean): void;
}

/**
 * The new VMM's half.
 *
 * @param channel where the state comes from
 * @param parts what differs between the pause and its rehearsal
 */
export function enteringBy(channel: Channel, parts: EnteringParts): Entering {
  const { ownership, machine, reading, tscGoesOn, mayRun, done } = parts;
  return {
    ownership,
    await: () => channel.awaitData(),
    read: () => readVm(machine, channel.source, reading),
    apply: (state) => state.apply(tscGoesOn && state.sameBoot),
    run: ({ wasRunning }) => {
      const runs = wasRunning && mayRun();
      if (runs) machine.resume();
      done(runs);
    },
  };
}
