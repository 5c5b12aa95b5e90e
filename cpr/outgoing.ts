/**
 * The `migrate` command: checks the request, then drives the mode's steps.
 *
 * Until the mode's commit point every failure leaves the guest running here.
 *
 * @module
 */
import { deviceTypes } from "../devices/registry.ts";
import { ownArguments } from "../vmm/daemon.ts";
import { withChanges } from "../vmm/device_changes.ts";
import type { FdRegistry } from "../vmm/monitor/fd_registry.ts";
import { parseCommandLine } from "../vmm/options/command_line.ts";
import { placement, processorsOf, vcpuThreads } from "../vmm/threads/placement.ts";
import type { VirtualMachine } from "../vmm/virtual_machine.ts";
import type { MigrationAddress, MigrationChannel } from "./channel/address.ts";
import { checkNamed, openOutgoing } from "./channel/open.ts";
import { AnchorUpdate, whyNotAnchored } from "./modes/anchor.ts";
import { CopyUpdate } from "./modes/copy.ts";
import { Departure, type Update } from "./modes/departure.ts";
import { ExecUpdate } from "./modes/exec.ts";
import { Cancelled, type Migration } from "./migration/migration.ts";
import { awaitImages } from "./handover/images.ts";
import { Owner, Ownership } from "./handover/ownership.ts";
import { checkCprCapabilities, type MigrationMode } from "./migration/parameters.ts";
import { preflight } from "./modes/preflight.ts";
import { RelayUpdate, transferTo } from "./modes/relay.ts";
import type { RelayChannels } from "./modes/relay_link.ts";
import type { UpdateProcess } from "./migration/timeline.ts";
import { sendDescriptors, TransferUpdate } from "./modes/transfer.ts";

/** What goes on after `migrate` was answered. */
export type Continuation = () => Promise<void>;

/** Drives outgoing migrations of one VM. */
export class Outgoing {
  readonly #vm: VirtualMachine;
  readonly #migration: Migration;
  readonly #fds: FdRegistry;
  /** Who owns the guest, from the start of an update until the next. */
  #ownership: Ownership | undefined;

  /**
   * @param vm the VM
   * @param migration its migration state
   * @param fds the descriptors that `getfd` named
   */
  constructor(vm: VirtualMachine, migration: Migration, fds: FdRegistry) {
    this.#vm = vm;
    this.#migration = migration;
    this.#fds = fds;
    vm.guard = () => this.#whyNotRun();
  }

  /**
   * Begins a migration.
   *
   * @param channels where to; one of type main, and one of type cpr for cpr-transfer
   * @returns what is left to do after the command was answered
   * @throws {Error} in QEMU's words; the guest runs on
   */
  async begin(channels: readonly MigrationChannel[]): Promise<Continuation> {
    const { mode } = this.#migration.parameters;
    this.#checkState();
    const main = mainOf(channels);
    const cpr = channels.find((channel) => channel["channel-type"] === "cpr")?.addr;
    this.#checkRequest(mode, main, cpr);
    return await this.#begin("old", (departure) => chooseUpdate(departure, mode, main, cpr));
  }

