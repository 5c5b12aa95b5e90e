/**
 * Migration parameters and capabilities, with QEMU's names, defaults and ranges
 * (QAPI MigrationParameters, MigrationCapability).
 *
 * Denovo acts on few of them; the others are accepted, kept and shown, because clients set them.
 *
 * @module
 */

import { parseBool, parseEnum, parseSize } from "../../vmm/options/values.ts";

/** QAPI MigMode. */
export const migrationModes = ["normal", "cpr-reboot", "cpr-transfer", "cpr-exec"] as const;

/** One of QEMU's migration modes. */
export type MigrationMode = typeof migrationModes[number];

/** The parameters that take one of a few words. */
export const parameterChoices = {
  mode: migrationModes,
  "multifd-compression": ["none", "zlib"],
  "zero-page-detection": ["none", "legacy", "multifd"],
  "x-cpr-exec-relay": ["on", "off", "auto", "anchor"],
} as const;

type Choice<Name extends keyof typeof parameterChoices> = typeof parameterChoices[Name][number];

/** QEMU's defaults, in the order in which `query-migrate-parameters` gives them. */
export const defaultParameters = {
  "cpu-throttle-tailslow": false,
  "xbzrle-cache-size": 67108864,
  "cpu-throttle-initial": 20,
  "announce-max": 550,
  "direct-io": false,
  "avail-switchover-bandwidth": 0,
  "zero-page-detection": "multifd" as Choice<"zero-page-detection">,
  "multifd-qatzip-level": 1,
  "x-rdma-chunk-size": 1048576,
  "multifd-channels": 2,
  mode: "normal" as Choice<"mode">,
  "multifd-zstd-level": 1,
  "announce-initial": 50,
  "downtime-limit": 300,
  "tls-authz": "",
  "cpr-exec-command": [] as readonly string[],
  "vcpu-dirty-limit": 1,
  "multifd-compression": "none" as Choice<"multifd-compression">,
  "announce-rounds": 5,
  "announce-step": 100,
  "tls-creds": "",
  "x-vcpu-dirty-limit-period": 1000,
  "multifd-zlib-level": 1,
  "max-cpu-throttle": 99,
  "max-postcopy-bandwidth": 0,
  "tls-hostname": "",
  "throttle-trigger-threshold": 50,
  "max-bandwidth": 134217728,
  "x-checkpoint-delay": 20000,
  "cpu-throttle-increment": 10,
  /** Denovo's own: where the timeline of an update is written, in the Chrome trace-event format. */
  "x-trace-file": "",
  /** Denovo's own: whether cpr-exec goes by way of a helper process, or of an anchor. */
  "x-cpr-exec-relay": "auto" as Choice<"x-cpr-exec-relay">,
};

/** The names of all parameters. */
export const parameterNames = Object.keys(defaultParameters) as readonly ParameterName[];

/** The value of every parameter. */
export type MigrationParameters = typeof defaultParameters;
/** A parameter's name. */
export type ParameterName = keyof MigrationParameters;

/** The order and the units in which `info migrate_parameters` shows them. */
export const parameterDisplay: readonly (readonly [name: ParameterName, unit: string])[] = [
  ["announce-initial", " ms"],
  ["announce-max", " ms"],
  ["announce-rounds", ""],
  ["announce-step", " ms"],
  ["throttle-trigger-threshold", ""],
  ["cpu-throttle-initial", ""],
  ["cpu-throttle-increment", ""],
  ["cpu-throttle-tailslow", ""],
  ["max-cpu-throttle", ""],
  ["tls-creds", ""],
  ["tls-hostname", ""],
  ["tls-authz", ""],
  ["max-bandwidth", " bytes/second"],
  ["avail-switchover-bandwidth", " bytes/second"],
  ["max-postcopy-bandwidth", " bytes/second"],
  ["downtime-limit", " ms"],
  ["x-checkpoint-delay", " ms"],
  ["multifd-channels", ""],
  ["multifd-compression", ""],
  ["zero-page-detection", ""],
  ["xbzrle-cache-size", " bytes"],
  ["x-vcpu-dirty-limit-period", " ms"],
  ["vcpu-dirty-limit", " MB/s"],
  ["mode", ""],
  ["direct-io", ""],
  ["x-rdma-chunk-size", " bytes"],
  ["cpr-exec-command", ""],
  ["x-cpr-exec-relay", ""],
  ["x-trace-file", ""],
];

