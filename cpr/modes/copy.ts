/**
 * cpr-reboot, and what QEMU's normal mode comes to without live copying: the guest stops, its RAM,
 * where it does not stay in a file, and its state go to the channel.
 *
 * @module
 */
import type { MigrationAddress } from "../channel/address.ts";
import type { Channel } from "../channel/channel.ts";
import { openOutgoing, opensAtOnce } from "../channel/open.ts";
import type { Departure, Update } from "./departure.ts";
import { ramSections } from "../state/ram.ts";
import { SectionWriter } from "../stream/stream.ts";
import { VmImage } from "../state/vm_state.ts";

/** Milliseconds of copying after which monitors get their turn: they may cancel. */
const TURN_MS = 10;

/** One update by a copy. */
export class CopyUpdate implements Update {
  readonly stopsFirst: boolean;
  readonly #departure: Departure;
  readonly #main: MigrationAddress;
  #channel: Channel | undefined;
  readonly #unsent: Uint8Array<ArrayBuffer>[] = [];

  /**
   * @param departure the VM that the guest leaves
   * @param main where to
   */
  constructor(departure: Departure, main: MigrationAddress) {
    this.#departure = departure;
    this.#main = main;
    this.stopsFirst = opensAtOnce(main);
  }

  /** Opens the channel, if that is known to work or fail at once. */
  async prepare(): Promise<void> {
    if (this.stopsFirst) await this.#open();
  }

  /** Stops the guest and writes everything. */
  async run(): Promise<void> {
    const departure = this.#departure;
    const { migration, vm } = departure;
    const channel = this.#channel ?? await this.#open();
    departure.stop();
    vm.machine.devices.quiesce();
    migration.activate();
    const writer = new SectionWriter((data) => this.#unsent.push(data));
    await this.#copyRam(channel, writer);
    await departure.beforeSwitchover();
    migration.commit();
    migration.status = "device";
    for (const section of departure.constants()) writer.write(section);
    for (const section of new VmImage(vm.machine).save(departure.guest)) writer.write(section);
    writer.end();
    // Whoever has read the end takes the images.
    vm.blocks.letGo("all");
    vm.netdevs.letGo();
    vm.vhostUsers.letGo();
    await this.#send(channel, vm.ending);
    await channel.finish(vm.reactor, vm.ending);
    departure.ownership.timeline.stamp("sent");
    vm.setRunState("postmigrate");
    vm.pidfile?.letGo();
    migration.complete();
    departure.writeTrace();
  }

  /** Nobody else runs a guest that was copied, unless it has the images, or the network. */
  takeBack(): boolean {
    const { blocks, netdevs, vhostUsers } = this.#departure.vm;
    vhostUsers.takeBack();
    return blocks.whyNotHeld() === undefined && netdevs.takeBack();
  }

  /** Closes the channel. */
  [Symbol.dispose](): void {
    this.#channel?.[Symbol.dispose]();
  }

  async #open(): Promise<Channel> {
    return this.#channel = await openOutgoing(
      this.#main,
      this.#departure.fds,
      this.#departure.waiting,
    );
  }

  async #copyRam(channel: Channel, writer: SectionWriter): Promise<void> {
    const { migration, vm } = this.#departure;
    const statistics = migration.ram = { total: 0, duplicate: 0, normal: 0 };
    const ignoreShared = migration.capabilities.has("x-ignore-shared");
    const { abort } = this.#departure.waiting;
    let turn = performance.now() + TURN_MS;
    for (const section of ramSections(vm.machine.memory, statistics, ignoreShared)) {
      writer.write(section);
      await this.#send(channel, abort);
      if (performance.now() < turn) continue;
      await new Promise((resolve) => setTimeout(resolve, 0));
      abort.throwIfAborted();
      turn = performance.now() + TURN_MS;
    }
  }

  /** Sends what the writer has left, however long the other end takes. */
  async #send(channel: Channel, abort: AbortSignal): Promise<void> {
    const { migration, vm } = this.#departure;
    for (const data of this.#unsent.splice(0)) {
      await channel.send(data, vm.reactor, abort);
      migration.transferred += data.length;
    }
  }
}
