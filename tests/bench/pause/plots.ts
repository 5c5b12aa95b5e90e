/**
 * The plots of pauses: where each run lies, and how the pause changes with the guest.
 *
 * @module
 */
import { summarize } from "../statistics.ts";
import { ms } from "./markdown.ts";
import {
  type Configuration,
  type Results,
  type Run,
  runsOf,
  samples,
  type Subject,
} from "./results.ts";
import {
  element,
  escapeText,
  label,
  line,
  logScale,
  picture,
  type Scale,
  tickText,
} from "./svg.ts";

/** The class that gives a subject its colour: one for each VMM and machine. */
export function colourOf({ vmm, machine }: Subject): string {
  return vmm === "denovo" ? "denovo" : `qemu-${machine}`;
}

const strip = { left: 170, right: 96, row: 46, top: 10, bottom: 44, width: 900 };

/** Every run as a dot, a row for each subject, and under it the noise floor. */
export function distribution(results: Results, configuration: Configuration): string {
  const rows = results.subjects
    .map((subject) => ({ subject, runs: runsOf(results, configuration, subject) }))
    .filter(({ runs }) => samples(runs, "gapUs").length > 0);
  if (rows.length === 0) return "";
  const all = rows.flatMap(({ runs }) => [...samples(runs, "gapUs"), ...samples(runs, "floorUs")]);
  const height = strip.top + rows.length * strip.row + strip.bottom;
  const bottom = height - strip.bottom;
  const x = logScale(all.map((us) => us / 1000), strip.left, strip.width - strip.right);
  const content = [
    ...x.ticks.map((tick) => line(x.at(tick), strip.top, x.at(tick), bottom, "grid")),
    ...x.ticks.map((tick) => label(tickText(tick), x.at(tick), bottom + 18, "middle", "tick")),
    label(
      "milliseconds (logarithmic)",
      (strip.left + strip.width - strip.right) / 2,
      height - 6,
      "middle",
    ),
    label("median, ms", strip.width - 4, strip.top + 2, "end", "tick"),
    ...rows.slice(1).map((_, i) => {
      const at = strip.top + (i + 1) * strip.row - 3;
      return line(0, at, strip.width, at, "grid");
    }),
    ...rows.flatMap(({ subject, runs }, i) =>
      stripRow(subject, runs, strip.top + i * strip.row, x)
    ),
  ];
  return picture(`Pauses of ${configuration.name}`, strip.width, height, content);
}

function stripRow(subject: Subject, runs: readonly Run[], top: number, x: Scale): string[] {
  const middle = top + strip.row * 0.4;
  const colour = colourOf(subject);
  const { median } = summarize(samples(runs, "gapUs"));
  const at = x.at(median / 1000);
  return [
    label(subject.name, strip.left - 12, middle + 8, "end"),
    ...runs.flatMap((run) => [
      dot(run, run.floorUs, x, middle + 18, `floor`, 2.5),
      dot(run, run.gapUs, x, middle + jitter(run.index), `run ${colour}`, 4),
    ]),
    line(at, middle - 12, at, middle + 12, "median"),
    label(ms(median), strip.width - 4, middle + 8, "end", "value"),
  ];
}

function dot(run: Run, us: number | undefined, x: Scale, cy: number, type: string, r: number) {
  if (us === undefined || run.error !== undefined) return "";
  const text = `run ${run.index}: ${ms(run.gapUs)} ms, floor ${ms(run.floorUs)} ms`;
  const title = element("title", {}, escapeText(text));
  return element("circle", { cx: x.at(us / 1000), cy, r, class: type }, title);
}

/** Dots of one row lie beside each other, the same way every time. */
function jitter(index: number): number {
  return ((index * 7) % 9 - 4) * 2;
}

/** One place on the horizontal axis of {@linkcode comparison}. */
export interface Category {
  readonly name: string;
  readonly configuration: Configuration;
}

const panel = { left: 58, right: 14, top: 30, bottom: 40, width: 440, height: 250 };

