/**
 * Taking a guest over: from a channel on which its state comes to its first instruction here, and
 * what is left to do then.
 *
 * @module
 */
import { monotonicNow } from "../../ffi/event.ts";
import { CLOSE_LATER_MS } from "../../vmm/machine/old_vm.ts";
import { prefault, prefaultGuest } from "../../vmm/machine/prefault.ts";
import { placement, vcpuThreads } from "../../vmm/threads/placement.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import type { Channel } from "../channel/channel.ts";
import type { Migration } from "../migration/migration.ts";
import { enter, type Entering } from "../pause/pause.ts";
import { EnteringRehearsal } from "../pause/rehearsal.ts";
import { checkConstants, constantSections } from "../state/machine_state.ts";
import { SectionTable } from "../state/section_table.ts";
import type { ReadVm } from "../state/vm_state.ts";
import { bufferSource, readSections } from "../stream/stream.ts";
import { unanchor, type Unanchored } from "../pause/anchored.ts";
import { type AnchoredGuest, devicesStream } from "./anchored_guest.ts";
import { Answer, answerDone, refuse } from "./answer.ts";
import { Owner, type Ownership } from "./ownership.ts";

/** Milliseconds for which RAM is mapped, here and in the accelerator, before the guest comes. */
const PREFAULT_LIMIT_MS = 500;

/** Takes the guest of one incoming migration. */
export class Taking {
  /** The pause end to end, nanoseconds; known once all vCPUs run here. */
  pauseNs: number | undefined;
  readonly #vm: VirtualMachine;
  readonly #migration: Migration;
  readonly #ownership: Ownership;
  readonly #isCopy: boolean;
  #rehearsal: EnteringRehearsal | undefined;
  /** When the guest might come, nanoseconds of CLOCK_MONOTONIC. */
  #readyNs = 0;

  /**
   * @param vm a VM in run state inmigrate
   * @param migration its migration state
   * @param ownership who owns the guest, and the update's timeline
   * @param isCopy whether the state is a copy, from which another guest might go on as well
   */
  constructor(vm: VirtualMachine, migration: Migration, ownership: Ownership, isCopy: boolean) {
    this.#isCopy = isCopy;
    this.#vm = vm;
    this.#migration = migration;
    this.#ownership = ownership;
  }

  /** Does everything that can be done before an old VMM beside this one stops the guest. */
  async rehearse(): Promise<void> {
    const { machine } = this.#vm;
    await machine.threadsStarted();
    prefault(machine.memory.ram, PREFAULT_LIMIT_MS);
    this.#rehearsal ??= new EnteringRehearsal(this.#vm);
    this.#rehearsal.begin();
    // The rehearsal takes a memory slot away.
    prefaultGuest(machine.memory, machine.hardware.vm, PREFAULT_LIMIT_MS);
    this.#ownership.timeline.stamp("rehearsed");
  }

  /** Takes the state that lies ready in a channel. @throws {Error} if it is not taken */
  fromFile(channel: Channel): ReadVm {
    return this.#enter(this.#entering(channel, false));
  }

