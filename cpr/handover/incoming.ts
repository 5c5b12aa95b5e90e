/**
 * The successor's side: taking over the guest's state, after the descriptors (`receive.ts`) and the
 * machine that was built from them.
 *
 * @module
 */
import { accept, localAddress } from "../../ffi/socket.ts";
import { monotonicNow } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import { prefault } from "../../vmm/machine/guest_memory.ts";
import type { Inheritance } from "../../vmm/inheritance.ts";
import { CLOSE_LATER_MS } from "../../vmm/machine/old_vm.ts";
import { placement, vcpuThreads } from "../../vmm/threads/placement.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import type { MigrationAddress } from "../channel/address.ts";
import { Channel } from "../channel/channel.ts";
import { type IncomingEnd, openIncoming } from "../channel/open.ts";
import { checkConstants } from "../state/machine_state.ts";
import type { Migration } from "../migration/migration.ts";
import { Owner, Ownership } from "./ownership.ts";
import { nameOf } from "./receive.ts";
import { enter, type Entering } from "../pause/pause.ts";
import { EnteringRehearsal } from "../pause/rehearsal.ts";
import { SectionTable } from "../state/section_table.ts";
import { bufferSource, readSections } from "../stream/stream.ts";
import type { Step } from "../migration/timeline.ts";
import { Answer, awaitInput } from "../modes/transfer.ts";
import { type ReadVm, readVm } from "../state/vm_state.ts";

/** Milliseconds for which RAM is mapped before the guest comes. */
const PREFAULT_LIMIT_MS = 500;

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
  /** When this process began, where that is part of the update. */
  readonly begun?: Begun;
  /** Called when the guest has arrived: there is no way back from there. */
  readonly onArrival?: (vm: VirtualMachine) => void;
}

/** How an incoming migration ended. */
export type IncomingResult = { readonly ok: true } | { readonly ok: false; readonly error: Error };

/** Drives the incoming migration of one VM. */
export class Incoming {
  readonly #vm: VirtualMachine;
  readonly #migration: Migration;
  readonly #fds: FdRegistry;
  readonly #ownership: Ownership;
  /** Whether the old VMM lives beside this one, and waits for answers. */
  readonly #beside: boolean;
  /** The pause end to end, nanoseconds; known once all vCPUs run here. */
  pauseNs: number | undefined;
  #connection: OwnedFd | undefined;
  #rehearsal: EnteringRehearsal | undefined;
  #started = false;
  /** When the guest might come, nanoseconds of CLOCK_MONOTONIC. */
  #readyNs = 0;
  #main: OwnedFd | undefined;
  readonly #onArrival: ((vm: VirtualMachine) => void) | undefined;

  /**
   * @param vm a VM in run state inmigrate
   * @param migration its migration state
   * @param fds the descriptors that `getfd` named
   * @param received what came over the cpr channel or over exec
   */
  constructor(
    vm: VirtualMachine,
    migration: Migration,
    fds: FdRegistry,
    received?: Received,
  ) {
    this.#onArrival = received?.onArrival;
    this.#main = received?.main;
    this.#vm = vm;
    this.#migration = migration;
    this.#fds = fds;
    this.#beside = received?.connection !== undefined;
    // From a file, without a predecessor that could come back, the guest is there for the taking.
    this.#ownership = received
      ? takePage(received.inheritance)
      : Ownership.create("new", Owner.HANDED_OVER);
    this.#connection = received?.connection;
    migration.timeline = this.#ownership.timeline;
    if (received?.begun) {
      this.#ownership.timeline.stamp("runtime-started", received.begun.runtimeNs);
      this.#ownership.timeline.stamp("program-started", received.begun.programNs);
    }
    this.#stamp("machine-built");
  }

