/**
 * The pause: what lies between the guest's last instruction in one VMM and its first in the next.
 *
 * Both halves are synchronous, and everything they need was made, opened, compared and rehearsed
 * before (`rehearsal.ts`).
 *
 * @module
 */
import { Owner, type Ownership } from "./ownership.ts";
import { encodeStream, type Section } from "./stream.ts";
import type { ChardevStates, GuestRun, ReadVm, VmImage } from "./vm_state.ts";

/** What the old VMM's half works with. */
export interface Leaving {
  readonly ownership: Ownership;
  readonly image: VmImage;
  /** Stops the guest, and says since when. */
  stop(): GuestRun;
  /** The states of the character devices. */
  chardevs(): ChardevStates;
  /** Sends the state; a peer that is gone is no error here. */
  send(bytes: Uint8Array<ArrayBuffer>): void;
  /** Sleeps for a moment, or until there is an answer. */
  await(): void;
}

/**
 * The old VMM's half: from the guest's last instruction to its state on the way, and then asleep.
 *
 * Whatever this process has to say and to do can wait: as long as it sleeps, its processor is there
 * for the new VMM, which as a rule has been woken on it.
 *
 * @returns the state that was sent, and how many bytes it took
 * @throws {Error} if the state cannot be sent; the guest is stopped, and may have to be taken back
 */
export function leave(
  { ownership, image, stop, chardevs, send, await: answer }: Leaving,
): { readonly sections: Section[]; readonly length: number } {
  const { timeline } = ownership;
  const guest = stop();
  timeline.stamp("parked");
  const sections = image.save(guest, chardevs());
  const bytes = encodeStream(sections);
  timeline.stamp("saved");
  // From here on only the winner of the next swap may run the guest.
  ownership.swap(Owner.OLD, Owner.HANDED_OVER);
  timeline.stamp("handed-over");
  send(bytes);
  timeline.stamp("sent");
  answer();
  return { sections, length: bytes.length };
}

/** What the new VMM's half works with. */
export interface Entering {
  readonly ownership: Ownership;
  /** Waits for the first bytes of the state. */
  await(): void;
  /** Reads and checks the state; nothing is touched yet. */
  read(): ReadVm;
  /** Puts the state into the machine. */
  apply(state: ReadVm): void;
  /** Lets the guest run, if it ran. */
  run(state: ReadVm): void;
}

/**
 * The new VMM's half: from the state's arrival to the guest's first instruction.
 *
 * @throws {Error} if the state is not taken; then the guest is not this VMM's to run
 */
export function enter({ ownership, await: arrival, read, apply, run }: Entering): ReadVm {
  const { timeline } = ownership;
  arrival();
  timeline.stamp("received");
  const state = read();
  timeline.stamp("checked");
  apply(state);
  timeline.stamp("loaded");
  if (!ownership.swap(Owner.HANDED_OVER, Owner.NEW)) {
    throw new Error("The old VMM has taken the guest back");
  }
  timeline.stamp("taken");
  run(state);
  timeline.stamp("resumed");
  return state;
}
