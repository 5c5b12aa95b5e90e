/**
 * What a pause is made of, as a stacked bar and a table. A VMM that gives no steps still says how
 * long the pause was; then the bar shows what of the guest's gap this accounts for.
 *
 * @module
 */
import { median } from "../statistics.ts";
import { ms } from "./markdown.ts";
import {
  type Configuration,
  type Results,
  type Run,
  runsOf,
  type Step,
  type Subject,
} from "./results.ts";
import { element, escapeText, label, line, linearScale, picture, tickText } from "./svg.ts";

/** One part of a pause. */
export interface Segment {
  readonly step: string;
  readonly process: string;
  /** The median over the runs, microseconds. */
  readonly us: number;
}

/**
 * What the pauses of an update are made of: one, or two where it goes through a helper.
 *
 * @returns the parts of each pause, medians over the runs; empty if no VMM said anything
 */
export function pausesOf(runs: readonly Run[]): Segment[][] {
  const good = runs.filter(({ error, gapUs }) => error === undefined && gapUs !== undefined);
  const detailed = good
    .map(({ gapUs, timeline }) => ({ gapUs: gapUs!, pauses: split(timeline ?? []) }))
    .filter(({ pauses }) => pauses.length > 0);
  if (detailed.length > 0) return fromTimelines(detailed);
  const accounted = good.filter(({ xPauseUs }) => xPauseUs !== undefined);
  if (accounted.length === 0) return [];
  return [[
    {
      step: "the VMM's own account (x-pause)",
      process: "",
      us: median(accounted.map(({ xPauseUs }) => xPauseUs!)),
    },
    ...beyond(accounted.map(({ gapUs, xPauseUs }) => gapUs! - xPauseUs!)),
  ]];
}

/** One run's timeline. */
interface Detailed {
  readonly gapUs: number;
  readonly pauses: readonly (readonly Step[])[];
}

/** What is done for others than the guest, beside the pause or after it. */
const beside: ReadonlySet<string> = new Set(["answered", "settled"]);

/**
 * The steps of each pause, from the guest's stop until the last vCPU has entered it again, in
 * microseconds from the stop.
 */
function split(timeline: readonly Step[]): Step[][] {
  const stops = timeline.flatMap(({ step }, index) => step === "stop" ? index : []);
  return stops.map((from, i) => {
    const part = timeline.slice(from + 1, stops[i + 1]);
    const end = part.findLastIndex(({ step }) => step === "entered");
    return part.slice(0, end + 1).filter(({ step }) => !beside.has(step))
      .map((step) => ({ ...step, us: step.us - timeline[from].us }));
  }).filter((steps) => steps.length > 0);
}

/** Where an update has several pauses, the guest's longest gap says nothing of the others. */
function fromTimelines(runs: readonly Detailed[]): Segment[][] {
  const count = Math.max(...runs.map(({ pauses }) => pauses.length));
  const unexplained = count > 1
    ? []
    : beyond(runs.map(({ gapUs, pauses }) => gapUs - pauses[0].at(-1)!.us));
  return Array.from({ length: count }, (_, i) => [
    ...medians(runs.flatMap(({ pauses }) => i < pauses.length ? [pauses[i]] : [])),
    ...unexplained,
  ]);
}

/** Steps are matched by name: a run may lack some. They stay in the first run's order. */
function medians(runs: readonly (readonly Step[])[]): Segment[] {
  const parts = new Map<string, { step: string; process: string; samples: number[] }>();
  for (const steps of runs) {
    let last = 0;
    for (const { step, process, us, vcpu } of steps) {
      const name = vcpu ? `${step} (vCPU ${vcpu})` : step;
      const key = `${process}: ${name}`;
      const part = parts.get(key) ?? { step: name, process, samples: [] };
      parts.set(key, part);
      part.samples.push(us - last);
      last = us;
    }
  }
  return [...parts.values()].map(({ step, process, samples }) => ({
    step,
    process,
    us: median(samples),
  }));
}

/** What the guest felt and no VMM accounts for: e.g. the way back into the guest. */
function beyond(samples: readonly number[]): Segment[] {
  const us = median(samples);
  return us > 0 ? [{ step: "felt by the guest beyond it", process: "guest", us }] : [];
}

const bar = { left: 10, right: 24, height: 34, width: 900 };

/** A bar and a table for each pause of one subject; empty if nothing is known of them. */
export function timelineOf(
  results: Results,
  configuration: Configuration,
  subject: Subject,
): string {
  const pauses = pausesOf(runsOf(results, configuration, subject));
  return pauses.map((parts, i) => {
    const which = pauses.length === 1 ? "" : `, pause ${i + 1} of ${pauses.length}`;
    return timelineSection(`${subject.name}${which}`, parts);
  }).join("");
}

function timelineSection(name: string, parts: readonly Segment[]): string {
  const shown = parts.map((part) => ({ ...part, us: Math.max(0, part.us) }));
  const total = shown.reduce((sum, { us }) => sum + us, 0);
  const x = linearScale(total / 1000, bar.left, bar.width - bar.right);
  let from = 0;
  const boxes = shown.map(({ us, step }, i) => {
    const left = x.at(from / 1000);
    const width = x.at((from + us) / 1000) - left;
    from += us;
    const title = element("title", {}, escapeText(`${step}: ${ms(us)} ms`));
    const attributes = { x: left, y: 4, width, height: bar.height, class: `segment s${i % 8}` };
    const number = width > 26 ? label(`${i + 1}`, left + width / 2, 26, "middle", "on-bar") : "";
    return element("rect", attributes, title) + number;
  });
  const below = bar.height + 4;
  const axis = x.ticks.flatMap((tick) => [
    line(x.at(tick), below, x.at(tick), below + 5, "axis"),
    label(tickText(tick), x.at(tick), below + 19, "middle", "tick"),
  ]);
  const drawing = picture(`Steps of ${name}`, bar.width, below + 40, [
    ...boxes,
    ...axis,
    label("milliseconds, medians", bar.width / 2, below + 36, "middle"),
  ]);
  return element(
    "section",
    { class: "timeline" },
    element("h3", {}, escapeText(name)),
    drawing,
    stepTable(shown, total),
  );
}

function stepTable(parts: readonly Segment[], total: number): string {
  const rows = parts.map(({ step, process, us }, i) => {
    const swatch = element("span", { class: `swatch s${i % 8}` });
    const cells = [
      element("td", {}, `${swatch} ${i + 1}`),
      element("td", {}, escapeText(step)),
      element("td", {}, escapeText(process)),
      element("td", { class: "number" }, ms(us)),
      element("td", { class: "number" }, `${Math.round(100 * us / total)} %`),
    ];
    return element("tr", {}, ...cells);
  });
  const head = ["", "step", "process", "ms", "share"].map((name) => element("th", {}, name));
  return element("table", {}, element("tr", {}, ...head), ...rows);
}
