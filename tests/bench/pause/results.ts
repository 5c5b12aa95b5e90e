/**
 * What `pause` records: the JSON file's schema. The reports are made from it and from nothing else.
 *
 * @module
 */
import { z } from "zod";
import { acceleratorNames } from "../../../vmm/accel/accelerator.ts";
import { summarize, type Summary } from "../statistics.ts";

/** How a VMM is replaced; `exec` is direct, `exec-relay` goes through a helper process. */
export const modes = ["transfer", "exec", "exec-relay", "reboot"] as const;
/** One of {@linkcode modes}. */
export type Mode = typeof modes[number];

/** The guests: two in user mode, one in kernel mode, one that has several vCPUs (kernel mode). */
export const guests = ["cpl3", "cpl0", "dirty", "smp"] as const;

/** A VMM and a mode: what is compared. */
const subject = z.object({
  /** Unique, for people: `QEMU q35 exec`. */
  name: z.string(),
  vmm: z.enum(["denovo", "qemu"]),
  machine: z.enum(["microvm", "q35"]),
  mode: z.enum(modes),
});

/** The guest and its memory: under what the subjects are compared. */
const configuration = z.object({
  /** Unique, for people: `cpl3, 256M`. */
  name: z.string(),
  guest: z.enum(guests),
  /** Bytes of RAM. */
  ram: z.int().positive(),
  /** `2M`: huge pages. */
  page: z.enum(["4K", "2M"]),
  cpus: z.int().positive(),
  /** Whether all of RAM was allocated before the guest started. */
  populated: z.boolean(),
});

/** One entry of Denovo's `x-timeline`. */
export const step = z.object({
  /** What was done from the entry before to this moment. */
  step: z.string(),
  /** Microseconds from where the guest stopped to the step's end; below 0 what came before. */
  us: z.number(),
  /** Which process did it: old, new, helper. */
  process: z.string(),
  /** Which vCPU, where each has an entry. */
  vcpu: z.int().optional(),
});

/** What `x-pause-usage` has of each half of a pause. */
export const usage = z.array(z.object({ "page-faults": z.int(), preemptions: z.int() }));

/** One update, or the attempt of one. */
const run = z.object({
  configuration: z.string(),
  subject: z.string(),
  /** Counts from 0 in each pair of configuration and subject. */
  index: z.int().nonnegative(),
  /** How many updates this guest had seen before. */
  generation: z.int().nonnegative(),
  /** Why it failed; what follows is there only if it did not. */
  error: z.string().optional(),
  /**
   * The longest gap, in microseconds; of all vCPUs the longest. On KVM it is what the guest saw; on
   * software CPUs, where QEMU's guests' clocks stand still in a pause, what the other process saw.
   * The same goes for `floorUs` and `atStopUs`.
   */
  gapUs: z.number().optional(),
  /** The same in a window of the same length without an update: the noise floor. */
  floorUs: z.number().optional(),
  /** Length of the two windows, in milliseconds. */
  windowMs: z.number().optional(),
  /** What the other process saw, in microseconds. */
  observedUs: z.number().optional(),
  /**
   * The gap around the moment of the event STOP, in microseconds: the update's own
   * pause, whatever else made the guest wait in the window. Not where the guest is stopped twice.
   */
  atStopUs: z.number().optional(),
  /**
   * What the guest lost from the end of that pause to 100 ms later or a little more, against its pace
   * another 100 ms later, in microseconds: page tables that are refilled, processors that it shares.
   * Below 0 it was faster. Not with several vCPUs.
   */
  afterUs: z.number().optional(),
  /** The longest time for which it did not look: it sees a pause too long by up to twice this. */
  observerBlindUs: z.number().optional(),
  /** From the command to its end, with the guest running in the successor; milliseconds. */
  updateMs: z.number().optional(),
  /** What the VMM says that the pause was, in microseconds (Denovo's `x-pause`). */
  xPauseUs: z.number().optional(),
  /** Page faults in both halves of the pause, by the VMMs' own account (Denovo's `x-pause-usage`). */
  pageFaults: z.int().optional(),
  /** How often the host gave the processor of either half to somebody else. */
  preemptions: z.int().optional(),
  /** The VMM's own account of the pause (Denovo's `x-timeline`). */
  timeline: z.array(step).optional(),
});

