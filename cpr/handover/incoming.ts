/**
 * The successor's side of a migration: where its state comes from, and how it ends. The descriptors
 * have come before (`receive.ts`), and the machine was built from them.
 *
 * @module
 */
import { accept } from "../../ffi/socket.ts";
import { localAddress } from "../../ffi/socket_address.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { Inheritance } from "../../vmm/inheritance.ts";
import type { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import { placement, vcpuThreads } from "../../vmm/threads/placement.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import type { MigrationAddress } from "../channel/address.ts";
import { Channel } from "../channel/channel.ts";
import { type IncomingEnd, openIncoming } from "../channel/open.ts";
import { awaitInput } from "../channel/peer.ts";
import type { Migration } from "../migration/migration.ts";
import type { Step } from "../migration/timeline.ts";
import { type ReadVm, readVm } from "../state/vm_state.ts";
import { bufferSource } from "../stream/stream.ts";
import { awaitImages } from "./images.ts";
import { Owner, Ownership } from "./ownership.ts";
import { nameOf } from "./receive.ts";
import type { AnchoredGuest } from "./anchored_guest.ts";
import type { Received } from "./received.ts";
import { Taking } from "./taking.ts";

/** How an incoming migration ended. */
export type IncomingResult = { readonly ok: true } | { readonly ok: false; readonly error: Error };

/** A guest that has been taken: when it stopped before, and what there is to do when it is here. */
type TakenGuest = Pick<ReadVm, "stoppedNs" | "takeOver">;

/** Drives the incoming migration of one VM. */
export class Incoming {
  readonly #vm: VirtualMachine;
  readonly #migration: Migration;
  readonly #fds: FdRegistry;
  readonly #ownership: Ownership;
  /** Whether the old VMM lives beside this one, and waits for answers. */
  readonly #beside: boolean;
  #connection: OwnedFd | undefined;
  #started = false;
  #main: OwnedFd | undefined;
  /** The guest, where an anchor runs it. */
  readonly #anchored: AnchoredGuest | undefined;
  readonly #taking: Taking;
  readonly #onArrival: (() => void) | undefined;

  /**
   * @param vm a VM in run state inmigrate
   * @param migration its migration state
   * @param fds the descriptors that `getfd` named
   * @param received what came over the cpr channel or over exec
   * @param onArrival called when the guest has arrived: there is no way back from there
   */
  constructor(
    vm: VirtualMachine,
    migration: Migration,
    fds: FdRegistry,
    received?: Received,
    onArrival?: () => void,
  ) {
    this.#onArrival = onArrival;
    this.#main = received?.main;
    this.#vm = vm;
    this.#migration = migration;
    this.#fds = fds;
    this.#anchored = received?.anchored;
    this.#beside = received?.connection !== undefined;
    // From a file, without a predecessor that could come back, the guest is there for the taking.
    this.#ownership = received
      ? takePage(received.inheritance)
      : Ownership.create("new", Owner.HANDED_OVER);
    this.#taking = new Taking(vm, migration, this.#ownership, received === undefined);
    this.#connection = received?.connection;
    migration.timeline = this.#ownership.timeline;
    if (received?.begun) {
      this.#ownership.timeline.stamp("runtime-started", received.begun.runtimeNs);
      this.#ownership.timeline.stamp("program-started", received.begun.programNs);
    }
    this.#stamp("machine-built");
  }

  /** The pause end to end, nanoseconds; known once all vCPUs run here. */
  get pauseNs(): number | undefined {
    return this.#taking.pauseNs;
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
    const anchored = this.#anchored;
    const end = anchored ? await this.#checkFile(address) : await this.#open(address);
    this.#started = true;
    this.#migration.socketAddress = end?.kind === "listener"
      ? inetAddress(end.listener)
      : undefined;
    if (this.#beside || anchored) await this.#taking.rehearse();
    // The old VMM reads the end of this connection as "the main channel listens".
    this.#connection?.close();
    this.#connection = undefined;
    this.#stamp("listening");
    return () => end ? this.#takeFrom(end, address) : this.#takeAnchored(anchored!);
  }

  /** Waits for the state, and takes the guest. */
  async #takeFrom(
    end: IncomingEnd,
    address: MigrationAddress | undefined,
  ): Promise<IncomingResult> {
    let channel: Channel | undefined;
    const { reactor, ending } = this.#vm;
    try {
      channel = end.kind === "open" ? end.channel : await this.#accept(end.listener, address);
      await channel.begun(reactor, ending);
      this.#migration.status = "active";
      const [taking, beside, from] = [this.#taking, this.#beside, channel];
      this.#take(() => beside ? taking.fromPeer(from) : taking.fromFile(from));
      return { ok: true };
    } catch (error) {
      return this.#failed(error as Error);
    } finally {
      if (channel) void letEnd(channel, reactor, ending);
    }
  }

  /** Takes the guest out of its anchor. */
  #takeAnchored(guest: AnchoredGuest): Promise<IncomingResult> {
    const { reactor, ending } = this.#vm;
    try {
      this.#migration.status = "active";
      this.#take(() => this.#taking.fromAnchor(guest));
      // With the process ends the anchor, too.
      this.#taking.afterwards(() => ending.aborted || guest.left(reactor));
      return Promise.resolve({ ok: true });
    } catch (error) {
      return Promise.resolve(this.#failed(error as Error));
    }
  }

  #failed(error: Error): IncomingResult {
    this.#migration.error = error.message;
    this.#migration.status = "failed";
    this.#started = false;
    // What was loaded of a guest that is another VMM's is not to be worked on, should there be
    // another try, which rehearses.
    if (this.#vm.runState === "inmigrate") this.#vm.machine.devices.reset();
    placement.restore(vcpuThreads(this.#vm));
    return { ok: false, error };
  }

  /** Takes the guest. @throws {Error} if it is not taken */
  #take(take: () => TakenGuest): void {
    const vm = this.#vm;
    // Kept back until the monitors whose clients came along are there to hear of it.
    vm.events.hold();
    try {
      const { takeOver, stoppedNs } = take();
      vm.arrived(takeOver);
      this.#onArrival?.();
      this.#migration.complete();
      this.#taking.settle(stoppedNs);
    } finally {
      vm.events.release();
    }
  }

  /**
   * Takes back the guest that a successor could not take: state and RAM are as it left them. Without its
   * images it stands still until `cont` finds them.
   *
   * @param bytes the saved state
   * @param reason why the successor could not
   * @throws {StateError} if this VMM cannot take it either
   */
  async takeBack(bytes: Uint8Array<ArrayBuffer>, reason: string): Promise<void> {
    const vm = this.#vm;
    const state = readVm(vm.machine, bufferSource(bytes), { keepers: vm.keepers });
    vm.blocks.letGo("not kept");
    const lack = await awaitImages(vm, reason);
    state.apply(state.sameBoot && !vm.config.machine.xPauseClock);
    vm.setRunState("paused");
    if (state.wasRunning && !lack) vm.resume();
    vm.arrived(state.takeOver);
    this.#migration.failedBefore(lack?.message ?? reason);
  }

  async #open(address: MigrationAddress | undefined): Promise<IncomingEnd> {
    const main = this.#main;
    if (!main) return await openIncoming(address!, this.#fds);
    await this.#checkFile(address);
    this.#main = undefined;
    return { kind: "open", channel: new Channel(main) };
  }

  /** The state comes from elsewhere; but a script that names the wrong file shall hear of it. */
  async #checkFile(address: MigrationAddress | undefined): Promise<undefined> {
    if (address?.transport !== "file") return;
    const file = await openIncoming(address, this.#fds);
    if (file.kind === "open") file.channel[Symbol.dispose]();
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
