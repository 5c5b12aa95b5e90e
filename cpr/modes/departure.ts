/**
 * What the modes of an update have in common on the old VMM's side.
 *
 * @module
 */
import { monotonicNow } from "../../ffi/event.ts";
import type { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import type { RunState } from "../../vmm/run_state.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import type { Waiting } from "../channel/open.ts";
import { constantSections } from "../state/machine_state.ts";
import type { Migration } from "../migration/migration.ts";
import { checkUndecided } from "../pause/pause.ts";
import type { Ownership } from "../handover/ownership.ts";
import type { Section } from "../stream/stream.ts";
import type { GuestRun } from "../state/vm_state.ts";

/** One update on its way, in one of the modes. */
export interface Update extends Disposable {
  /** Whether the guest stops before `migrate` is answered, as it does in QEMU. */
  readonly stopsFirst: boolean;
  /** What `migrate` itself can report if it fails. The guest runs on. */
  prepare(): Promise<void>;
  /** Everything else, with the pause at its end. */
  run(): Promise<void>;
  /** After a failure: whether the guest is still, or again, this VMM's; it may lack its images. */
  takeBack(): boolean;
}

/** What the modes need of the VM whose guest they take away. */
export class Departure {
  /** What the guest did when it was stopped. */
  guest: GuestRun = { wasRunning: false, stoppedNs: 0 };
  /** The VM's state when it was stopped: one that needs a reset is no better afterwards. */
  #stateBefore: RunState = "paused";

  /**
   * @param vm the VM
   * @param migration its migration state
   * @param fds the descriptors that `getfd` named
   * @param ownership who owns the guest, and the update's timeline
   */
  constructor(
    readonly vm: VirtualMachine,
    readonly migration: Migration,
    readonly fds: FdRegistry,
    readonly ownership: Ownership,
  ) {}

  /** Waits for what is outside end with the migration, if it is cancelled, or with the VM. */
  get waiting(): Waiting {
    const { reactor, ending } = this.vm;
    return { reactor, abort: AbortSignal.any([this.migration.cancelSignal, ending]) };
  }

  /** The sections that a successor must agree with. */
  constants(): Section[] {
    const withUuid = this.migration.capabilities.has("validate-uuid");
    return constantSections(this.vm.machine, withUuid);
  }

  /** Stops the guest, unless that was done. @throws {Error} if it must not leave now */
  stop(): GuestRun {
    if (this.vm.runState === "finish-migrate") return this.guest;
    const { runState, running } = this.vm;
    const wasRunning = running || runState === "suspended";
    const guest = { wasRunning, stoppedNs: monotonicNow() };
    this.ownership.timeline.stamp("stop", guest.stoppedNs);
    this.noteStop(guest);
    checkUndecided(this.vm.machine.threads);
    return guest;
  }

  /** Does and says what there is to do and to say when the guest stops, unless that was done. */
  noteStop(guest: GuestRun): void {
    const { vm } = this;
    if (vm.runState === "finish-migrate") return;
    this.guest = guest;
    const agoNs = monotonicNow() - guest.stoppedNs;
    this.#stateBefore = vm.runState;
    if (vm.running) vm.pause("finish-migrate", agoNs);
    else vm.setRunState("finish-migrate");
    this.migration.times.stopped = performance.now() - agoNs / 1e6;
  }

  /** With the capability `pause-before-switchover`, stops the guest and waits for `migrate-continue`. */
  async beforeSwitchover(): Promise<void> {
    const { migration } = this;
    if (!migration.capabilities.has("pause-before-switchover")) return;
    this.stop();
    migration.activate();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const cancelled = () => reject(migration.cancelSignal.reason);
    migration.cancelSignal.addEventListener("abort", cancelled);
    migration.continueHook = resolve;
    migration.status = "pre-switchover";
    await promise;
    migration.cancelSignal.removeEventListener("abort", cancelled);
    migration.continueHook = undefined;
  }

  /** The successor owns the guest: this VMM can never run it again. */
  handedOver(): void {
    this.vm.setRunState("postmigrate");
    this.vm.chardevs.releaseKept();
    this.vm.netdevs.releaseKept();
    this.vm.vhostUsers.close();
    this.migration.complete();
    this.writeTrace();
  }

  /** Writes the trace that the user may want; if that cannot be done, the update is done all the same. */
  writeTrace(): void {
    try {
      this.migration.writeTrace();
    } catch (error) {
      this.vm.notice((error as Error).message);
    }
  }

  /** Lets the guest go on here, if it ran when it was stopped. */
  resume(): void {
    this.#stay(() => this.vm.resume());
  }

  /** The guest stays here, but lacks an image: it stands still until `cont` finds that there. */
  standStill(): void {
    this.#stay(() => {
      if (!this.vm.config.machine.xPauseClock) this.vm.machine.hardware.freezeClock();
      this.vm.setRunState("paused");
    });
  }

  #stay(goOn: () => void): void {
    const { vm, guest } = this;
    vm.chardevs.hold("nothing");
    vm.netdevs.hold(false);
    vm.vhostUsers.hold(false);
    if (vm.runState !== "finish-migrate") return;
    if (guest.wasRunning) goOn();
    else vm.setRunState(this.#stateBefore);
  }
}
