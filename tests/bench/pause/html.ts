/**
 * The report as one HTML page: plots as inline SVG, no scripts, nothing from the network.
 *
 * @module
 */
import { columnNotes, describe, floorSentence, ms } from "./markdown.ts";
import { type Category, colourOf, comparison, distribution } from "./plots.ts";
import {
  type Configuration,
  failures,
  type Results,
  runsOf,
  sizeText,
  summaryOf,
} from "./results.ts";
import { style } from "./style.ts";
import { element, escapeText } from "./svg.ts";
import { timelineOf } from "./timeline.ts";

/** Renders the page. */
export function renderHtml(results: Results): string {
  const base = results.configurations[0];
  const body = [
    element("h1", {}, "Pauses of updates"),
    element("p", {}, "How long a guest stands still while the VMM under it is replaced."),
    list(describe(results).map((text) => text.replaceAll("`", ""))),
    element("p", { class: "note" }, escapeText(floorSentence(results))),
    heading(`Every run, by mode (${base.name})`),
    legend(results),
    distribution(results, base),
    element(
      "p",
      { class: "note" },
      "Each dot is one update: the longest gap that the guest saw in its own TSC. The line is the " +
        "median. The small dots below are the same guest without an update, for as long: the noise " +
        "floor.",
    ),
    ...comparisons(results),
    ...timelines(results, base),
    heading("All numbers, in milliseconds"),
    table(results),
    element("p", { class: "note" }, escapeText(columnNotes.replaceAll("_", ""))),
    ...problems(results),
  ];
  return [
    "<!DOCTYPE html>",
    '<html lang="en"><head><meta charset="utf-8">',
    // The page says itself that it loads nothing, and the browser holds it to that.
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; ` +
    `style-src 'unsafe-inline'">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>Pauses of updates</title><style>${style}</style></head><body>`,
    ...body,
    "</body></html>\n",
  ].join("\n");
}

function heading(text: string): string {
  return element("h2", {}, escapeText(text));
}

function list(lines: readonly string[]): string {
  return element("ul", {}, ...lines.map((text) => element("li", {}, escapeText(text))));
}

function legend({ subjects }: Results): string {
  const names = new Map(subjects.map((subject) => [
    colourOf(subject),
    subject.vmm === "denovo" ? "Denovo" : `QEMU ${subject.machine}`,
  ]));
  const entries = [...names, ["floor", "noise floor"]].map(([colour, name]) =>
    element("span", {}, element("span", { class: `swatch ${colour}` }), ` ${name}`)
  );
  return element("p", { class: "legend" }, ...entries);
}

/** The axes along which a line makes sense. */
const quantities: ReadonlySet<string> = new Set(["RAM", "vCPUs"]);

/** A section of panels for each thing that was changed. */
function comparisons(results: Results): string[] {
  const [base, ...others] = results.configurations;
  const all = [base, ...others];
  const like = (...but: (keyof Configuration)[]) =>
    all.filter((configuration) =>
      (["guest", "ram", "page", "cpus", "populated"] as const).every((key) =>
        but.includes(key) || configuration[key] === base[key]
      )
    );
  const named = (configurations: readonly Configuration[], name: (c: Configuration) => string) =>
    configurations.map((configuration): Category => ({ name: name(configuration), configuration }));
  const bySize = (a: Configuration, b: Configuration) => a.ram - b.ram;
  const populated = [true, false].filter((value) => value !== base.populated);
  const sections: [string, string, Category[]][] = [
    ["Guest RAM", "RAM", named(like("ram").sort(bySize), ({ ram }) => sizeText(ram))],
    ...populated.map((value): [string, string, Category[]] => [
      `Guest RAM, ${value ? "populated before the guest started" : "sparse"}`,
      "RAM",
      named(
        all.filter((c) => like("ram", "populated").includes(c) && c.populated === value)
          .sort(bySize),
        ({ ram }) => sizeText(ram),
      ),
    ]),
    ["Page size", "pages", named(like("page"), ({ page }) => page)],
    [
      "vCPUs (guest smp, kernel mode)",
      "vCPUs",
      named(all.filter(({ guest }) => guest === "smp"), ({ cpus }) => `${cpus}`),
    ],
    [
      "Guests",
      "guest",
      named(like("guest").filter(({ guest }) => guest !== "smp"), ({ guest }) => guest),
    ],
  ];
  return sections.flatMap(([title, axis, categories]) => {
    const plot = comparison(results, categories, axis, quantities.has(axis));
    return plot === "" ? [] : [heading(title), legend(results), plot];
  });
}

function timelines(results: Results, base: Configuration): string[] {
  const bars = results.subjects.map((subject) => timelineOf(results, base, subject))
    .filter((bar) => bar !== "");
  if (bars.length === 0) return [];
  const hasSteps = results.runs.some(({ timeline }) => timeline && timeline.length > 0);
  const note = hasSteps
    ? "Steps as the VMMs report them (x-timeline); what the guest felt beyond them comes last."
    : "The VMM reported no steps (x-timeline), only the pause as a whole (x-pause).";
  return [
    heading(`What the pause is made of (${base.name})`),
    element("p", { class: "note" }, note),
    ...bars,
  ];
}

const columns = [
  ...["guest", "VMM and mode", "n", "failed", "median", "min", "max", "p99"],
  ...["floor median", "floor max", "observed", "at STOP", "after", "x-pause"],
];

function table(results: Results): string {
  const head = columns.map((name) => element("th", {}, name));
  const rows = results.configurations.flatMap((configuration) =>
    results.subjects.flatMap((subject) => {
      const runs = runsOf(results, configuration, subject);
      if (runs.length === 0) return [];
      const pause = summaryOf(runs, "gapUs");
      const floor = summaryOf(runs, "floorUs");
      const failed = failures(runs);
      const cells = [
        element("td", {}, escapeText(configuration.name)),
        element("td", {}, escapeText(subject.name)),
        element("td", { class: "number" }, `${pause?.n ?? 0}`),
        element("td", { class: failed > 0 ? "number failed" : "number" }, `${failed}`),
        ...[
          ...[pause?.median, pause?.min, pause?.max, pause?.p99, floor?.median, floor?.max],
          ...(["observedUs", "atStopUs", "afterUs", "xPauseUs"] as const)
            .map((quantity) => summaryOf(runs, quantity)?.median),
        ].map((us) => element("td", { class: "number" }, ms(us))),
      ];
      return element("tr", { class: "result" }, ...cells);
    })
  );
  const content = element("table", {}, element("tr", {}, ...head), ...rows);
  return element("div", { class: "wide" }, content);
}

function problems({ runs, skipped }: Results): string[] {
  const failed = runs.filter(({ error }) => error !== undefined);
  return [
    ...(failed.length === 0 ? [] : [
      heading("Failed runs"),
      list(failed.map((r) => `${r.configuration} | ${r.subject} #${r.index}: ${r.error}`)),
    ]),
    ...(skipped.length === 0 ? [] : [
      heading("Not measured"),
      list(skipped.map(({ what, reason }) => `${what}: ${reason}`)),
    ]),
  ];
}
