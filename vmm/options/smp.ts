/**
 * `-smp`: how many CPUs, in what topology.
 *
 * @module
 */
import { MACHINE_TYPE, MAX_CPUS } from "../machine/microvm.ts";
import type { SmpConfig } from "../config.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseKeyval } from "./grammar.ts";
import { parseInteger } from "./values.ts";

/** Levels that other machines have: here there is one of each. */
const FIXED = ["drawers", "books", "dies", "clusters", "modules"];

const NAMES = ["cpus", "maxcpus", "sockets", ...FIXED, "cores", "threads"];

function readCounts(text: string): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const [name, value] of Object.entries(parseKeyval(text, "cpus"))) {
    if (!NAMES.includes(name)) throw new OptionError(`Parameter 'smp.${name}' is unexpected`);
    counts[name] = parseInteger(`smp.${name}`, String(value));
    if (counts[name] === 0) {
      throw new OptionError(
        "Invalid CPU topology: CPU topology parameters must be greater than zero",
      );
    }
    if (counts[name] < 0 || (name.endsWith("cpus") && counts[name] > MAX_CPUS)) {
      throw new OptionError(
        `Invalid SMP CPUs ${
          counts[name]
        }. The max CPUs supported by machine '${MACHINE_TYPE}' is ${MAX_CPUS}`,
      );
    }
    if (FIXED.includes(name) && counts[name] > 1) {
      throw new OptionError(`${name} > 1 not supported by this machine's CPU topology`);
    }
  }
  return counts;
}

/**
 * Reads `-smp`'s argument: `4`, `cpus=2,maxcpus=4,sockets=1`. What is left out follows from the
 * rest, cores before sockets before threads.
 *
 * @throws OptionError in QEMU's words if the numbers contradict each other
 */
export function parseSmp(text: string): SmpConfig {
  const given = readCounts(text);
  const wanted = given.maxcpus ?? given.cpus;
  let { sockets, cores, threads } = given;
  if (wanted === undefined) {
    sockets ??= 1;
    cores ??= 1;
    threads ??= 1;
  } else if (cores === undefined) {
    sockets ??= 1;
    threads ??= 1;
    cores = Math.floor(wanted / (sockets * threads));
  } else if (sockets === undefined) {
    threads ??= 1;
    sockets = Math.floor(wanted / (cores * threads));
  } else threads ??= Math.floor(wanted / (sockets * cores));

  const product = sockets * cores * threads;
  const maxcpus = wanted ?? product;
  const cpus = given.cpus ?? maxcpus;
  const levels = `sockets (${sockets}) * cores (${cores}) * threads (${threads})`;
  if (product !== maxcpus) {
    throw new OptionError(
      "Invalid CPU topology: product of the hierarchy must match maxcpus: " +
        `${levels} != maxcpus (${maxcpus})`,
    );
  }
  if (maxcpus < cpus) {
    throw new OptionError(
      "Invalid CPU topology: maxcpus must be equal to or greater than smp: " +
        `${levels} == maxcpus (${maxcpus}) < smp_cpus (${cpus})`,
    );
  }
  if (maxcpus > MAX_CPUS) {
    throw new OptionError(
      `Invalid SMP CPUs ${maxcpus}. The max CPUs supported by machine '${MACHINE_TYPE}' is ${MAX_CPUS}`,
    );
  }
  return { cpus, maxcpus, sockets, dies: 1, cores, threads };
}

/** `-smp` */
export function smp(text: string, draft: Draft): void {
  draft.config.smp = parseSmp(text);
}
