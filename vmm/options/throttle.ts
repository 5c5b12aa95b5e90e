/**
 * `-drive throttling.…`, and the older names of the same limits.
 *
 * @module
 */
import {
  checkLimits,
  type LimitName,
  limitNames,
  noLimits,
  type ThrottleLimits,
} from "../../devices/block/throttle.ts";
import type { DriveThrottle } from "../../devices/block/config.ts";
import { OptionError } from "./error.ts";
import { parseInteger } from "./values.ts";

/** The older names, which HMP and QMP use as well. */
const shortNames: Readonly<Record<LimitName, string>> = {
  ...{ "bps-total": "bps", "bps-read": "bps_rd", "bps-write": "bps_wr" },
  ...{ "iops-total": "iops", "iops-read": "iops_rd", "iops-write": "iops_wr" },
};

/** Reads a number, which may be negative: that is out of range then. @throws OptionError in QEMU's words */
function readNumber(name: string, text: string): number {
  if (/^-?(0x[0-9a-f]+|0[0-7]*|[1-9]\d*)$/i.test(text)) return parseInteger(name, text);
  throw new OptionError(`Parameter '${name}' expects a number, not '${text}'`);
}

/** What to say instead of a parameter that is an older name behind the newer prefix; empty for others. */
export function throttleHint(parameter: string): string {
  const [, short, end] = /^throttling\.([a-z]+(?:_rd|_wr)?)(|_max|_max_length)$/.exec(parameter) ??
    [];
  const limit = limitNames.find((name) => shortNames[name] === short);
  return limit ? `: say throttling.${limit}${end.replaceAll("_", "-")}` : "";
}

/** Takes what is said about limits out of a drive's parameters. @throws OptionError in QEMU's words */
export function takeThrottle(
  take: (name: string) => string | undefined,
  id: string,
): DriveThrottle | undefined {
  const number = (name: string, alias: string): number | undefined => {
    const [value, older] = [take(`throttling.${name}`), take(alias)];
    if (value !== undefined && older !== undefined) {
      throw new OptionError(
        `'throttling.${name}' and its alias '${alias}' can't be used at the same time`,
      );
    }
    const text = value ?? older;
    return text === undefined ? undefined : readNumber(`throttling.${name}`, text);
  };
  const group = take("throttling.group");
  const given = limitNames.map((name) => {
    const short = shortNames[name];
    const average = number(name, short);
    const max = number(`${name}-max`, `${short}_max`);
    const burstLength = number(`${name}-max-length`, `${short}_max_length`);
    const isGiven = [average, max, burstLength].some((value) => value !== undefined);
    const limit = { average: average ?? 0, max: max ?? 0, burstLength: burstLength ?? 1 };
    return { name, isGiven, limit };
  });
  const iopsSize = number("iops-size", "iops_size");
  if (group === undefined && iopsSize === undefined && !given.some(({ isGiven }) => isGiven)) {
    return undefined;
  }
  const limits = Object.fromEntries(given.map(({ name, limit }) => [name, limit]));
  return {
    group: group ?? id,
    limits: checked({ ...noLimits, ...limits, iopsSize: iopsSize ?? 0 }),
  };
}

/** The names of a throttle group's limits (QAPI ThrottleLimits). */
export const groupLimitNames: readonly string[] = [
  ...limitNames.flatMap((name) => [name, `${name}-max`, `${name}-max-length`]),
  "iops-size",
];

/** Limits by the names of a throttle group's. */
export function groupLimits(limits: ThrottleLimits): Record<string, number> {
  const entries = limitNames.flatMap((name): [string, number][] => {
    const { average, max, burstLength } = limits[name];
    return [[name, average], [`${name}-max`, max], [`${name}-max-length`, burstLength]];
  });
  return { ...Object.fromEntries(entries), "iops-size": limits.iopsSize };
}

/**
 * Changes some of a throttle group's limits.
 *
 * @param given by their names: numbers, or text
 * @param typed what the user called them, where that differs
 * @throws OptionError in QEMU's words
 */
export function changeLimits(
  before: ThrottleLimits,
  given: ReadonlyMap<string, unknown>,
  typed: ReadonlyMap<string, string> = new Map(),
): ThrottleLimits {
  const old = groupLimits(before);
  const value = (name: string): number => {
    const one = given.get(name);
    if (one === undefined) return old[name];
    const called = typed.get(name) ?? name;
    if (typeof one === "string") return readNumber(called, one);
    if (typeof one === "number" && Number.isSafeInteger(one)) return one;
    throw new OptionError(`Invalid parameter type for '${called}', expected: integer`);
  };
  const limits = limitNames.map((name) => [name, {
    average: value(name),
    max: value(`${name}-max`),
    burstLength: value(`${name}-max-length`),
  }]);
  return checked({ ...Object.fromEntries(limits), iopsSize: value("iops-size") });
}

/** `block_set_io_throttle`'s arguments. @throws OptionError in QEMU's words */
export function limitsOf(args: Readonly<Record<string, unknown>>): ThrottleLimits {
  const value = (name: string, otherwise: number) => Number(args[name] ?? otherwise);
  const limits = limitNames.map((name) => {
    const short = shortNames[name];
    const max = value(`${short}_max`, 0);
    const burstLength = value(`${short}_max_length`, 1);
    return [name, { average: value(short, 0), max, burstLength }];
  });
  return checked({ ...Object.fromEntries(limits), iopsSize: value("iops_size", 0) });
}

/** Limits by their older names, as QMP tells them: those of bursts where there are any. */
export function shortLimits(limits: ThrottleLimits): Record<string, number> {
  const entries = limitNames.flatMap((name): [string, number][] => {
    const { average, max, burstLength } = limits[name];
    const short = shortNames[name];
    return [
      [short, average],
      ...max > 0 ? [[`${short}_max`, max], [`${short}_max_length`, burstLength]] as const : [],
    ].map(([key, number]) => [String(key), Number(number)]);
  });
  const { iopsSize } = limits;
  return { ...Object.fromEntries(entries), ...iopsSize > 0 && { iops_size: iopsSize } };
}

function checked(limits: ThrottleLimits): ThrottleLimits {
  try {
    checkLimits(limits);
    return limits;
  } catch (error) {
    throw new OptionError((error as Error).message);
  }
}