  /**
   * Starts to listen, or opens the file.
   *
   * @param address where; of no consequence if the main channel is connected already
   * @returns the migration's end, however long it takes
   * @throws {Error} if the channel cannot be opened; it may be tried again
   */
  async start(address: MigrationAddress | undefined): Promise<() => Promise<IncomingResult>> {
    if (this.#started || this.#vm.runState !== "inmigrate") {
      throw new Error("The incoming migration has already been started");
    }
    this.#migration.begin("incoming");
    const end = await this.#open(address);
    this.#started = true;
    this.#migration.socketAddress = end.kind === "listener" ? inetAddress(end.listener) : undefined;
    if (this.#beside) {
      await this.#vm.machine.threadsStarted();
      prefault(this.#vm.machine.memory.ram, PREFAULT_LIMIT_MS);
      this.#rehearsal ??= new EnteringRehearsal(this.#vm);
      this.#rehearsal.begin();
      this.#stamp("rehearsed");
    }
    // The old VMM reads the end of this connection as "the main channel listens".
    this.#connection?.close();
    this.#connection = undefined;
    this.#stamp("listening");
    return async () => {
      let channel: Channel | undefined;
      const { reactor, ending } = this.#vm;
      try {
        channel = end.kind === "open" ? end.channel : await this.#accept(end.listener, address);
        await channel.begun(reactor, ending);
        this.#migration.status = "active";
        // Kept back until the monitors whose clients came along are there to hear of it.
        this.#vm.events.hold();
        this.#arrived(
          this.#beside ? this.#takeFromPeer(channel) : this.#enter(this.#entering(channel, false)),
        );
        return { ok: true };
      } catch (error) {
        this.#migration.error = (error as Error).message;
        this.#migration.status = "failed";
        this.#started = false;
        placement.restore(vcpuThreads(this.#vm));
        return { ok: false, error: error as Error };
      } finally {
        this.#vm.events.release();
        if (channel) void letEnd(channel, reactor, ending);
      }
    };
  }

  /**
   * Takes back the guest that a successor could not take: state and RAM are as it left them.
   *
   * @param bytes the saved state
   * @param reason why the successor could not
   * @throws {StateError} if this VMM cannot take it either
   */
  takeBack(bytes: Uint8Array<ArrayBuffer>, reason: string): void {
    const state = readVm(this.#vm.machine, bufferSource(bytes), { keepers: this.#vm.keepers });
    state.apply(state.sameBoot && !this.#vm.config.machine.xPauseClock);
    this.#vm.setRunState("paused");
    if (state.wasRunning) this.#vm.resume();
    this.#vm.arrived(state.takeOver);
    this.#migration.failedBefore(reason);
  }

  async #open(address: MigrationAddress | undefined): Promise<IncomingEnd> {
    const main = this.#main;
    if (!main) return await openIncoming(address!, this.#fds);
    // The state comes from the helper; but a script that names the wrong file shall hear of it.
    if (address?.transport === "file") {
      const file = await openIncoming(address, this.#fds);
      if (file.kind === "open") file.channel[Symbol.dispose]();
    }
    this.#main = undefined;
    return { kind: "open", channel: new Channel(main) };
  }

  async #accept(listener: OwnedFd, address: MigrationAddress | undefined): Promise<Channel> {
    using own = listener;
    using _name = nameOf(address);
    await awaitInput(this.#vm.reactor, own.fd, this.#vm.ending);
    const connection = accept(own.fd);
    if (!connection) throw new Error("Main channel has no connection to accept");
    this.#stamp("connected");
    return new Channel(connection);
  }

  /** Agrees with the old VMM on what stays the same, then takes the rest, and answers. */
  #takeFromPeer(channel: Channel): ReadVm {
    let state: ReadVm;
    try {
      const table = new SectionTable(readSections(channel.source));
      checkConstants(this.#vm.machine, table);
      table.checkEmpty();
      this.#stamp("machine-agreed");
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
    this.#stamp("answered");
    return state;
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
      mayRun: vm.startsOnArrival,
      wakesEarly: placement.tied,
    };
  }

  /** Takes the state. */
  #enter(entering: Entering): ReadVm {
    // Behind the last rehearsal, in which the vCPUs' threads came by as well.
    this.#readyNs = monotonicNow();
    const { state, runs } = enter(entering);
    if (runs) this.#vm.resumed();
    else this.#vm.setRunState("paused");
    return state;
  }

  /** What need not happen within the pause. */
  #arrived({ takeOver, stoppedNs }: ReadVm): void {
    this.#vm.arrived(takeOver);
    this.#onArrival?.(this.#vm);
    this.#migration.complete();
    const { epoch } = placement;
    setTimeout(() => {
      // First: to close a VM takes as long as the host's own threads are kept waiting.
      placement.restore(vcpuThreads(this.#vm), epoch);
      this.#rehearsal?.[Symbol.dispose]();
    }, CLOSE_LATER_MS);
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

  #stamp(step: Step): void {
    this.#ownership.timeline.stamp(step);
  }
}

/** Closes a channel; the command behind it may end by itself, unless the VM ends before. */
async function letEnd(channel: Channel, reactor: Reactor, ending: AbortSignal): Promise<void> {
  using _channel = channel;
  // Its data was complete or not, which has been told: how it ends does not matter.
  await channel.finish(reactor, ending).catch(() => {});
}

/** Takes the ownership page, after everybody else has taken what is theirs. */
function takePage(inheritance: Inheritance): Ownership {
  using _left = inheritance;
  using opened = new DisposableStack();
  const page = opened.use(Ownership.takeOver(inheritance, "new"));
  inheritance.checkEmpty();
  opened.move();
  return page;
}

/** Where a TCP listener is, for `query-migrate`. */
function inetAddress({ fd }: OwnedFd): Migration["socketAddress"] {
  const address = localAddress(fd);
  if (address?.type !== "inet") return undefined;
  const { type, host, port } = address;
  return { type, host, port: `${port}`, ...(host.includes(":") ? { ipv6: true } : { ipv4: true }) };
}

function refuse(channel: Channel, error: Error): void {
  try {
    const text = new TextEncoder().encode(error.message);
    channel.sink(Uint8Array.of(Answer.ERROR, ...text));
  } catch {
    // The old VMM is gone; the reason goes to our own user.
  }
}

function answerDone(channel: Channel): void {
  try {
    channel.sink(Uint8Array.of(Answer.DONE));
  } catch {
    // The old VMM is gone; the guest is ours all the same.
  }
}