/**
 * Medians and ranges over a property of the guest: a panel for each mode, the same axis in all.
 *
 * @param axis what is on the horizontal axis
 * @param isQuantity whether it is a quantity, so that a line from one to the next means something
 */
export function comparison(
  results: Results,
  categories: readonly Category[],
  axis: string,
  isQuantity: boolean,
): string {
  const measured = categories.filter(({ configuration }) =>
    results.subjects.some((subject) =>
      samples(runsOf(results, configuration, subject), "gapUs").length > 0
    )
  );
  if (measured.length < 2) return "";
  const values = measured.flatMap(({ configuration }) =>
    results.subjects.flatMap((subject) => {
      const runs = runsOf(results, configuration, subject);
      return [...samples(runs, "gapUs"), ...samples(runs, "floorUs")];
    })
  );
  const y = logScale(values.map((us) => us / 1000), panel.height - panel.bottom, panel.top);
  const modes = [...new Set(results.subjects.map(({ mode }) => mode))];
  const panels = modes.map((mode) => {
    const subjects = results.subjects.filter((subject) => subject.mode === mode);
    const content = panelContent(results, subjects, measured, axis, isQuantity, y);
    const title = label(mode, panel.left, 16, "start", "panel");
    return picture(`${mode}: pause by ${axis}`, panel.width, panel.height, [title, ...content]);
  });
  return element("div", { class: "panels" }, ...panels);
}

function panelContent(
  results: Results,
  subjects: readonly Subject[],
  categories: readonly Category[],
  axis: string,
  isQuantity: boolean,
  y: Scale,
): string[] {
  const right = panel.width - panel.right;
  const bottom = panel.height - panel.bottom;
  const step = (right - panel.left) / categories.length;
  const centre = (i: number) => panel.left + step * (i + 0.5);
  return [
    ...y.ticks.map((tick) => line(panel.left, y.at(tick), right, y.at(tick), "grid")),
    ...y.ticks.map((tick) => label(tickText(tick), panel.left - 6, y.at(tick) + 4, "end", "tick")),
    label("ms", 4, panel.top - 14, "start", "tick"),
    ...categories.map(({ name }, i) => label(name, centre(i), bottom + 16, "middle", "tick")),
    label(axis, (panel.left + right) / 2, panel.height - 6, "middle"),
    ...subjects.flatMap((subject, k) => {
      const shift = (k - (subjects.length - 1) / 2) * Math.min(16, step / 5);
      const points = categories.flatMap(({ configuration }, i) => {
        const runs = runsOf(results, configuration, subject);
        const pauses = samples(runs, "gapUs");
        return pauses.length === 0
          ? []
          : { x: centre(i) + shift, pause: summarize(pauses), floors: samples(runs, "floorUs") };
      });
      const path = points.map((p) => `${p.x.toFixed(1)},${y.at(p.pause.median / 1000).toFixed(1)}`);
      const colour = colourOf(subject);
      return [
        isQuantity ? element("polyline", { points: path.join(" "), class: `trend ${colour}` }) : "",
        ...points.map(({ x, pause, floors }) => pointRange(x, pause, floors, y, colour)),
      ];
    }),
  ];
}

function pointRange(
  x: number,
  { median, min, max, n }: ReturnType<typeof summarize>,
  floors: readonly number[],
  y: Scale,
  colour: string,
): string {
  const text = `median ${ms(median)} ms, ${ms(min)} to ${ms(max)} ms, n = ${n}`;
  const floor = floors.length === 0 ? undefined : y.at(summarize(floors).median / 1000);
  return element(
    "g",
    { class: "point" },
    element("title", {}, escapeText(text)),
    line(x, y.at(min / 1000), x, y.at(max / 1000), `range ${colour}`),
    element("circle", { cx: x, cy: y.at(median / 1000), r: 4.5, class: `run ${colour}` }),
    floor === undefined ? "" : line(x - 6, floor, x + 6, floor, "floor-line"),
  );
}
