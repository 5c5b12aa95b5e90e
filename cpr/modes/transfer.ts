/**
 * cpr-transfer, the old VMM's side: descriptors go over the cpr channel while the guest runs, the
 * state over the main channel while it is stopped.
 *
 * ```text
 * old                               new (blocked on its cpr socket)
 *  |--- descriptor table, fds ------->|   cpr channel
 *  |                                  |   builds the machine over the same RAM, opens its monitor
 *  |<-- end of the cpr connection ----|   "my main channel listens"
 *  |--- connects ---------------------|   main channel
 *  |--- what stays the same --------->|   compares machine and CPUs
 *  |<-- READY ------------------------|   "everything is ready, I wait for the state"
 *  |  stops the guest
 *  |  ownership: OLD -> HANDED_OVER
 *  |--- what changes ---------------->|   loads it
 *  |                                  |   ownership: HANDED_OVER -> NEW, runs the guest
 *  |<-- DONE -------------------------|
 * ```
 *
 * A successor that refuses answers `ERROR` and a text. Before HANDED_OVER any failure leaves the
 * guest running here; after it the swap back decides, so that exactly one side has the guest.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import { setTimeouts } from "../../ffi/socket.ts";
import { MAX_MESSAGE_FDS, sendMessage } from "../../ffi/socket_message.ts";
import type { Successor } from "../../vmm/inheritance.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import type { MigrationAddress } from "../channel/address.ts";
import { type Channel, sendIfThere } from "../channel/channel.ts";
import { connectUnixNow } from "../channel/open.ts";
import { awaitInput, PEER_LIMIT_MS } from "../channel/peer.ts";
import type { Departure, Update } from "./departure.ts";
import { Answer, readAnswer } from "../handover/answer.ts";
import { collectHandover, encodeHandover } from "../handover/handover.ts";
import { Owner, type Ownership } from "../handover/ownership.ts";
import { leave, type Leaving } from "../pause/pause.ts";
import { LeavingRehearsal } from "../pause/rehearsal.ts";
import { encodeStream, type Section } from "../stream/stream.ts";
import type { GuestRun } from "../state/vm_state.ts";

/** Milliseconds for which a successor may keep silent while nobody runs the guest. */
const HANDOVER_LIMIT_MS = 2_000;

/** How the successor is reached. */
export interface SuccessorChannels {
  /** Sends the descriptors; gives the connection whose end says "I listen". */
  cpr(): OwnedFd;
  /** Opens the main channel. */
  main(): Promise<Channel>;
}

/** One cpr-transfer. */
export class TransferUpdate implements Update {
  readonly stopsFirst = false;
  readonly #departure: Departure;
  readonly #channels: SuccessorChannels;
  readonly #announced: boolean;
  #sections: readonly Section[] = [];
  #cpr: OwnedFd | undefined;
  #main: Channel | undefined;
  #rehearsal: LeavingRehearsal | undefined;

  /**
   * @param departure the VM that the guest leaves
   * @param channels how the successor is reached
   * @param options.announced whether the migration's status follows the transfer
   */
  constructor(
    departure: Departure,
    channels: SuccessorChannels,
    options: { readonly announced: boolean } = { announced: true },
  ) {
    this.#departure = departure;
    this.#channels = channels;
    this.#announced = options.announced;
  }

  /** What was sent of the changing state. */
  get sections(): readonly Section[] {
    return this.#sections;
  }

  /** Sends the descriptors. */
  prepare(): Promise<void> {
    const { vm, ownership } = this.#departure;
    // A client that came from here on would not be in the table: it waits for the successor.
    vm.chardevs.hold("peers");
    vm.netdevs.hold(true);
    vm.vhostUsers.hold(true);
    this.#cpr = this.#channels.cpr();
    ownership.timeline.stamp("descriptors-sent");
    return Promise.resolve();
  }

  /** Moves the guest. */
  async run(): Promise<void> {
    await this.deliver();
    this.#departure.handedOver();
  }

