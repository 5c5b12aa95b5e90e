/**
 * The report as Markdown: what was measured on what, one table, what failed, what was left out.
 *
 * @module
 */
import {
  type Configuration,
  failures,
  type Quantity,
  type Results,
  type Run,
  runsOf,
  samples,
  type Subject,
  summaryOf,
} from "./results.ts";
import { summarize } from "../statistics.ts";

/** What the columns of the table mean; names are between underscores. */
export const columnNotes =
  "Milliseconds. _median_, _min_, _max_, _p99_ are of the pause: the longest gap between two " +
  "readings of the TSC that the guest saw during the update. _floor_: the same in a window of the " +
  "same length without an update; a difference below it says nothing. _observed_: the pause by a " +
  "process that watched the guest's counter. _at STOP_: the gap that the guest saw around the moment " +
  "at which the VMM stopped it: the update's own pause, whatever else made it wait. _after_: what it " +
  "lost in the 100 ms after that, or a little more, against its pace later on. _x-pause_: the " +
  "pause by the VMM's own account. _update_: from the command until the guest ran in the successor, " +
  "whose start is part of it in cpr-exec and cpr-reboot. p99 by nearest rank: with fewer than 100 runs it is the maximum.";

/** What is different on software CPUs. */
export const outsideNote =
  "The guests ran on the VMMs' software CPUs, and QEMU's stops the guest's TSC together with the " +
  "guest: pause, floor and _at STOP_ are what the process saw that watched the guest's counter.";

/** Renders the report. */
export function renderMarkdown(results: Results): string {
  const sections = [
    "# Pauses of updates",
    describe(results).map((line) => `- ${line}`).join("\n"),
    floorSentence(results),
    table(results),
    columnNotes,
    ...usageSentence(results),
    ...(results.host.accel === "tcg" ? [outsideNote] : []),
    ...comparison(results),
    ...failureSection(results),
    ...skippedSection(results),
  ];
  return sections.join("\n\n") + "\n";
}

/** The measurement and the machine, one line each. */
export function describe({ date, command, seconds, quick, host }: Results): string[] {
  return [
    `${date}, in ${seconds} s${quick ? " (quick: few runs, rough numbers)" : ""}`,
    `\`${command}\``,
    `Denovo ${host.denovo}, Deno ${host.deno}${
      host.qemu === undefined ? "" : `, QEMU ${host.qemu}`
    }`,
    `${host.cpus} × ${host.cpu}${host.hypervisor ? " (itself a virtual machine)" : ""}, ` +
    `${(host.memoryMiB / 1024).toFixed(0)} GiB, Linux ${host.kernel}, ` +
    `governor ${host.governor}, TSC ${(host.tscKhz / 1000).toFixed(1)} MHz`,
    `guests run on ${host.accel === "kvm" ? "KVM" : "the VMMs' software CPUs (-accel tcg)"}`,
    `huge pages: ${host.hugePages}; load average before ${loads(host.loadBefore)}, ` +
    `after ${loads(host.loadAfter)}`,
    host.nice < 0
      ? `all processes of the measurement had the priority nice ${host.nice}`
      : "no process had a raised priority or a processor of its own",
    ...(host.loadBefore[0] > host.cpus / 4
      ? ["THE MACHINE WAS BUSY before this began: judge by the noise floor, or measure again"]
      : []),
  ];
}

function loads(values: readonly number[]): string {
  return values.map((value) => value.toFixed(2)).join(" ");
}

/** The noise floor over everything, in a sentence. */
export function floorSentence({ runs }: Results): string {
  const floors = samples(runs, "floorUs");
  if (floors.length === 0) return "Noise floor: unknown, no run succeeded.";
  const { median, p99, max, n } = summarize(floors);
  return `Noise floor over all ${n} windows without an update: median ${ms(median)} ms, ` +
    `p99 ${ms(p99)} ms, maximum ${ms(max)} ms.`;
}

/** What disturbed the pauses, in a sentence. */
function usageSentence({ runs }: Results): string[] {
  const faults = samples(runs, "pageFaults");
  if (faults.length === 0) return [];
  const { median, max, n } = summarize(faults);
  const lost = samples(runs, "preemptions").filter((preemptions) => preemptions > 0).length;
  return [
    `In Denovo's halves of ${n} pauses: page faults ${median} (median; maximum ${max}); the host gave ` +
    `the processor to somebody else in ${lost} of them.`,
  ];
}

