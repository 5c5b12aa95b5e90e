/**
 * The pause: what lies between the guest's last instruction in one VMM and its first in the next.
 *
 * Both halves are synchronous, and everything they need was made, opened, compared and rehearsed
 * before (`rehearsal.ts`). They are given data, not functions: a closure that runs for the first time
 * is compiled first.
 *
 * @module
 */
import { monotonicNow } from "../../ffi/event.ts";
import { ThreadUsage } from "../../ffi/usage.ts";
import type { Machine } from "../../vmm/machine/machine.ts";
import { type MachineThread, parkAll, parkServants } from "../../vmm/threads/machine_thread.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { awaitAnswer, type Channel, sendIfThere } from "../channel/channel.ts";
import { Owner, type Ownership } from "../handover/ownership.ts";
import type { Section } from "../stream/stream.ts";
import {
  type FramedImage,
  type GuestRun,
  type ReadOptions,
  type ReadVm,
  readVm,
} from "../state/vm_state.ts";

const usage = new ThreadUsage();

/** What the old VMM's half works with. */
export interface Leaving {
  readonly ownership: Ownership;
  /** To the successor. */
  readonly channel: Channel;
  readonly vm: VirtualMachine;
  readonly image: FramedImage;
  /** The guest, once it is stopped. */
  guest: GuestRun | undefined;
  /** What has to be stopped, until it is. */
  readonly threads: readonly MachineThread[];
  /** What must be done as soon as they are parked; as a rule there is nothing. */
  readonly onParked?: (guest: GuestRun) => void;
}

/**
 * The old VMM's half: from the guest's last instruction to its state on the way, and then asleep.
 *
 * Whatever this process has to say and to do can wait: as long as it sleeps, its processor is there
 * for the new VMM, which as a rule has been woken on it.
 *
 * @returns the state that was sent, and how many bytes it took
 * @throws {Error} if the guest must not leave now or the state cannot be sent; the guest is stopped, and
 *   may have to be taken back
 */
export function leave(leaving: Leaving): { readonly sections: Section[]; readonly length: number } {
  const { ownership, channel, vm, image } = leaving;
  const { timeline } = ownership;
  usage.begin();
  if (!leaving.guest) {
    parkServants(leaving.threads);
    const stoppedNs = monotonicNow();
    timeline.stamp("stop", stoppedNs);
    parkAll(leaving.threads);
    leaving.guest = { wasRunning: true, stoppedNs };
    checkUndecided(leaving.threads);
  }
  leaving.onParked?.(leaving.guest);
  timeline.stamp("parked");
  const sections = image.save(leaving.guest, vm.keepers);
  const bytes = image.encode(sections);
  timeline.stamp("saved");
  // From here on only the winner of the next swap may run the guest.
  ownership.swap(Owner.OLD, Owner.HANDED_OVER);
  timeline.stamp("handed-over");
  sendIfThere(channel, bytes);
  timeline.stamp("sent");
  awaitAnswer(channel);
  usage.end();
  timeline.noteUsage(usage);
  return { sections, length: bytes.length };
}

/**
 * A guest that has asked for a reset, or cannot go on, stays where that is known: its state does not
 * tell it, and in some accelerators says nothing of the guest any more.
 *
 * @param threads all that are parked
 * @throws {Error} if one of them has left an event that nobody has come to yet
 */
export function checkUndecided(threads: readonly MachineThread[]): void {
  for (const { control, title } of threads) {
    if (!control.hasEvent) continue;
    throw new Error(
      `${title} has just asked for a reset or the like, which comes first: try again`,
    );
  }
}

/** Who takes what the old VMM has let go of. */
interface Claimant {
  /** Takes it. @throws {Error} if it is not there to be taken */
  claim(): void;
  /** Lets go of what it has claimed, and waits for it again. */
  unclaim(): void;
}

/** What the new VMM's half works with. */
export interface Entering {
  readonly ownership: Ownership;
  /** Where the state comes from. */
  readonly channel: Channel;
  readonly machine: Machine;
  readonly reading: ReadOptions;
  /** Whether the guest's TSC goes on over the pause, if it was saved since this host was booted. */
  readonly tscGoesOn: boolean;
  /** Whether the state is a copy, from which another guest might go on as well. */
  readonly isCopy: boolean;
  /** Those who take what the old VMM has let go of; in a rehearsal it has not. */
  readonly claimants: readonly Claimant[];
  /** Whether a guest that ran shall run. */
  readonly mayRun: boolean;
  /** Whether the vCPUs' threads shall wake up with the state's arrival: each has a processor. */
  readonly wakesEarly: boolean;
}

/**
 * The new VMM's half: from the state's arrival to the guest's first instruction.
 *
 * @returns the state, and whether the guest runs
 * @throws {Error} if the state is not taken; then the guest is not this VMM's to run
 */
export function enter(entering: Entering): { readonly state: ReadVm; readonly runs: boolean } {
  const { ownership: { timeline }, channel, machine, reading } = entering;
  usage.begin();
  channel.awaitData();
  if (entering.wakesEarly) machine.makeReady();
  timeline.stamp("received");
  const state = readVm(machine, channel.source, reading, channel.ahead);
  timeline.stamp("checked");
  try {
    for (const claimant of entering.claimants) claimant.claim();
    take(entering, state);
  } catch (error) {
    // The old VMM needs it as soon as it hears of this.
    for (const claimant of entering.claimants) claimant.unclaim();
    throw error;
  }
  timeline.stamp("taken");
  const runs = state.wasRunning && entering.mayRun && !machine.isAsleep;
  // What vCPUs ran into as they rehearsed is not the guest's doing.
  machine.forgetEvents();
  if (runs) machine.resume();
  timeline.stamp("resumed");
  usage.end();
  timeline.noteUsage(usage);
  return { state, runs };
}

/** Loads the state, and makes the guest this VMM's. @throws {Error} if it is not */
function take({ ownership, machine, isCopy, tscGoesOn }: Entering, state: ReadVm): void {
  state.apply(tscGoesOn && state.sameBoot);
  if (isCopy) machine.startGeneration();
  ownership.timeline.stamp("loaded");
  if (!ownership.swap(Owner.HANDED_OVER, Owner.NEW)) {
    throw new Error("The old VMM has taken the guest back");
  }
}
