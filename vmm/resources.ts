/**
 * What a VM has besides its machine: event loop, character devices, memory; its own or inherited.
 *
 * @module
 */
import { Reactor } from "../ffi/reactor.ts";
import { BlockSet } from "./block_set.ts";
import { ChardevSet } from "./chardev_set.ts";
import type { MachineConfig } from "./config.ts";
import { Console } from "./console.ts";
import type { Inheritance, Keeper } from "./inheritance.ts";
import { MemorySet } from "./machine/memory_set.ts";
import type { NetdevHost } from "./netdev.ts";
import { NetdevSet } from "./netdev_set.ts";
import { vhostUserConfigs, type VhostUserHost, VhostUserSet } from "./vhost_user_set.ts";

/** The id of the character device behind `console`. */
const CONSOLE_ID = "console";

/** What a VM has besides its machine, and what is left to close when making the machine fails. */
export class Resources {
  /** Watches descriptors on the main thread. */
  readonly reactor: Reactor = new Reactor();
  /** The character devices. */
  readonly chardevs: ChardevSet;
  /** The disks' images. */
  readonly blocks: BlockSet = new BlockSet();
  /** The network backends. */
  readonly netdevs: NetdevSet;
  /** The processes that work on devices' queues. */
  readonly vhostUsers: VhostUserSet;
  /** All memory. */
  readonly memory: MemorySet = new MemorySet();
  /** The first serial port as streams, if no character device was named for it. */
  console: Console | undefined;

  /**
   * Makes an event loop; nothing else is open yet.
   *
   * @param notice takes lines for the user
   * @param quit the user wants the VM to end
   * @param network is told of network backends
   * @param vhostUser is told of vhost-user back-ends
   */
  constructor(
    notice: (text: string) => void,
    quit: () => void,
    network: Omit<NetdevHost, "notice">,
    vhostUser: Omit<VhostUserHost, "notice">,
  ) {
    // The program listens for signals itself and closes the VM: the terminal is put back then.
    this.chardevs = new ChardevSet(this.reactor, { notice, quit, terminate: () => {} });
    this.netdevs = new NetdevSet(this.reactor, { notice, ...network }, this.blocks.throttles);
    this.vhostUsers = new VhostUserSet(this.reactor, { notice, ...vhostUser });
  }

  /** Those of them that have something to hand over. */
  get keepers(): readonly Keeper[] {
    return [this.memory, this.blocks, this.netdevs, this.vhostUsers, this.chardevs];
  }

  /** Gives a VM that has no serial port of its own one that code reads and writes. */
  withConsole(config: MachineConfig): MachineConfig {
    this.console = new Console(CONSOLE_ID, this.reactor);
    const chardevs = [...config.chardevs, this.console.chardev];
    return { ...config, chardevs, serials: [CONSOLE_ID] };
  }

  /**
   * Opens what a configuration asks for.
   *
   * @param inheritance what a predecessor left
   * @param options.abort ends the wait for what is outside
   * @param options.successor whether a predecessor may still be there
   */
  async open(
    config: MachineConfig,
    inheritance: Inheritance | undefined,
    options: { readonly abort?: AbortSignal; readonly successor?: boolean },
  ): Promise<void> {
    this.memory.open(config, inheritance);
    const { blockdevs, drives, throttleGroups } = config;
    this.blocks.open(blockdevs, drives, inheritance, options.successor, throttleGroups);
    await this.netdevs.open(config.netdevs, inheritance, options.abort);
    const backEnds = vhostUserConfigs(config);
    if (backEnds.length > 0 && !this.memory.ram(config).config.share) {
      throw new Error(
        "Failed initializing vhost-user memory map, consider using -object memory-backend-file" +
          " share=on",
      );
    }
    await this.vhostUsers.open(backEnds, inheritance, options.abort);
    const chardevs = config.chardevs.filter(({ id }) => !backEnds.some((one) => one.id === id));
    await this.chardevs.open(chardevs, config.monitors, inheritance, options);
  }

  /** Closes everything. */
  async close(): Promise<void> {
    this.memory.close();
    this.blocks.close();
    this.netdevs.close();
    this.vhostUsers.close();
    this.chardevs.close();
    this.console?.close();
    await this.reactor.close();
  }
}