interface Range {
  readonly min: number;
  readonly max: number;
  /** How QEMU ends its sentence. */
  readonly text: string;
}

const percent: Range = { min: 1, max: 99, text: "an integer in the range of 1 to 99" };
const level = (max: number): Range => ({ min: 0, max, text: `a value between 0 and ${max}` });

const ranges: Partial<Record<ParameterName, Range>> = {
  "downtime-limit": {
    min: 0,
    max: 2_000_000,
    text: "an integer in the range of 0 to (2000 * 1000) ms",
  },
  "cpu-throttle-initial": percent,
  "cpu-throttle-increment": percent,
  "max-cpu-throttle": percent,
  "throttle-trigger-threshold": { min: 1, max: 100, text: "an integer in the range of 1 to 100" },
  "multifd-channels": { min: 1, max: 255, text: "a value between 1 and 255" },
  "multifd-zlib-level": level(9),
  "multifd-zstd-level": level(20),
  "multifd-qatzip-level": { min: 1, max: 9, text: "a value between 1 and 9" },
};

/**
 * Reads a parameter's value as `-global` has it.
 *
 * @throws {Error} in QEMU's words
 */
export function parseParameter(
  name: ParameterName,
  text: string,
): string | number | boolean | string[] {
  const sample = defaultParameters[name];
  if (typeof sample === "boolean") return parseBool(name, text);
  if (typeof sample === "string") {
    const choices: Partial<Record<ParameterName, readonly string[]>> = parameterChoices;
    return parseEnum(name, text, choices[name] ?? [text]);
  }
  if (typeof sample !== "number") return text.split(",");
  const value = parseSize(text, name);
  checkParameter(name, value);
  return value;
}

/** Checks one parameter's value. @throws {Error} in QEMU's words */
export function checkParameter(name: string, value: unknown): void {
  const range = ranges[name as ParameterName];
  if (range && typeof value === "number" && (value < range.min || value > range.max)) {
    throw new Error(`Option ${name} expects ${range.text}`);
  }
}

/** QAPI MigrationCapability, in QEMU's order. */
export const capabilityNames = [
  "xbzrle",
  "rdma-pin-all",
  "auto-converge",
  "events",
  "postcopy-ram",
  "x-colo",
  "release-ram",
  "return-path",
  "pause-before-switchover",
  "multifd",
  "dirty-bitmaps",
  "postcopy-blocktime",
  "late-block-activate",
  "x-ignore-shared",
  "validate-uuid",
  "background-snapshot",
  "zero-copy-send",
  "postcopy-preempt",
  "switchover-ack",
  "dirty-limit",
  "mapped-ram",
] as const;

/** One of QEMU's migration capabilities. */
export type Capability = typeof capabilityNames[number];

/** Which capability needs which other. */
const requirements: readonly (readonly [Capability, Capability])[] = [
  ["x-colo", "return-path"],
  ["postcopy-preempt", "postcopy-ram"],
  ["switchover-ack", "return-path"],
];

/** Checks a set of capabilities. @throws {Error} in QEMU's words */
export function checkCapabilities(on: ReadonlySet<Capability>): void {
  for (const [capability, needed] of requirements) {
    if (on.has(capability) && !on.has(needed)) {
      throw new Error(`Capability '${capability}' requires capability '${needed}'`);
    }
  }
}

/** Refuses capabilities that no CPR mode goes with. @throws {Error} in QEMU's words */
export function checkCprCapabilities(on: ReadonlySet<Capability>): void {
  if (on.has("postcopy-ram")) throw new Error("Cannot use postcopy with CPR");
  if (on.has("background-snapshot")) throw new Error("Cannot use background snapshot with CPR");
  if (on.has("x-colo")) throw new Error("Cannot use COLO with CPR");
}