  /** Waits until the successor is ready, hands over, and waits until it runs the guest. */
  async deliver(): Promise<void> {
    const departure = this.#departure;
    const { vm, migration, ownership } = departure;
    const { reactor } = vm;
    // With `-incoming defer` a person may type for hours before the successor listens.
    const { abort } = departure.waiting;
    // While the successor builds its machine and rehearses itself.
    const rehearsal = this.#rehearsal = new LeavingRehearsal(vm);
    rehearsal.begin();
    ownership.timeline.stamp("rehearsed");
    await awaitInput(reactor, this.#cpr!.fd, abort);
    await departure.beforeSwitchover();
    const main = this.#main = await this.#channels.main();
    sendIfThere(main, encodeStream(departure.constants()));
    const limit = AbortSignal.any([abort, AbortSignal.timeout(PEER_LIMIT_MS)]);
    await awaitInput(reactor, main.fd.fd, limit);
    readAnswer(main, Answer.READY);
    migration.commit();
    this.#handOver(rehearsal, main);
    await awaitInput(reactor, main.fd.fd, AbortSignal.timeout(HANDOVER_LIMIT_MS));
    readAnswer(main, Answer.DONE);
    if (ownership.owner !== Owner.NEW) throw new Error("The new VMM did not take the guest");
    ownership.timeline.stamp("settled");
  }

  /** @throws {Error} if the state cannot be sent; the guest may have to be taken back */
  #handOver(rehearsal: LeavingRehearsal, main: Channel): void {
    const departure = this.#departure;
    const { vm, migration, ownership } = departure;
    const { movesSessions } = vm.chardevs;
    const leaving: Leaving = {
      ownership,
      channel: main,
      vm,
      image: rehearsal.image,
      guest: vm.running ? undefined : departure.stop(),
      threads: vm.machine.threads,
      onParked: this.#onParked(),
    };
    vm.events.hold();
    if (!movesSessions) vm.chardevs.hold("everything");
    try {
      rehearsal.finish();
      const { sections, length } = leave(leaving);
      this.#sections = sections;
      migration.transferred = length;
    } finally {
      if (leaving.guest) departure.noteStop(leaving.guest);
      if (this.#announced) {
        migration.activate();
        migration.status = "device";
      }
      vm.events.release();
    }
  }

  /** What cannot wait until the state is on its way. */
  #onParked(): ((guest: GuestRun) => void) | undefined {
    const departure = this.#departure;
    const { vm: { blocks, chardevs, config, events } } = departure;
    const { movesSessions } = chardevs;
    if (!movesSessions && !config.machine.xPauseClock && !blocks.leavesFiles) return undefined;
    return (guest) => {
      if (blocks.leavesFiles) blocks.letGo("not kept");
      if (!movesSessions) {
        if (config.machine.xPauseClock) departure.noteStop(guest);
        return;
      }
      // Whoever moves with the guest hears of its stop before.
      departure.noteStop(guest);
      events.flush();
      chardevs.hold("everything");
    };
  }

  /** The swap back decides, unless the guest has never left. */
  takeBack(): boolean {
    const { ownership } = this.#departure;
    return ownership.owner === Owner.OLD || ownership.swap(Owner.HANDED_OVER, Owner.OLD);
  }

  /** Closes both channels. */
  [Symbol.dispose](): void {
    this.#cpr?.close();
    this.#main?.[Symbol.dispose]();
    this.#rehearsal?.[Symbol.dispose]();
  }
}

/**
 * Sends the descriptor table.
 *
 * @param address the successor's cpr channel
 * @param ownership the page that says who owns the guest
 * @returns the cpr connection; its end says that the successor's main channel listens
 * @throws {Error} in QEMU's words
 */
export function sendDescriptors(
  vm: VirtualMachine,
  address: MigrationAddress,
  ownership: Ownership,
): OwnedFd {
  if (address.transport !== "socket" || address.type !== "unix") {
    throw new Error("bad cpr channel address; must be unix");
  }
  return sendTable(vm, connectUnixNow(address.path), ownership, "neighbour");
}

/**
 * Sends the descriptor table over a connection.
 *
 * @param socket the connection, which is closed on failure
 * @param ownership the page that says who owns the guest
 * @param to who takes over
 * @throws {Error} if the successor does not read it
 */
export function sendTable(
  vm: VirtualMachine,
  socket: OwnedFd,
  ownership: Ownership,
  to: Successor,
): OwnedFd {
  try {
    const handover = collectHandover(vm, ownership, to);
    const { fds } = handover;
    if (fds.length > MAX_MESSAGE_FDS) {
      throw new Error(`Cannot pass ${fds.length} file descriptors, at most ${MAX_MESSAGE_FDS}`);
    }
    const bytes = encodeStream(encodeHandover(handover, (entry) => fds.indexOf(entry)));
    setTimeouts(socket.fd, PEER_LIMIT_MS);
    let sent = sendMessage(socket.fd, bytes, fds.map((entry) => entry.fd));
    while (sent !== -1 && sent < bytes.length) {
      sent += sendMessage(socket.fd, bytes.subarray(sent));
    }
    if (sent === -1) throw new Error("Successor does not read the descriptor table");
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}
