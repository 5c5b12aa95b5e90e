/**
 * Options of QEMU that ask for something which is not there: the value that means "no" is taken, so
 * that command lines which say it work, and any other is refused with one sentence.
 *
 * @module
 */
import { OptionError } from "./error.ts";
import { parseOpts } from "./grammar.ts";
import { invalidParameter } from "./schema.ts";
import { parseEnum } from "./values.ts";

/** A parameter of which some values are taken. */
interface Lacking {
  /** All values that QEMU knows; without them any text. */
  readonly values?: readonly string[];
  /** Those of which what they ask for is what is done. */
  readonly taken: readonly string[];
  /** Why the others are not. */
  readonly reason: string;
}

const ON = ["on", "yes", "true", "y"];
const OFF = ["off", "no", "false", "n"];

/** A switch that stays off. */
function off(reason: string): Lacking {
  return { values: [...ON, ...OFF], taken: OFF, reason };
}

const INPUT = ["accept", "reject", "crash"];
const OUTPUT = ["accept", "hide"];
const ALL_TAKEN = "only what is never refused and never hidden is there: accept";

/** Parameters by option. */
const lacking = {
  overcommit: {
    "mem-lock": {
      values: [...ON, ...OFF, "on-fault"],
      taken: OFF,
      reason:
        "guest RAM is not locked: -object memory-backend-memfd,prealloc=on allocates it ahead",
    },
    "cpu-pm": off("the guest's idle instructions always give the processor to the host"),
  },
  "run-with": {
    "async-teardown": off("RAM is given back by the process that had it"),
    "exit-with-parent": off("the VMM does not watch who started it"),
    chroot: { taken: [], reason: "the VMM does not change its root: start it by chroot(1)" },
    user: { taken: [], reason: "the VMM does not change its user: start it by setpriv(1)" },
  },
  compat: {
    "deprecated-input": { values: INPUT, taken: ["accept"], reason: ALL_TAKEN },
    "deprecated-output": { values: OUTPUT, taken: ["accept"], reason: ALL_TAKEN },
    "unstable-input": { values: INPUT, taken: ["accept"], reason: ALL_TAKEN },
    "unstable-output": { values: OUTPUT, taken: ["accept"], reason: ALL_TAKEN },
  },
} as const satisfies Record<string, Record<string, Lacking>>;

/** An option all of whose parameters are lacking. */
export type LackingOption = keyof typeof lacking;

/** Reads such an option. @throws OptionError if it asks for what is not there */
export function takeLacking(option: LackingOption, text: string): void {
  const parameters: Readonly<Record<string, Lacking>> = lacking[option];
  for (const [name, value] of parseOpts(text).entries) {
    if (!Object.hasOwn(parameters, name)) throw invalidParameter(name, false);
    refuseOthers(name, String(value), parameters[name]);
  }
}

/** Checks a value. @throws OptionError unless what it asks for is what is done */
export function refuseOthers(
  name: string,
  value: string,
  { values, taken, reason }: Lacking,
): void {
  if (values) parseEnum(name, value, values);
  if (taken.includes(value)) return;
  throw new OptionError(`Parameter '${name}' does not accept value '${value}': ${reason}`);
}

/**
 * An option that only takes `none`.
 *
 * @param what what there is not
 * @param instead what to do about it
 */
export function onlyNone(
  what: string,
  instead = "none is all that can be said",
): (text: string) => void {
  return (text) => {
    if (text !== "none") throw new OptionError(`there is no ${what}: ${instead}`);
  };
}
