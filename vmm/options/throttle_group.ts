/**
 * The object `throttle-group`: limits that disks share.
 *
 * @module
 */
import { limitNames, noLimits } from "../../devices/block/throttle.ts";
import type { ThrottleGroupConfig } from "../config.ts";
import type { RawOptions } from "./grammar.ts";
import { objectProperties, type ObjectType } from "./object_type.ts";
import { invalidParameter, readOptions } from "./schema.ts";
import { changeLimits, groupLimitNames } from "./throttle.ts";

/** Each limit's older name, as a property of its own. */
const older = (name: string) => `x-${name}`;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The limits among an object's parameters: `x-NAME`, `limits.NAME`, and JSON's `limits`. */
function takeLimits({ entries, json }: RawOptions): {
  readonly limits: ReadonlyMap<string, unknown>;
  /** How each was called. */
  readonly typed: ReadonlyMap<string, string>;
  readonly rest: ReadonlyMap<string, unknown>;
} {
  const limits = new Map<string, unknown>();
  const typed = new Map<string, string>();
  const rest = new Map<string, unknown>();
  for (const [key, value] of entries) {
    const name = groupLimitNames.find((one) => key === older(one) || key === `limits.${one}`);
    if (name !== undefined) {
      limits.set(name, value);
      typed.set(name, key);
    } else if (key === "limits" && isObject(value)) {
      for (const [name, one] of Object.entries(value)) {
        if (!groupLimitNames.includes(name)) throw invalidParameter(`limits.${name}`, json);
        limits.set(name, one);
      }
    } else rest.set(key, value);
  }
  return { limits, typed, rest };
}

function read(options: RawOptions): ThrottleGroupConfig {
  const { limits, typed, rest } = takeLimits(options);
  const { id } = readOptions({ ...options, entries: rest }, objectProperties);
  return {
    qomType: "throttle-group",
    id: String(id),
    limits: changeLimits(noLimits, limits, typed),
  };
}

/** The type of objects. */
export const throttleGroupType: ObjectType = {
  name: "throttle-group",
  properties: [
    { name: "limits", type: "ThrottleLimits", help: "all of the following, without their x-" },
    ...limitNames.flatMap((name) => [
      { name: older(name), type: "int", help: "in a second; 0 for no limit" },
      { name: older(`${name}-max`), type: "int", help: "the same in a burst" },
      { name: older(`${name}-max-length`), type: "int", help: "seconds that a burst lasts" },
    ]),
    { name: older("iops-size"), type: "int", help: "bytes that count as one request" },
  ],
  read,
};
