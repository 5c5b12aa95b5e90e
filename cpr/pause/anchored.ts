/**
 * The second pause of an anchored cpr-exec: from the guest's last instruction in the anchor to its first
 * in the new VMM. The state is read from where the guest was, through the anchor, and nobody else is
 * there to be asked or told.
 *
 * @module
 */
import { monotonicNow } from "../../ffi/event.ts";
import { ThreadUsage } from "../../ffi/usage.ts";
import type { AnchoredHardware } from "../../vmm/accel/kvm/anchored.ts";
import type { Keeper } from "../../vmm/inheritance.ts";
import type { Machine } from "../../vmm/machine/machine.ts";
import type { ExitServer } from "../../vmm/threads/exit_server.ts";
import { Owner, type Ownership } from "../handover/ownership.ts";
import { SectionTable } from "../state/section_table.ts";
import type { VmImage } from "../state/vm_state.ts";

const usage = new ThreadUsage();

/** What the pause works with. */
export interface Unanchoring {
  readonly ownership: Ownership;
  readonly hardware: AnchoredHardware;
  /** Serves the exits that wait, on the machine's devices. */
  readonly server: ExitServer;
  readonly machine: Machine;
  /** The machine's devices with the anchor's hardware. */
  readonly image: VmImage;
  /** Takes the state. */
  readonly target: VmImage;
  readonly keepers: readonly Keeper[];
  /** Whether a guest that ran shall run. */
  readonly mayRun: boolean;
  /** Whether the vCPUs' threads shall wake up meanwhile: each has a processor. */
  readonly wakesEarly: boolean;
  /** Called when the devices are about to be changed: there is no way back to how they were. */
  readonly onServing: () => void;
}

/** A guest that has been taken. */
export interface Unanchored {
  readonly stoppedNs: number;
  readonly runs: boolean;
  /** What there is to do when the guest is here. */
  readonly takeOver: () => void;
}

/**
 * Takes a guest out of an anchor.
 *
 * @throws {Error} if it is not taken; it stands still then
 */
export function unanchor(work: Unanchoring): Unanchored {
  const { ownership, hardware, machine, image, target } = work;
  const { timeline } = ownership;
  usage.begin();
  const stoppedNs = monotonicNow();
  timeline.stamp("stop", stoppedNs);
  hardware.stop();
  if (work.wakesEarly) machine.makeReady();
  timeline.stamp("received");
  // What vCPUs ran into as they rehearsed is not the guest's doing; what they exit with is.
  machine.forgetEvents();
  serveWaiting(work);
  hardware.readAhead();
  const saved = image.save({ wasRunning: true, stoppedNs });
  timeline.stamp("checked");
  const { length } = image.sections;
  const rest = new SectionTable(saved.slice(length));
  target.fill(saved.slice(0, length), rest);
  rest.checkEmpty();
  const takeOvers = work.keepers.map((keeper) => keeper.arrive?.([]));
  target.machine.apply(true);
  timeline.stamp("loaded");
  if (!ownership.swap(Owner.HANDED_OVER, Owner.NEW)) {
    throw new Error("The guest is not in the anchor any more");
  }
  timeline.stamp("taken");
  const runs = work.mayRun && !machine.isAsleep;
  // A vCPU that somebody has to decide on first runs no guest code until it is done.
  if (runs) machine.resume(new Set(machine.vcpus.filter(({ control }) => control.hasEvent)));
  timeline.stamp("resumed");
  usage.end();
  timeline.noteUsage(usage);
  return { stoppedNs, runs, takeOver: () => takeOvers.forEach((takeOver) => takeOver?.()) };
}

function serveWaiting({ hardware, server, onServing }: Unanchoring): void {
  const { waiting } = hardware;
  if (waiting.length === 0) return;
  onServing();
  for (const vcpu of waiting) vcpu.finish(() => server.serve(vcpu.index, vcpu.run));
}
