/** The reports, made from `recorded.json`: a real measurement of a busy machine, made smaller. */
import assert from "node:assert/strict";

import { renderHtml } from "./html.ts";
import { renderMarkdown } from "./markdown.ts";
import { readResults, type Results, type Run, runsOf, summaryOf } from "./results.ts";
import { pausesOf } from "./timeline.ts";

const recorded = await readResults(new URL("recorded.json", import.meta.url).pathname);
const [base] = recorded.configurations;
const [transfer] = recorded.subjects;

/** The same measurement with some runs changed. */
function changed(change: (run: Run, index: number) => Run): Results {
  return { ...recorded, runs: recorded.runs.map(change) };
}

/** How often a pattern is found. */
function count(text: string, pattern: RegExp): number {
  return [...text.matchAll(pattern)].length;
}

/** The cells of the one line of the Markdown table that begins so. */
function cells(markdown: string, ...first: string[]): string[] {
  const lines = markdown.split("\n").filter((line) => line.startsWith(`| ${first.join(" | ")} |`));
  assert.equal(lines.length, 1, `${lines.length} lines begin with ${first.join(", ")}`);
  return lines[0].split("|").slice(1, -1).map((cell) => cell.trim());
}

Deno.test("readResults() refuses a file that is no measurement, and says where it is wrong", async () => {
  const path = await Deno.makeTempFile();
  try {
    const message = (problem: string) => ({
      message: new RegExp(`^'${path}' is not a recorded measurement of pauses: .*${problem}`, "s"),
    });
    await Deno.writeTextFile(path, "{");
    await assert.rejects(readResults(path), message("SyntaxError"));
    const [run, ...runs] = recorded.runs;
    const wrong = { ...recorded, runs: [{ ...run, gapUs: "long" }, ...runs] };
    await Deno.writeTextFile(path, JSON.stringify(wrong));
    await assert.rejects(readResults(path), message("runs\\[0\\]\\.gapUs"));
    await assert.rejects(readResults("/nonexistent"), {
      message: /^Cannot read '\/nonexistent': No such file/,
    });
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("the table gives n, failures, median, min, max, p99, floor, the other views", () => {
  const gaps = [1000, 2000, 3000];
  const results = changed((run) =>
    run.configuration !== base.name || run.subject !== transfer.name ? run : {
      ...run,
      gapUs: gaps[run.index],
      floorUs: 10 * (run.index + 1),
      observedUs: 2100,
      atStopUs: 1950,
      afterUs: -1960,
      xPauseUs: 1900,
      updateMs: 1234,
    }
  );
  assert.deepEqual(cells(renderMarkdown(results), base.name, transfer.name), [
    ...[base.name, transfer.name, "3", "0"],
    ...["2.00", "1.00", "3.00", "3.00", "0.020", "0.030", "2.10", "1.95", "-1.960", "1.90", "1234"],
  ]);
});

Deno.test("the table has a line for each configuration and subject that were measured", () => {
  const lines = recorded.configurations.length * recorded.subjects.length;
  assert.equal(count(renderMarkdown(recorded), /^\| cpl3, /gm), lines);
  assert.equal(count(renderHtml(recorded), /<tr class="result">/g), lines);
});

Deno.test("a run that failed counts as failed, is listed with its reason and is in no number", () => {
  const results = changed(({ configuration, subject, index, generation, ...numbers }) => {
    const isIt = configuration === base.name && subject === transfer.name && index === 1;
    const id = { configuration, subject, index, generation };
    return isIt ? { ...id, error: "the <VMM> said\nno" } : { ...id, ...numbers };
  });
  const [, , n, failed, median] = cells(renderMarkdown(results), base.name, transfer.name);
  assert.deepEqual([n, failed], ["2", "1"]);
  const rest = recorded.runs.filter((run) =>
    run.configuration === base.name && run.subject === transfer.name && run.index !== 1
  );
  assert.equal(Number(median), Number((summaryOf(rest, "gapUs")!.median / 1000).toFixed(2)));
  const line = `- 1 × ${base.name} | ${transfer.name}: the <VMM> said no`;
  assert.ok(renderMarkdown(results).includes(`## Failed runs\n\n${line}`));
  const html = renderHtml(results);
  assert.ok(html.includes('<td class="number failed">1</td>'));
  assert.ok(html.includes("#1: the &lt;VMM&gt; said\nno</li>"));
  assert.ok(!html.includes("<VMM>"));
});

Deno.test("the Markdown tells the machine, the noise floor, what is skipped, and QEMU beside", () => {
  const skipped = [{ what: "Denovo exec-relay", reason: "no such parameter" }];
  const markdown = renderMarkdown({ ...recorded, skipped });
  assert.match(markdown, /^- 2 × AMD EPYC \(itself a virtual machine\), 24 GiB, Linux 6\.18/m);
  assert.match(markdown, /^Noise floor over all 18 windows without an update: median [\d.]+ ms/m);
  assert.match(markdown, /^## Not measured\n\n- Denovo exec-relay: no such parameter$/m);
  assert.match(
    markdown,
    /^- Denovo transfer, QEMU microvm transfer: pause 13\.5 and 12\.0, ratio 1\.12 \(0\.91 to 1\.27\)$/m,
  );
  assert.match(markdown, /^- THE MACHINE WAS BUSY/m);
  const idle = { ...recorded, host: { ...recorded.host, loadBefore: [0.1, 3, 3] } };
  assert.doesNotMatch(renderMarkdown(idle), /BUSY/);
});

Deno.test("the Markdown tells what ran the guests, and by which clock they were measured", () => {
  const text = renderMarkdown(recorded);
  assert.match(text, /^- guests run on KVM$/m);
  assert.match(text, /^- no process had a raised priority or a processor of its own$/m);
  assert.doesNotMatch(text, /stops the guest's TSC/);
  const host = { ...recorded.host, accel: "tcg", nice: -10 } as const;
  const software = renderMarkdown({ ...recorded, host });
  assert.match(software, /^- guests run on the VMMs' software CPUs \(-accel tcg\)$/m);
  assert.match(software, /^- all processes of the measurement had the priority nice -10$/m);
  assert.match(software, /^The guests ran on .* stops the guest's TSC together with the guest/m);
});

Deno.test("the Markdown tells what disturbed the pauses, where the VMMs say it", () => {
  assert.doesNotMatch(renderMarkdown(recorded), /page faults/);
  const told = changed((run, i) => ({ ...run, pageFaults: i, preemptions: i % 2 }));
  assert.match(
    renderMarkdown(told),
    /^In Denovo's halves of 18 pauses: page faults 8 \(median; maximum 17\); .* in 9 of them\.$/m,
  );
});

Deno.test("a ratio is the medians', and spreads from quartile to quartile of the pairs", () => {
  const ours = [1, 2, 3, 4, 50];
  const results = changed((run) =>
    run.configuration !== base.name ? run : {
      ...run,
      updateMs: run.subject === transfer.name ? ours[run.index] : [10, 5, 2][run.index],
    }
  );
  // Of the pairs 0.1, 0.4 and 1.5; the medians are 2 and 5.
  assert.match(renderMarkdown(results), /update 2\.00 and 5\.00, ratio 0\.40 \(0\.10 to 1\.50\)$/m);
});

Deno.test("the page has a dot for each run of the base, and for each noise floor", () => {
  const html = renderHtml(recorded);
  const [, first] = /(<svg[^>]*aria-label="Pauses of [^"]*".*?<\/svg>)/s.exec(html)!;
  const runs = recorded.subjects.flatMap((subject) => runsOf(recorded, base, subject));
  assert.equal(count(first, /<circle [^>]*class="run /g), runs.length);
  assert.equal(count(first, /<circle [^>]*class="floor"/g), runs.length);
  assert.equal(count(first, /class="median"/g), recorded.subjects.length);
});

Deno.test("the page has a panel for each mode, with a point for each subject and size of RAM", () => {
  const html = renderHtml(recorded);
  const panels = [...html.matchAll(/<svg[^>]*aria-label="(\w+): pause by RAM".*?<\/svg>/gs)];
  assert.deepEqual(panels.map(([, mode]) => mode), ["transfer", "exec"]);
  assert.deepEqual(panels.map(([svg]) => count(svg, /<g class="point">/g)), [4, 2]);
  for (const [svg] of panels) assert.match(svg, />256M<.*>1G</s);
});

Deno.test("the page loads nothing, runs nothing, and tells the browser so", () => {
  const html = renderHtml(recorded);
  assert.match(html, /Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-/);
  assert.doesNotMatch(html, /<script|<link|<img|<iframe|\ssrc=|\shref=|url\(|@import|https?:/);
});

const run = runsOf(recorded, base, transfer)[0];

Deno.test("pausesOf() are what x-pause accounts for and what it does not, without a timeline", () => {
  const plain = { ...run, gapUs: 2500, xPauseUs: 2000 };
  assert.deepEqual(pausesOf([plain]), [[
    { step: "the VMM's own account (x-pause)", process: "", us: 2000 },
    { step: "felt by the guest beyond it", process: "guest", us: 500 },
  ]]);
  assert.equal(pausesOf([{ ...plain, gapUs: 1900 }])[0].length, 1);
  assert.deepEqual(pausesOf([{ ...run, xPauseUs: undefined }]), []);
  assert.deepEqual(pausesOf([{ ...plain, error: "failed" }]), []);
});

Deno.test("pausesOf() are the medians of the steps from the stop to the guest's entry", () => {
  const runs = [[100, 150, 400], [200, 300, 400], [120, 130, 390]].map(([park, save, enter]) => ({
    ...run,
    gapUs: 450,
    timeline: [
      { step: "ready", us: -700, process: "new" },
      { step: "stop", us: 0, process: "old" },
      { step: "parked", us: park, process: "old" },
      { step: "saved", us: save, process: "old" },
      { step: "answered", us: save + 1, process: "new" },
      { step: "entered", us: enter, process: "new", vcpu: 0 },
      { step: "settled", us: enter + 5000, process: "new" },
    ],
  }));
  assert.deepEqual(pausesOf(runs), [[
    { step: "parked", process: "old", us: 120 },
    { step: "saved", process: "old", us: 50 },
    { step: "entered", process: "new", us: 250 },
    { step: "felt by the guest beyond it", process: "guest", us: 50 },
  ]]);
});

Deno.test("pausesOf() are two when the guest is stopped twice, and vCPUs are told apart", () => {
  const timeline = [
    { step: "stop", us: -9000, process: "old" },
    { step: "parked", us: -8900, process: "old" },
    { step: "entered", us: -8000, process: "helper", vcpu: 0 },
    { step: "exec", us: -7000, process: "old" },
    { step: "stop", us: 0, process: "helper" },
    { step: "parked", us: 200, process: "helper" },
    { step: "entered", us: 500, process: "new", vcpu: 0 },
    { step: "entered", us: 550, process: "new", vcpu: 1 },
  ];
  assert.deepEqual(pausesOf([{ ...run, gapUs: 1200, timeline }]), [
    [
      { step: "parked", process: "old", us: 100 },
      { step: "entered", process: "helper", us: 900 },
    ],
    [
      { step: "parked", process: "helper", us: 200 },
      { step: "entered", process: "new", us: 300 },
      { step: "entered (vCPU 1)", process: "new", us: 50 },
    ],
  ]);
});

Deno.test("the page shows a timeline's steps with their process and share", () => {
  const timeline = [
    { step: "stop", us: 0, process: "old" },
    { step: "park", us: 250, process: "old" },
    { step: "entered", us: 1000, process: "<new>" },
  ];
  const html = renderHtml(changed((run) => ({ ...run, gapUs: 900, timeline })));
  assert.ok(html.includes("Steps as the VMMs report them (x-timeline)"));
  const [, section] = /<section class="timeline"><h3>Denovo transfer<\/h3>(.*?)<\/section>/s
    .exec(html)!;
  assert.equal(count(section, /<rect /g), 2);
  assert.match(section, />park<\/td><td>old<\/td><td class="number">0\.250<\/td>[^/]*>25 %</);
  assert.match(section, />entered<\/td><td>&lt;new&gt;<\/td><td class="number">0\.750</);
});
