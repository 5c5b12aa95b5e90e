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

/** What the runs' pauses are made of; empty if no VMM said anything. */
export function segments(runs: readonly Run[]): Segment[] {
  const good = runs.filter(({ error, gapUs }) => error === undefined && gapUs !== undefined);
  const detailed = good
    .map(({ gapUs, timeline }) => ({ gapUs: gapUs!, steps: pauseSteps(timeline ?? []) }))
    .filter(({ steps }) => steps.length > 0);
  if (detailed.length > 0) return fromTimelines(detailed);
  const accounted = good.filter(({ xPauseUs }) => xPauseUs !== undefined);
  if (accounted.length === 0) return [];
  return [
    {
      step: "the VMM's own account (x-pause)",
      process: "",
      us: median(accounted.map(({ xPauseUs }) => xPauseUs!)),
    },
    ...beyond(accounted.map(({ gapUs, xPauseUs }) => gapUs! - xPauseUs!)),
  ];
}

/** The steps inside the pause: after the stop, until the last vCPU has entered the guest again. */
function pauseSteps(timeline: readonly Step[]): readonly Step[] {
  const end = timeline.findLastIndex(({ step }) => step === "entered");
  const until = end < 0 ? timeline.findLastIndex(({ step }) => step === "resumed") : end;
  const inside = until < 0 ? timeline : timeline.slice(0, until + 1);
  return inside.filter(({ us }) => us > 0);
}

/** Steps are matched by name: a run may lack some. They stay in the first run's order. */
function fromTimelines(runs: readonly { gapUs: number; steps: readonly Step[] }[]): Segment[] {
  const parts = new Map<string, { step: string; process: string; samples: number[] }>();
  for (const { steps } of runs) {
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
  return [
    ...parts.values().map(({ step, process, samples }) => ({ step, process, us: median(samples) })),
    ...beyond(runs.map(({ gapUs, steps }) => gapUs - steps.at(-1)!.us)),
  ];
}

/** What the guest felt and no VMM accounts for: e.g. the way back into the guest. */
function beyond(samples: readonly number[]): Segment[] {
  const us = median(samples);
  return us > 0 ? [{ step: "felt by the guest beyond it", process: "guest", us }] : [];
}

const bar = { left: 10, right: 24, height: 34, width: 900 };

/** The bar and the table of one subject; empty if it has no segments. */
export function timelineOf(
  results: Results,
  configuration: Configuration,
  subject: Subject,
): string {
  const parts = segments(runsOf(results, configuration, subject));
  if (parts.length === 0) return "";
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
    const name = width > 26 ? label(`${i + 1}`, left + width / 2, 26, "middle", "on-bar") : "";
    return element("rect", attributes, title) + name;
  });
  const below = bar.height + 4;
  const axis = x.ticks.flatMap((tick) => [
    line(x.at(tick), below, x.at(tick), below + 5, "axis"),
    label(tickText(tick), x.at(tick), below + 19, "middle", "tick"),
  ]);
  const drawing = picture(`Steps of ${subject.name}`, bar.width, below + 40, [
    ...boxes,
    ...axis,
    label("milliseconds, medians", bar.width / 2, below + 36, "middle"),
  ]);
  return element(
    "section",
    { class: "timeline" },
    element("h3", {}, escapeText(subject.name)),
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