  /**
   * Agrees with the old VMM on what stays the same, then takes the rest, and answers.
   *
   * @throws {Error} if the guest is not taken; the old VMM has been told why
   */
  fromPeer(channel: Channel): ReadVm {
    const { timeline } = this.#ownership;
    let state: ReadVm;
    try {
      const table = new SectionTable(readSections(channel.source));
      checkConstants(this.#vm.machine, table);
      table.checkEmpty();
      timeline.stamp("machine-agreed");
      placement.admit(vcpuThreads(this.#vm));
      const entering = this.#entering(channel, true);
      this.#rehearsal?.finish();
      channel.sink(Uint8Array.of(Answer.READY));
      state = this.#enter(entering);
    } catch (error) {
      refuse(channel, error as Error);
      throw error;
    }
    answerDone(channel);
    timeline.stamp("answered");
    return state;
  }

  /**
   * Takes the guest out of the anchor that has run it while this program came up.
   *
   * @throws {Error} if the guest is not taken; it goes on in the anchor, with the devices' state as
   *   `guest.state` has it
   */
  fromAnchor(guest: AnchoredGuest): Unanchored {
    const { machine, keepers } = this.#vm;
    const { timeline } = this.#ownership;
    const table = new SectionTable(readSections(bufferSource(guest.state)));
    checkConstants(machine, table);
    const { hardware, server, image } = guest.connect(machine);
    const { devices } = image.machine;
    devices.fill(table.takeLike(devices.sections), table);
    table.checkEmpty();
    timeline.stamp("machine-agreed");
    placement.admit(vcpuThreads(this.#vm));
    this.#rehearsal?.finish();
    // The rehearsal has used the devices.
    devices.apply();
    let served = false;
    try {
      this.#readyNs = monotonicNow();
      const taken = unanchor({
        ownership: this.#ownership,
        hardware,
        server,
        machine,
        image,
        target: this.#rehearsal!.target,
        keepers,
        mayRun: this.#vm.startsOnArrival,
        wakesEarly: placement.tied,
        onServing: () => served = true,
      });
      this.#arrived(taken.runs, true);
      return taken;
    } catch (error) {
      if (this.#ownership.owner !== Owner.HANDED_OVER) throw error;
      machine.park();
      if (served) {
        devices.save();
        guest.state = devicesStream(constantSections(machine), devices);
      }
      hardware.resume();
      throw error;
    }
  }

  /** @param agreed whether the constant sections have been compared before */
  #entering(channel: Channel, agreed: boolean): Entering {
    const vm = this.#vm;
    return {
      ownership: this.#ownership,
      channel,
      machine: vm.machine,
      reading: {
        agreed,
        keepers: vm.keepers,
        ignoreShared: this.#migration.capabilities.has("x-ignore-shared"),
        target: this.#rehearsal?.target,
      },
      tscGoesOn: !vm.config.machine.xPauseClock,
      isCopy: this.#isCopy,
      claimants: vm.blocks.waits ? [vm.blocks] : [],
      mayRun: vm.startsOnArrival,
      wakesEarly: placement.tied,
    };
  }

  #enter(entering: Entering): ReadVm {
    // Behind the last rehearsal, in which the vCPUs' threads came by as well.
    this.#readyNs = monotonicNow();
    const { state, runs } = enter(entering);
    this.#arrived(runs, state.wasRunning);
    return state;
  }

  #arrived(runs: boolean, wasRunning: boolean): void {
    if (runs) this.#vm.resumed();
    else if (wasRunning && this.#vm.startsOnArrival) this.#vm.sleepOn();
    else this.#vm.setRunState("paused");
  }

  /** Has something done when the guest has been here for a while: what takes long. */
  afterwards(action: () => void): void {
    setTimeout(action, CLOSE_LATER_MS);
  }

  /** What is done once the guest is here, and need not be done within the pause. */
  settle(stoppedNs: number): void {
    const { epoch } = placement;
    this.afterwards(() => {
      // First: to close a VM takes as long as the host's own threads are kept waiting.
      placement.restore(vcpuThreads(this.#vm), epoch);
      this.#rehearsal?.[Symbol.dispose]();
    });
    if (this.#vm.running) {
      this.#noteEntries(stoppedNs).catch((error: Error) => this.#vm.notice(error.message));
    }
  }

  /** Adds to the timeline when the vCPUs went on, as soon as they have. */
  async #noteEntries(stoppedNs: number): Promise<void> {
    let last = 0;
    for (const { index, control } of this.#vm.machine.vcpus) {
      while (control.enteredNs < this.#readyNs) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        if (!this.#vm.running) return;
      }
      this.#ownership.timeline.stamp("entered", control.enteredNs, index);
      last = Math.max(last, control.enteredNs);
    }
    this.pauseNs = last - stoppedNs;
    this.#migration.writeTrace();
  }
}
