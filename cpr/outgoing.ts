/**
 * The `migrate` command: checks the request, then drives the mode's steps.
 *
 * Until the mode's commit point every failure leaves the guest running here.
 *
 * @module
 */
import { monotonicNs } from "../ffi/event.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import type { FdRegistry } from "../vmm/monitor/fd_registry.ts";
import type { VirtualMachine } from "../vmm/virtual_machine.ts";
import type { MigrationAddress, MigrationChannel } from "./address.ts";
import { type Channel, openOutgoing, opensAtOnce } from "./channel.ts";
import { ExecHandover } from "./exec.ts";
import type { Migration } from "./migration.ts";
import { Owner, Ownership } from "./ownership.ts";
import { checkCprCapabilities, type MigrationMode } from "./parameters.ts";
import { preflight } from "./preflight.ts";
import { rehearse } from "./rehearsal.ts";
import { SectionWriter } from "./stream.ts";
import {
  Answer,
  awaitInput,
  handOver,
  PEER_LIMIT_MS,
  readAnswer,
  sendDescriptors,
} from "./transfer.ts";
import { copySections, type GuestRun } from "./vm_state.ts";

/** What goes on after `migrate` was answered. */
export type Continuation = () => Promise<void>;

class Cancelled extends Error {}

/** Drives outgoing migrations of one VM. */
export class Outgoing {
  readonly #vm: VirtualMachine;
  readonly #migration: Migration;
  readonly #fds: FdRegistry;
  #guest: GuestRun = { wasRunning: false, stoppedNs: 0n };
  /** Who owns the guest, from the first descriptor that is sent until a transfer has failed. */
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
    this.#migration.begin("outgoing");
    try {
      return await this.#prepare(mode, main, cpr);
    } catch (error) {
      this.#migration.fail(error);
      throw error;
    }
  }

  async #prepare(
    mode: MigrationMode,
    main: MigrationAddress,
    cpr: MigrationAddress | undefined,
  ): Promise<Continuation> {
    if (mode === "cpr-transfer") return this.#prepareTransfer(main, cpr!);
    if (mode === "cpr-exec") {
      await preflight(this.#vm, this.#migration.parameters["cpr-exec-command"]);
      return this.#prepareExec(await openOutgoing(main, this.#fds));
    }
    if (!opensAtOnce(main)) {
      return () =>
        this.#guarded(async () => this.#stopAndCopy(await openOutgoing(main, this.#fds)));
    }
    const channel = await openOutgoing(main, this.#fds);
    this.#pause();
    return () => this.#guarded(() => Promise.resolve(this.#stopAndCopy(channel)));
  }

  #prepareExec(channel: Channel): Continuation {
    const handover = new ExecHandover(this.#vm, this.#migration.parameters["cpr-exec-command"]);
    this.#pause();
    return () =>
      this.#guarded(() => {
        using _handover = handover;
        using _channel = channel;
        return Promise.resolve(handover.run(this.#migration, channel, this.#guest));
      });
  }

  /** Stop-and-copy: cpr-reboot, and what QEMU's normal mode comes to without live copying. */
  #stopAndCopy(channel: Channel): void {
    using _channel = channel;
    const migration = this.#migration;
    this.#pause();
    migration.transferBegins();
    migration.ram = { total: 0, duplicate: 0, normal: 0 };
    const writer = new SectionWriter((data) => {
      channel.sink(data);
      migration.transferred += data.length;
    });
    const { machine } = this.#vm;
    const ignoreShared = migration.capabilities.has("x-ignore-shared");
    for (const section of copySections(machine, this.#guest, migration.ram, ignoreShared)) {
      writer.write(section);
    }
    writer.end();
    channel.finish();
    this.#vm.setRunState("postmigrate");
    migration.complete();
  }

  #prepareTransfer(main: MigrationAddress, cpr: MigrationAddress): Continuation {
    if (cpr.transport !== "socket" || cpr.type !== "unix") {
      throw new Error("bad cpr channel address; must be unix");
    }
    const ownership = this.#ownership = Ownership.create();
    let socket: OwnedFd;
    try {
      socket = sendDescriptors(this.#vm, cpr.path, ownership);
    } catch (error) {
      this.#forgetOwnership();
      throw error;
    }
    const cancel = new AbortController();
    this.#migration.cancelHook = () => cancel.abort(new Cancelled("Migration was cancelled"));
    return () => this.#transfer(main, socket, ownership, cancel.signal);
  }

  async #transfer(
    main: MigrationAddress,
    socket: OwnedFd,
    ownership: Ownership,
    cancel: AbortSignal,
  ): Promise<void> {
    const { reactor } = this.#vm;
    let channel: Channel | undefined;
    try {
      // With `-incoming defer` a person may type for hours before the successor listens.
      await awaitInput(reactor, socket.fd, cancel);
      await this.#beforeSwitchover(cancel);
      rehearse(this.#vm.machine);
      channel = await openOutgoing(main, this.#fds);
      const limit = AbortSignal.any([cancel, AbortSignal.timeout(PEER_LIMIT_MS)]);
      await awaitInput(reactor, channel.fd.fd, limit);
      readAnswer(channel, Answer.READY);
      this.#migration.cancelHook = undefined;
      // A person may have stopped the guest, or let it run, since `migrate`.
      this.#guest = { wasRunning: this.#vm.running, stoppedNs: monotonicNs() };
      handOver(this.#vm, this.#migration, channel, ownership);
      await awaitInput(reactor, channel.fd.fd, AbortSignal.timeout(PEER_LIMIT_MS));
      readAnswer(channel, Answer.DONE);
      if (ownership.owner !== Owner.NEW) throw new Error("The new VMM did not take the guest");
      this.#handedOver();
    } catch (error) {
      const lost = ownership.owner !== Owner.OLD && !ownership.swap(Owner.HANDED_OVER, Owner.OLD);
      if (lost) return this.#handedOver();
      this.#forgetOwnership();
      if (error instanceof Cancelled) this.#migration.cancelled();
      else this.#migration.fail(error, () => this.#resume());
    } finally {
      socket.close();
      channel?.[Symbol.dispose]();
    }
  }

  /** The successor owns the guest: this VMM can never run it again. */
  #handedOver(): void {
    this.#vm.setRunState("postmigrate");
    this.#vm.releaseChardevs();
    this.#migration.complete();
  }

  /** Waits for `migrate-continue` if the capability says so. */
  async #beforeSwitchover(cancel: AbortSignal): Promise<void> {
    if (!this.#migration.capabilities.has("pause-before-switchover")) return;
    this.#migration.status = "active";
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#migration.continueHook = resolve;
    cancel.addEventListener("abort", () => reject(cancel.reason));
    this.#migration.status = "pre-switchover";
    await promise;
    this.#migration.continueHook = undefined;
  }

  #forgetOwnership(): void {
    this.#ownership?.close();
    this.#ownership = undefined;
  }

  /** Why nobody but this migration may let the guest run or reset it, if so. */
  #whyNotRun(): string | undefined {
    if (this.#ownership && this.#ownership.owner !== Owner.OLD) {
      return "The guest has moved to another VMM and runs there; it cannot run here again";
    }
    return this.#vm.runState === "finish-migrate" ? "Migration is not finalized yet" : undefined;
  }

  /** Stops the guest, unless this migration has done so. */
  #pause(): void {
    if (this.#vm.runState === "finish-migrate") return;
    this.#guest = { wasRunning: this.#vm.running, stoppedNs: monotonicNs() };
    this.#migration.times.stopped = performance.now();
    if (this.#vm.running) this.#vm.pause("finish-migrate");
    else this.#vm.setRunState("finish-migrate");
  }

  #resume(): void {
    if (this.#vm.runState !== "finish-migrate") return;
    if (this.#guest.wasRunning) this.#vm.resume();
    else this.#vm.setRunState("paused");
  }

  async #guarded(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.#migration.fail(error, () => this.#resume());
    }
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

  /** `-sandbox on,spawn=deny` forbids this VMM to start other programs. */
  #checkSpawn(what: string): void {
    const { enabled, spawn } = this.#vm.config.sandbox;
    if (enabled && !spawn) {
      throw new Error(`Cannot use ${what} under -sandbox on,spawn=deny: start without spawn=deny`);
    }
  }

  #checkShared(): void {
    for (const reason of sharingBlockers(this.#vm)) throw new Error(reason);
  }
}

/** RAM that a successor cannot map would read as zeros there: the reasons, in QEMU's words. */
export function sharingBlockers(vm: VirtualMachine): string[] {
  return [...vm.backends].filter(([, { fd, config }]) => !fd || !config.share).map(([id]) =>
    `Memory region ${id} is not compatible with CPR. share=on is required for memory-backend` +
    " objects, and aux-ram-share=on is required."
  );
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
