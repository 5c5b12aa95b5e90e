/**
 * The bus behind a bridge on one thread: which addresses get to the functions on it
 * (PCI-to-PCI Bridge Architecture Specification 1.2, chapters 3 and 4).
 *
 * @module
 */
import { BridgeRegister, Command, type ConfigSpace, ECAM_SIZE } from "./config_space.ts";

/** Devices of a bus, and functions of a device. */
const DEVICES = 32;
const FUNCTIONS = 8;
/** Bytes of configuration space that a bus has (PCI Express 5.0, 7.2.2). */
export const BUS_SIZE: number = DEVICES * FUNCTIONS * ECAM_SIZE;

/** Windows begin and end with MiBs. */
const WINDOW_UNIT = 0x10_0000;

/** Addresses, the last one included. */
export interface BridgeWindow {
  readonly base: number;
  readonly limit: number;
}

/** The window that a bridge's registers say, whether or not it is open; empty if it ends before it begins. */
export function memoryWindow(config: Pick<ConfigSpace, "read">): BridgeWindow {
  return {
    base: high(config.read(BridgeRegister.MEMORY_BASE, 2)),
    limit: high(config.read(BridgeRegister.MEMORY_LIMIT, 2)) + WINDOW_UNIT - 1,
  };
}

/** The prefetchable one, whose addresses have 64 bits. */
export function prefetchableWindow(config: Pick<ConfigSpace, "read">): BridgeWindow {
  const wide = (low: number, above: number) =>
    high(config.read(low, 2)) + config.read(above, 4) * 2 ** 32;
  return {
    base: wide(BridgeRegister.PREFETCHABLE_BASE, BridgeRegister.PREFETCHABLE_BASE_HIGH),
    limit: wide(BridgeRegister.PREFETCHABLE_LIMIT, BridgeRegister.PREFETCHABLE_LIMIT_HIGH) +
      WINDOW_UNIT - 1,
  };
}

/** Bits 31 to 20 of an address, from a register's bits 15 to 4. */
function high(register: number): number {
  return (register >>> 4) * WINDOW_UNIT;
}

/** The bus. */
export class SecondaryBus {
  readonly #config: ConfigSpace;
  readonly #ecam: number;
  readonly #isPowered: () => boolean;
  readonly #places = new Set<() => void>();

  /**
   * @param config the bridge's configuration space
   * @param ecam address of the configuration space of bus 0
   * @param isPowered whether what is on the bus answers at all
   */
  constructor(config: ConfigSpace, ecam: number, isPowered: () => boolean) {
    this.#config = config;
    this.#ecam = ecam;
    this.#isPowered = isPowered;
  }

  /** How many functions are on it. */
  get functions(): number {
    return this.#places.size;
  }

  /**
   * Puts a function on the bus.
   *
   * @param place called when addresses get there that did not, or no longer: it asks anew, under a lock of
   *   its own, so that of two threads the one that asks last has the last word
   */
  attach(place: () => void): void {
    this.#places.add(place);
  }

  /** Takes a function from the bus again. */
  detach(place: () => void): void {
    this.#places.delete(place);
  }

  /** The bridge's registers have changed. */
  changed(): void {
    for (const place of this.#places) place();
  }

  /** Address of the configuration space of device 0; undefined if accesses do not get there. */
  get configBase(): number | undefined {
    const number = this.#config.read(BridgeRegister.SECONDARY_BUS, 1);
    const last = this.#config.read(BridgeRegister.SUBORDINATE_BUS, 1);
    // Bus 0 is the one before the bridge.
    if (!this.#isPowered() || number === 0 || last < number) return undefined;
    return this.#ecam + number * BUS_SIZE;
  }

  /** Whether memory accesses to all of these addresses get there. */
  passes(base: number, size: number): boolean {
    if (!this.#isPowered() || (this.#config.command & Command.MEMORY) === 0) return false;
    return [memoryWindow(this.#config), prefetchableWindow(this.#config)].some((window) =>
      base >= window.base && base + size - 1 <= window.limit
    );
  }
}

/** The bus that a function is on; undefined for the root bus. @throws {Error} if it is none for functions */
export function busOf(provides: object | undefined): SecondaryBus | undefined {
  if (provides === undefined || provides instanceof SecondaryBus) return provides;
  throw new Error("The device before a PCI function is no bridge");
}