  /**
   * Moves the guest to the process that asked for it on a relay's link.
   *
   * @returns whether that worked; if not, the guest goes on here
   */
  async giveTo(channels: RelayChannels): Promise<boolean> {
    const { timeline } = this.#migration;
    const goOn = await this.#begin("helper", (departure) => {
      if (timeline) departure.ownership.timeline.continue(timeline, "new", "helper");
      leaveToGuest(this.#vm);
      return Promise.resolve(transferTo(departure, channels, { announced: true }));
    });
    await goOn();
    return this.#migration.status === "completed";
  }

  async #begin(
    process: UpdateProcess,
    choose: (departure: Departure) => Promise<Update>,
  ): Promise<Continuation> {
    this.#migration.begin("outgoing");
    const ownership = this.#newPage(process);
    // The page before is looked at until the new one is in place everywhere: it is unmapped last.
    using _before = this.#ownership;
    this.#ownership = ownership;
    const departure = new Departure(this.#vm, this.#migration, this.#fds, ownership);
    this.#migration.timeline = ownership.timeline;
    let update: Update | undefined;
    try {
      update = await choose(departure);
      ownership.timeline.stamp("begin");
      await update.prepare();
      this.#migration.cancelSignal.throwIfAborted();
      if (update.stopsFirst) departure.stop();
    } catch (error) {
      await this.#failed(update, departure, error);
      throw error;
    }
    const chosen = update;
    return async () => {
      try {
        await chosen.run();
        chosen[Symbol.dispose]();
        placement.restore();
      } catch (error) {
        await this.#failed(chosen, departure, error);
      }
    };
  }

  /** @throws {Error} if there is none to be had; the page before stays */
  #newPage(process: UpdateProcess): Ownership {
    try {
      return Ownership.create(process);
    } catch (error) {
      this.#migration.timeline = undefined;
      this.#migration.fail(error);
      throw error;
    }
  }

  async #failed(update: Update | undefined, departure: Departure, error: unknown): Promise<void> {
    const ours = update?.takeBack() ?? true;
    update?.[Symbol.dispose]();
    placement.restore();
    if (!ours) return departure.handedOver();
    const lack = await awaitImages(this.#vm, error);
    if (lack) return this.#migration.fail(lack, () => departure.standStill());
    const resume = () => departure.resume();
    if (error instanceof Cancelled) this.#migration.cancelled(resume);
    else this.#migration.fail(error, resume);
  }

  /** Why nobody but this migration may let the guest run or reset it, if so. */
  #whyNotRun(): string | undefined {
    if (this.#ownership && this.#ownership.owner !== Owner.OLD) {
      return "The guest has moved to another VMM and runs there; it cannot run here again";
    }
    const { runState, pidfile, blocks, netdevs, vhostUsers } = this.#vm;
    if (runState === "finish-migrate") return "Migration is not finalized yet";
    if (runState === "postmigrate" && pidfile && !pidfile.hold()) {
      return "Another VMM has the pidfile of this one, and perhaps its guest: end it first";
    }
    const lack = blocks.whyNotHeld();
    if (runState === "postmigrate" && lack !== undefined) {
      return "Another process has a disk image of this VMM's, and perhaps its guest: end it first";
    }
    if (runState === "postmigrate" && !netdevs.takeBack()) {
      return "Another process has a network backend of this VMM's, and perhaps its guest: end it first";
    }
    if (runState === "postmigrate") vhostUsers.takeBack();
    return lack;
  }

  #checkState(): void {
    if (this.#migration.inProgress) throw new Error("There's a migration process in progress");
    if (this.#vm.runState === "inmigrate") {
      throw new Error("Guest is waiting for an incoming migration");
    }
    if (this.#vm.runState === "postmigrate") {
      throw new Error("Can't migrate the vm that was paused due to previous migration");
    }
  }

  #checkRequest(
    mode: MigrationMode,
    main: MigrationAddress,
    cpr: MigrationAddress | undefined,
  ): void {
    if (main.transport === "exec") this.#checkSpawn("exec:");
    if (mode !== "normal") checkCprCapabilities(this.#migration.capabilities);
    if (mode === "cpr-transfer") {
      if (!cpr) throw new Error("missing 'cpr' migration channel");
      checkStreamable(main);
      this.#checkShared();
    }
    if (mode === "cpr-exec") {
      if (this.#migration.parameters["cpr-exec-command"].length === 0) {
        throw new Error("cpr-exec mode requires setting cpr-exec-command");
      }
      this.#checkSpawn("cpr-exec");
      this.#checkShared();
    }
  }

  /** `-sandbox on,spawn=deny` forbids this VMM to start other programs. */
  #checkSpawn(what: string): void {
    const { enabled, spawn } = this.#vm.config.sandbox;
    if (enabled && !spawn) {
      throw new Error(`Cannot use ${what} under -sandbox on,spawn=deny: start without spawn=deny`);
    }
  }

  #checkShared(): void {
    for (const reason of blockersOf(this.#vm)) throw new Error(reason);
  }
}