const head = [
  ...["guest", "VMM and mode", "n", "failed", "median", "min", "max", "p99"],
  ...["floor median", "floor max", "observed", "at STOP", "after", "x-pause", "update"],
];

function table(results: Results): string {
  const lines = [head, head.map((_, i) => i < 2 ? "---" : "--:")];
  for (const configuration of results.configurations) {
    for (const subject of results.subjects) {
      const runs = runsOf(results, configuration, subject);
      if (runs.length > 0) lines.push(line(configuration, subject, runs));
    }
  }
  return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function line(configuration: Configuration, subject: Subject, runs: readonly Run[]): string[] {
  const pause = summaryOf(runs, "gapUs");
  const floor = summaryOf(runs, "floorUs");
  return [
    configuration.name,
    subject.name,
    `${pause?.n ?? 0}`,
    `${failures(runs)}`,
    ...[pause?.median, pause?.min, pause?.max, pause?.p99, floor?.median, floor?.max].map(ms),
    medianOf(runs, "observedUs"),
    medianOf(runs, "atStopUs"),
    medianOf(runs, "afterUs"),
    medianOf(runs, "xPauseUs"),
    ms(times1000(summaryOf(runs, "updateMs")?.median)),
  ];
}

function medianOf(runs: readonly Run[], quantity: Quantity): string {
  return ms(summaryOf(runs, quantity)?.median);
}

/** Microseconds as milliseconds with three digits that count; a dash for nothing. */
export function ms(us: number | undefined): string {
  if (us === undefined) return "–";
  const value = us / 1000;
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3);
}

function times1000(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value * 1000;
}

/** What two VMMs are compared by. */
const compared = [
  { quantity: "gapUs", name: "pause", us: 1 },
  { quantity: "atStopUs", name: "at STOP", us: 1 },
  { quantity: "updateMs", name: "update", us: 1000 },
] as const;

/**
 * One number of ours beside one of theirs: the medians' ratio, and how it spreads over pairs of runs
 * that were made in turns.
 */
function ratioOf(ours: readonly number[], theirs: readonly number[]): string {
  const [a, b] = [ours, theirs].map((values) => summarize(values).median);
  const pairs = ours.slice(0, theirs.length).map((value, i) => value / theirs[i])
    .toSorted((x, y) => x - y);
  const quartile = (share: number) => pairs[Math.max(0, Math.ceil(share * pairs.length) - 1)];
  const spread = `${quartile(0.25).toFixed(2)} to ${quartile(0.75).toFixed(2)}`;
  return `ratio ${(a / b).toFixed(2)} (${spread})`;
}

/** Denovo beside QEMU where both were measured in the same mode. */
function comparison(results: Results): string[] {
  const base = results.configurations[0];
  const lines = results.subjects.filter(({ vmm }) => vmm === "qemu").flatMap((theirs) => {
    const mine = results.subjects.find(({ vmm, mode }) => vmm === "denovo" && mode === theirs.mode);
    if (!mine) return [];
    const [ours, other] = [mine, theirs].map((subject) => runsOf(results, base, subject));
    const ratios = compared.flatMap(({ quantity, name, us }) => {
      const [a, b] = [ours, other].map((runs) => samples(runs, quantity));
      if (a.length === 0 || b.length === 0) return [];
      const [x, y] = [a, b].map((values) => ms(summarize(values).median * us));
      return `${name} ${x} and ${y}, ${ratioOf(a, b)}`;
    });
    return ratios.length === 0 ? [] : `- ${mine.name}, ${theirs.name}: ${ratios.join("; ")}`;
  });
  if (lines.length === 0) return [];
  return [
    `## Beside QEMU (${base.name}, medians in ms, ratios with the quartiles of the pairs)`,
    lines.join("\n"),
  ];
}

function failureSection({ runs }: Results): string[] {
  const counts = new Map<string, number>();
  for (const { configuration, subject, error } of runs) {
    if (error === undefined) continue;
    const text = `${configuration} | ${subject}: ${error.replaceAll(/\s+/g, " ")}`;
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  if (counts.size === 0) return ["No run failed."];
  const lines = [...counts].map(([text, count]) => `- ${count} × ${text}`);
  return ["## Failed runs", lines.join("\n")];
}

function skippedSection({ skipped }: Results): string[] {
  if (skipped.length === 0) return [];
  return ["## Not measured", skipped.map(({ what, reason }) => `- ${what}: ${reason}`).join("\n")];
}
