/**
 * The throttle groups of a VM's disks. Limits that were changed while the guest runs stay over an update,
 * unless the successor is told others than its predecessor was.
 *
 * @module
 */
import type { DriveConfig, DriveThrottle } from "../devices/block/config.ts";
import {
  checkLimits,
  limitNames,
  noLimits,
  ThrottleGroup,
  type ThrottleLimits,
} from "../devices/block/throttle.ts";
import type { ThrottleGroupConfig } from "./config.ts";
import { describeKey, type HandedValue, type Inheritance } from "./inheritance.ts";

/** What a group is handed over as; the id is its name. */
const THROTTLE = "block/throttle";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** What a successor gets of a group. */
interface KeptGroup {
  /** What the predecessor was told. */
  readonly told: ThrottleLimits;
  readonly limits: ThrottleLimits;
  readonly levels: number[];
}

/** Throttle groups by name. */
export class ThrottleSet {
  readonly #groups = new Map<string, ThrottleGroup>();
  /** What the command line says. */
  readonly #told = new Map<string, ThrottleLimits>();
  /** Those that are objects. */
  readonly #objects = new Set<string>();
  readonly #kept = new Map<string, KeptGroup>();

  /**
   * Sets the limits that objects and drives are told to have.
   *
   * @throws {Error} if what a predecessor left makes no sense
   */
  open(
    drives: readonly DriveConfig[],
    objects: readonly ThrottleGroupConfig[],
    inheritance?: Inheritance,
  ): void {
    for (const { id, data } of inheritance?.values.filter(({ name }) => name === THROTTLE) ?? []) {
      inheritance!.takeValue(THROTTLE, id);
      this.#kept.set(id, decode(id, data));
    }
    for (const { id, limits } of objects) {
      this.#told.set(id, limits);
      this.#objects.add(id);
    }
    for (const { throttle } of drives) {
      if (throttle) this.#told.set(throttle.group, throttle.limits);
    }
    for (const name of this.#told.keys()) this.group(name);
  }

  /** A group, made if there is none of that name. */
  group(name: string): ThrottleGroup {
    const known = this.#groups.get(name);
    if (known) return known;
    const group = new ThrottleGroup();
    const told = this.#told.get(name) ?? noLimits;
    const kept = this.#kept.get(name);
    group.limits = told;
    if (kept && isSame(kept.told, told)) {
      group.limits = kept.limits;
      group.levels = kept.levels;
    }
    this.#groups.set(name, group);
    return group;
  }

  /** Whether there is a group of that name. */
  has(name: string): boolean {
    return this.#groups.has(name);
  }

  /** The group that is an object of that id. */
  object(id: string): ThrottleGroup | undefined {
    return this.#objects.has(id) ? this.group(id) : undefined;
  }

  /** Makes a group that is an object; one that drives share already gets its limits. */
  add({ id, limits }: ThrottleGroupConfig): void {
    this.#objects.add(id);
    this.group(id).limits = limits;
  }

  /** An object is no more; as a group it stays, without limits. */
  remove(id: string): void {
    this.#objects.delete(id);
    this.group(id).limits = noLimits;
  }

  /** A group's name and limits, if it has any. */
  describe(name: string): DriveThrottle | undefined {
    const group = this.#groups.get(name);
    return group?.active ? { group: name, limits: group.limits } : undefined;
  }

  /** What a successor gets: groups that have limits, or were told to have. */
  handOver(): HandedValue[] {
    return [...this.#groups].flatMap(([id, group]) => {
      const told = this.#told.get(id) ?? noLimits;
      const { limits, levels } = group;
      if (!group.active && isSame(limits, told)) return [];
      const kept: KeptGroup = { told, limits, levels };
      return [{ name: THROTTLE, id, data: encoder.encode(JSON.stringify(kept)) }];
    });
  }
}

function isSame(one: ThrottleLimits, other: ThrottleLimits): boolean {
  return one.iopsSize === other.iopsSize && limitNames.every((name) => {
    const [a, b] = [one[name], other[name]];
    return a.average === b.average && a.max === b.max && a.burstLength === b.burstLength;
  });
}

/** @throws {Error} if it is not what a VMM leaves */
function decode(id: string, data: Uint8Array): KeptGroup {
  try {
    const { told, limits, levels } = JSON.parse(decoder.decode(data));
    const kept = { told: readLimits(told), limits: readLimits(limits), levels };
    new ThrottleGroup().levels = kept.levels;
    return kept;
  } catch (error) {
    throw new Error(`Limits of throttle group ${describeKey(id, "")} make no sense`, {
      cause: error,
    });
  }
}

/** @throws {Error} unless all numbers are there */
function readLimits(given: ThrottleLimits): ThrottleLimits {
  const entries = limitNames.map((name) => {
    const { average, max, burstLength } = given[name];
    if (![average, max, burstLength].every(Number.isSafeInteger)) throw new TypeError(name);
    return [name, { average, max, burstLength }];
  });
  if (!Number.isSafeInteger(given.iopsSize)) throw new TypeError("iopsSize");
  const limits = { ...Object.fromEntries(entries), iopsSize: given.iopsSize };
  checkLimits(limits);
  return limits;
}