/** The machine and the programs. */
const host = z.object({
  cpu: z.string(),
  cpus: z.int(),
  hypervisor: z.boolean(),
  memoryMiB: z.number(),
  hugePages: z.string(),
  governor: z.string(),
  kernel: z.string(),
  deno: z.string(),
  denovo: z.string(),
  qemu: z.string().optional(),
  /** What ran the guests, of all VMMs. Measurements from before there was a choice are KVM's. */
  accel: z.enum(acceleratorNames).default("kvm"),
  tscKhz: z.number(),
  /** The priority of all processes that took part: 0, or less if the user has raised it. */
  nice: z.int().default(0),
  loadBefore: z.array(z.number()),
  loadAfter: z.array(z.number()),
});

/** The whole file. */
export const results = z.object({
  format: z.literal(1),
  date: z.string(),
  command: z.string(),
  quick: z.boolean(),
  /** Wall-clock seconds that it all took. */
  seconds: z.number(),
  host,
  subjects: z.array(subject),
  /** The first one is the base: in each of the others one thing is different. */
  configurations: z.array(configuration).min(1),
  /** What was asked for and not measured, with the reason. */
  skipped: z.array(z.object({ what: z.string(), reason: z.string() })),
  runs: z.array(run),
});

/** A VMM and a mode. */
export type Subject = z.infer<typeof subject>;
/** A guest and its memory. */
export type Configuration = z.infer<typeof configuration>;
/** One update. */
export type Run = z.infer<typeof run>;
/** One step of a pause. */
export type Step = z.infer<typeof step>;
/** The machine's description. */
export type Host = z.infer<typeof host>;
/** A whole measurement. */
export type Results = z.infer<typeof results>;

/** The numbers of a run that can be summarized. */
export type Quantity =
  | "gapUs"
  | "floorUs"
  | "observedUs"
  | "atStopUs"
  | "afterUs"
  | "xPauseUs"
  | "pageFaults"
  | "preemptions"
  | "windowMs"
  | "updateMs";

/**
 * Reads a file that was written before.
 *
 * @throws {Error} that names the file, if it is not one
 */
export async function readResults(path: string): Promise<Results> {
  const text = await Deno.readTextFile(path).catch((error) => {
    throw new Error(`Cannot read '${path}': ${(error as Error).message}`);
  });
  try {
    return results.parse(JSON.parse(text));
  } catch (error) {
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : `${error}`;
    throw new Error(`'${path}' is not a recorded measurement of pauses: ${problem}`);
  }
}

/** The runs of one configuration and subject. */
export function runsOf(
  { runs }: Results,
  configuration: Configuration,
  subject: Subject,
): readonly Run[] {
  return runs.filter((r) => r.configuration === configuration.name && r.subject === subject.name);
}

/** One number of each run that did not fail and has it. */
export function samples(runs: readonly Run[], quantity: Quantity): number[] {
  return runs.flatMap((run) => run.error === undefined ? run[quantity] ?? [] : []);
}

/** Summarizes one number of the runs; undefined if no run has it. */
export function summaryOf(runs: readonly Run[], quantity: Quantity): Summary | undefined {
  const values = samples(runs, quantity);
  return values.length === 0 ? undefined : summarize(values);
}

/** How many of the runs failed. */
export function failures(runs: readonly Run[]): number {
  return runs.filter(({ error }) => error !== undefined).length;
}

/** Bytes as `256M`, `16G`. */
export function sizeText(bytes: number): string {
  return bytes % 2 ** 30 === 0 ? `${bytes / 2 ** 30}G` : `${bytes / 2 ** 20}M`;
}
