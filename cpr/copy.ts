/**
 * cpr-reboot, and what QEMU's normal mode comes to without live copying: the guest stops, its RAM,
 * where it does not stay in a file, and its state go to the channel.
 *
 * @module
 */
import type { MigrationAddress } from "./address.ts";
import { type Channel, openOutgoing, opensAtOnce } from "./channel.ts";
import type { Departure, Update } from "./departure.ts";
import { ramSections } from "./ram.ts";
import { SectionWriter } from "./stream.ts";
import { VmImage } from "./vm_state.ts";

/** Milliseconds of copying after which monitors get their turn: they may cancel. */
const TURN_MS = 10;

/** One update by a copy. */
export class CopyUpdate implements Update {
  readonly stopsFirst: boolean;
  readonly #departure: Departure;
  readonly #main: MigrationAddress;
  #channel: Channel | undefined;

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
    migration.activate();
    const writer = new SectionWriter((data) => {
      channel.sink(data);
      migration.transferred += data.length;
    });
    await this.#copyRam(writer);
    await departure.beforeSwitchover();
    migration.commit();
    migration.status = "device";
    for (const section of departure.constants()) writer.write(section);
    for (const section of new VmImage(vm.machine).save(departure.guest)) writer.write(section);
    writer.end();
    channel.finish();
    departure.ownership.timeline.stamp("sent");
    vm.setRunState("postmigrate");
    migration.complete();
    departure.writeTrace();
  }

  /** Nobody else runs a guest that was copied. */
  takeBack(): boolean {
    return true;
  }

  /** Closes the channel. */
  [Symbol.dispose](): void {
    this.#channel?.[Symbol.dispose]();
  }

  async #open(): Promise<Channel> {
    return this.#channel = await openOutgoing(this.#main, this.#departure.fds);
  }

  async #copyRam(writer: SectionWriter): Promise<void> {
    const { migration, vm } = this.#departure;
    const statistics = migration.ram = { total: 0, duplicate: 0, normal: 0 };
    const ignoreShared = migration.capabilities.has("x-ignore-shared");
    let turn = performance.now() + TURN_MS;
    for (const section of ramSections(vm.machine.memory, statistics, ignoreShared)) {
      writer.write(section);
      if (performance.now() < turn) continue;
      await new Promise((resolve) => setTimeout(resolve, 0));
      migration.cancelSignal.throwIfAborted();
      turn = performance.now() + TURN_MS;
    }
  }
}
