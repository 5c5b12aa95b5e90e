/**
 * A configuration while the command line is being read.
 *
 * @module
 */
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import type { DeviceType } from "../../devices/device.ts";
import type { NetdevConfig } from "../../devices/net/config.ts";
import { defaultConfig, type MachineConfig } from "../config.ts";
import { located, OptionError } from "./error.ts";

/** What is done once all options are read, in this order; QEMU creates things in it. */
export type Stage = "serial" | "debugcon" | "check";

/** `T` with properties that can be assigned. */
export type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** QEMU's limit of frontends on one multiplexed character device. */
const MAX_MUX = 4;

/** What the options read so far say, and what is left to do after the last one. */
export class Draft {
  /** The configuration so far. */
  readonly config: Mutable<MachineConfig> = defaultConfig();
  /** Device types that `-device` may name. */
  readonly types: readonly DeviceType[];
  /** Bytes that `-m` asked for. */
  memory: number | undefined;
  /** Whether the machine gets a first serial port without being asked; options turn it off. */
  defaultSerial = true;
  /** Whether `-nographic` adds a monitor without being asked; options turn it off. */
  defaultMonitor = true;
  /** Implicit monitor backends so far, for their ids. */
  monitorCount = 0;
  readonly #later: { readonly stage: Stage; readonly run: () => void }[] = [];
  readonly #uses = new Map<string, number>();
  readonly #usedNetdevs = new Set<string>();
  readonly #usedDrives = new Set<string>();
  #where = "";

  /**
   * Starts from the default configuration.
   *
   * @param types the device types there are
   */
  constructor(types: readonly DeviceType[]) {
    this.types = types;
  }

  /**
   * Handles one option.
   *
   * @param where the option as the user typed it; its errors begin with it, those of
   * {@linkcode later} as well
   */
  option<T>(where: string, action: () => T): T {
    this.#where = where;
    return located(where, action);
  }

  /** Postpones work of the current option until all options are read. */
  later(stage: Stage, action: () => void): void {
    const where = this.#where;
    this.#later.push({ stage, run: () => this.option(where, action) });
  }

  /** Does what was postponed. */
  finish(): void {
    for (const stage of ["serial", "debugcon", "check"] as const) {
      // Work of a stage may postpone work to a later one, so the list is read anew.
      for (const { run } of this.#later.filter((entry) => entry.stage === stage)) run();
    }
  }

  /** Adds a character device. @throws OptionError if it cannot be */
  addChardev(chardev: ChardevConfig): void {
    const { config } = this;
    if (config.chardevs.some(({ id }) => id === chardev.id)) {
      throw new OptionError(`Duplicate ID '${chardev.id}' for chardev`);
    }
    if (chardev.backend === "stdio") {
      if (config.chardevs.some(({ backend }) => backend === "stdio")) {
        throw new OptionError("cannot use stdio by multiple character devices");
      }
      this.later("check", () => {
        if (config.daemonize) throw new OptionError("cannot use stdio with -daemonize");
      });
    }
    config.chardevs = [...config.chardevs, chardev];
  }

  /**
   * Binds one more frontend to a character device.
   *
   * @returns why it cannot be, or undefined
   */
  useChardev(id: string): "not found" | "in use" | "mux full" | undefined {
    const chardev = this.config.chardevs.find((chardev) => chardev.id === id);
    if (!chardev) return "not found";
    const uses = this.#uses.get(id) ?? 0;
    if (uses >= MAX_MUX) return "mux full";
    if (uses > 0 && !chardev.mux) return "in use";
    this.#uses.set(id, uses + 1);
    return undefined;
  }

  /** Binds one more frontend to a character device. @throws OptionError if it cannot be */
  requireChardev(id: string): void {
    switch (this.useChardev(id)) {
      case "not found":
        throw new OptionError(`chardev "${id}" not found`);
      case "in use":
        throw new OptionError(`Device '${id}' is in use`);
      case "mux full":
        throw new OptionError(
          `too many uses of multiplexed chardev '${id}' (maximum is ${MAX_MUX})`,
        );
    }
  }

  /** Adds a network backend. @throws OptionError if it cannot be */
  addNetdev(netdev: NetdevConfig): void {
    const { config } = this;
    if (config.netdevs.some(({ id }) => id === netdev.id)) {
      throw new OptionError(`Duplicate ID '${netdev.id}' for netdev`);
    }
    config.netdevs = [...config.netdevs, netdev];
  }

  /** Gives a network backend to a device. @returns why it cannot be, or undefined */
  useNetdev(id: string): "not found" | "in use" | undefined {
    if (!this.config.netdevs.some((netdev) => netdev.id === id)) return "not found";
    if (this.#usedNetdevs.has(id)) return "in use";
    this.#usedNetdevs.add(id);
    return undefined;
  }

  /**
   * Gives a drive, or a block node, to a device.
   *
   * @returns false if there is none of that name
   * @throws OptionError if another device has it, or there is no medium in it
   */
  useDrive(name: string): boolean {
    const { drives, blockdevs } = this.config;
    const drive = drives.find(({ id }) => id === name);
    if (!drive && !blockdevs.some(({ nodeName }) => nodeName === name)) return false;
    if (drive && drive.nodeName === undefined) {
      throw new OptionError("Device needs media, but drive is empty");
    }
    if (this.#usedDrives.has(name)) {
      throw new OptionError(`Drive '${name}' is already in use by another device`);
    }
    this.#usedDrives.add(name);
    return true;
  }
}
