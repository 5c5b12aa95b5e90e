/**
 * Live update of one VM: its migration state, and what drives it.
 *
 * @module
 */
import type { FdRegistry } from "../vmm/monitor/fd_registry.ts";
import type { DeviceChanges } from "../vmm/device_changes.ts";
import type { VirtualMachine } from "../vmm/virtual_machine.ts";
import type { MigrationAddress, MigrationChannel } from "./channel/address.ts";
import { Incoming } from "./handover/incoming.ts";
import type { Received } from "./handover/received.ts";
import { Migration } from "./migration/migration.ts";
import { blockersOf, type Continuation, Outgoing } from "./outgoing.ts";
import type { RelayChannels } from "./modes/relay_link.ts";

/** Live update of one VM. */
export class Cpr {
  readonly migration: Migration;
  /** Set in a VM that was started with `-incoming`. */
  readonly incoming: Incoming | undefined;
  readonly #vm: VirtualMachine;
  readonly #outgoing: Outgoing;

  /**
   * @param vm the VM
   * @param fds the descriptors that `getfd` named
   * @param received what a predecessor handed over, in a VM that waits for its state
   * @param onArrival called when its guest has arrived: there is no way back from there
   */
  constructor(
    vm: VirtualMachine,
    fds: FdRegistry,
    received?: Received,
    onArrival?: () => void,
  ) {
    this.#vm = vm;
    this.migration = new Migration(vm.events);
    applyGlobals(this.migration, vm.config.globals);
    this.#outgoing = new Outgoing(vm, this.migration, fds);
    vm.hotplug.isFrozen = () => this.migration.inProgress;
    if (vm.runState === "inmigrate") {
      this.incoming = new Incoming(vm, this.migration, fds, received, onArrival);
    }
  }

  /** The pause of the update that brought the guest here, nanoseconds; undefined if none did. */
  get pauseNs(): number | undefined {
    return this.incoming?.pauseNs;
  }

  /** What keeps the VM from a live update, as `blocked-reasons` says it. */
  readonly blockers = (): string[] => blockersOf(this.#vm);

  /** Devices that have come and gone since the VM was made, which its command line does not show. */
  get deviceChanges(): DeviceChanges {
    return this.#vm.hotplug.changes;
  }

  /** Begins an outgoing migration; what is returned goes on after the command was answered. */
  migrate(channels: readonly MigrationChannel[]): Promise<Continuation> {
    return this.#outgoing.begin(channels);
  }

  /**
   * Begins an incoming migration.
   *
   * @param address where; undefined if the main channel is connected already
   * @param exitOnError end the VM if the state cannot be loaded
   * @throws {Error} if this VM waits for none, or the channel cannot be opened
   */
  async migrateIncoming(
    address: MigrationAddress | undefined,
    exitOnError: boolean,
  ): Promise<Continuation> {
    if (!this.incoming) throw new Error("'-incoming' was not specified on the command line");
    const load = await this.incoming.start(address);
    return async () => {
      const result = await load();
      if (!result.ok) {
        this.#vm.fail(`load of migration failed: ${result.error.message}`, exitOnError);
      }
    };
  }

  /** Moves the guest to whoever asked for it; false if that failed and the guest is still here. */
  giveTo(channels: RelayChannels): Promise<boolean> {
    return this.#outgoing.giveTo(channels);
  }

  /** Cancels an outgoing migration while that can be done; without effect afterwards. */
  cancel(): void {
    this.migration.cancel();
  }
}

/** `-global migration.KEY=VALUE`: capabilities by their names with the prefix `x-`, or without. */
function applyGlobals(
  migration: Migration,
  globals: readonly (readonly [driver: string, property: string, value: string])[],
): void {
  for (const [driver, property, value] of globals) {
    if (driver === "migration") migration.setGlobal(property, value);
  }
}