/** The guest runs on while the update is prepared: its processors are its own meanwhile. */
function leaveToGuest(vm: VirtualMachine): void {
  const vcpus = vcpuThreads(vm);
  placement.keepOff(processorsOf(vcpus), vcpus);
}

function chooseUpdate(
  departure: Departure,
  mode: MigrationMode,
  main: MigrationAddress,
  cpr: MigrationAddress | undefined,
): Promise<Update> {
  const { vm, fds, ownership } = departure;
  switch (mode) {
    case "cpr-transfer":
      leaveToGuest(vm);
      return Promise.resolve(
        new TransferUpdate(departure, {
          cpr: () => {
            checkNamed(main, fds);
            return sendDescriptors(vm, cpr!, ownership);
          },
          main: () => openOutgoing(main, fds, departure.waiting),
        }),
      );
    case "cpr-exec":
      leaveToGuest(vm);
      return chooseExec(departure, main);
    default:
      return Promise.resolve(new CopyUpdate(departure, main));
  }
}

const NOT_WITH_WAIT = "it does not go with pause-before-switchover";

/**
 * A helper and the way back of an exec are made by this VM's own options, and by what was plugged in; what
 * came over the monitor beside that is in no option.
 *
 * @throws {Error} if they would not make a VM that takes the guest
 */
function checkOwnOptions({ hotplug: { changes } }: VirtualMachine): void {
  if (changes.plugged.length === 0) return;
  try {
    parseCommandLine(withChanges(ownArguments(), changes), deviceTypes);
  } catch (error) {
    throw new Error(
      `This VMM's own options do not make the guest's machine (${(error as Error).message}): ` +
        "device_del what has a backend that was added over the monitor, or use cpr-transfer",
    );
  }
}

/** cpr-exec goes by way of a helper unless that cannot be done, or the user does not want it. */
async function chooseExec(departure: Departure, main: MigrationAddress): Promise<Update> {
  const { vm, migration: { parameters, capabilities }, waiting: { abort } } = departure;
  const { "cpr-exec-command": command, "x-cpr-exec-relay": relay } = parameters;
  checkOwnOptions(vm);
  const waits = capabilities.has("pause-before-switchover");
  // A guest that does not run has nothing to do meanwhile: it goes directly.
  const isAnchored = relay === "anchor" && vm.running;
  const refusal = isAnchored ? waits ? NOT_WITH_WAIT : whyNotAnchored(vm) : undefined;
  if (refusal !== undefined) {
    throw new Error(`Cannot use x-cpr-exec-relay=anchor: ${refusal}`);
  }
  const knowsRelay = await preflight(vm, command, abort, isAnchored);
  const direct = () => new ExecUpdate(departure, command, main);
  if (isAnchored) return new AnchorUpdate(departure, command, main);
  if (relay === "off" || relay === "anchor") return direct();
  const obstacle = waits
    ? NOT_WITH_WAIT
    : knowsRelay
    ? undefined
    : `${command[0]} does not know it`;
  try {
    if (obstacle !== undefined) throw new Error(`Cannot use x-cpr-exec-relay: ${obstacle}`);
    return await RelayUpdate.begin(departure, command, main);
  } catch (error) {
    if (relay === "on" || abort.aborted) throw error;
    return direct();
  }
}

/** Why a successor would not find things as they are here. */
export function blockersOf(vm: VirtualMachine): string[] {
  return vm.keepers.flatMap((keeper) => keeper.blockers?.() ?? []);
}

function mainOf(channels: readonly MigrationChannel[]): MigrationAddress {
  const mains = channels.filter((channel) => channel["channel-type"] === "main");
  if (mains.length > 1) throw new Error("Channel list has more than one main entry");
  if (mains.length === 0) throw new Error("Channel list has no main entry");
  return mains[0].addr;
}

/** In cpr-transfer both VMMs are alive: the data must stream from one to the other. */
function checkStreamable(main: MigrationAddress): void {
  const port0 = main.transport === "socket" && main.type === "inet" && main.port === "0";
  if (main.transport !== "socket" || port0) {
    throw new Error("Migration requires streamable transport (eg unix)");
  }
}
