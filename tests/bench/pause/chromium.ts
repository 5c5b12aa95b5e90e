/**
 * Opens a report in headless Chromium and checks what the browser made of it.
 *
 * The page itself has no script. A copy gets one that measures what was drawn, in a browser that
 * cannot reach any host, and the answer is read from the DOM that Chromium prints.
 *
 * @module
 */
import { z } from "zod";
import { type Results, runsOf, samples } from "./results.ts";

const names = ["chromium", "chromium-browser", "google-chrome"];

/** What the script finds. */
const findings = z.object({
  /** Dots of runs in the first plot. */
  dots: z.int(),
  /** Lines of the table of all numbers. */
  lines: z.int(),
  /** Plots that have no size. */
  empty: z.array(z.string()),
  /** Labels that stick out of their plot. */
  outside: z.array(z.string()),
  /** Labels that cover each other. */
  overlapping: z.array(z.string()),
  /** Elements that would load something. */
  loading: z.array(z.string()),
  /** The page's height in CSS pixels. */
  height: z.int(),
});

type Findings = z.infer<typeof findings>;

/** Runs in the page. */
const script = `
const svgs = [...document.querySelectorAll("svg")];
const name = (svg) => svg.getAttribute("aria-label");
const box = (node) => node.getBoundingClientRect();
const empty = svgs.filter((svg) => !(box(svg).width > 100 && box(svg).height > 40)).map(name);
const outside = [], overlapping = [];
for (const svg of svgs) {
  const frame = box(svg);
  const texts = [...svg.querySelectorAll("text")].map((node) => [node.textContent, box(node)]);
  for (const [text, b] of texts) {
    const fits = b.width > 0 && b.left >= frame.left - 1 && b.right <= frame.right + 1 &&
      b.top >= frame.top - 1 && b.bottom <= frame.bottom + 1;
    if (!fits) outside.push(name(svg) + ": " + text);
  }
  texts.forEach(([one, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
    const covers = a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 &&
      b.top < a.bottom - 4;
    if (covers) overlapping.push(name(svg) + ": " + one + " and " + other);
  }));
}
const loading = [...document.querySelectorAll("[src], [href], link, iframe, image")]
  .map((node) => node.outerHTML.slice(0, 100));
const first = document.querySelector("svg");
const found = document.createElement("pre");
found.id = "findings";
found.textContent = JSON.stringify({
  dots: first ? first.querySelectorAll("circle.run").length : 0,
  lines: document.querySelectorAll("tr.result").length,
  empty, outside, overlapping, loading,
  height: document.documentElement.scrollHeight,
});
document.body.append(found);
`;

/**
 * Checks a page.
 *
 * @param page the HTML file
 * @param results what it was made from
 * @returns false if something is wrong, or there is no Chromium; what it is was printed
 */
export async function checkReport(page: string, results: Results): Promise<boolean> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-chromium-" });
  try {
    const copy = `${folder}/checked.html`;
    await Deno.writeTextFile(copy, withScript(await Deno.readTextFile(page)));
    const dom = await chromium(folder, ["--dump-dom", `file://${copy}`]);
    if (dom === undefined) {
      console.error("NOT CHECKED: the report: no Chromium here (Debian's package is 'chromium')");
      return false;
    }
    const found = findingsIn(dom);
    const faults = found ? judge(found, results) : ["the page did not come to its end"];
    for (const fault of faults) console.error(`FAULT in ${page}: ${fault}`);
    // Its picture, for people.
    const picture = page.replace(/\.html$/, ".png");
    await chromium(folder, [
      `--window-size=1000,${found?.height ?? 3000}`,
      `--screenshot=${picture}`,
      `file://${page}`,
    ]);
    if (faults.length === 0) console.log(`Checked in Chromium: ${page}; its picture: ${picture}`);
    return faults.length === 0;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Takes the policy that forbids scripts away and puts the script in. */
function withScript(html: string): string {
  return html.replace(/<meta http-equiv[^>]*>/, "")
    .replace("</body>", () => `<script>${script}</script></body>`);
}

function findingsIn(dom: string): Findings | undefined {
  const [, text] = /<pre id="findings">(.*?)<\/pre>/s.exec(dom) ?? [];
  if (text === undefined) return undefined;
  const plain = text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  return findings.parse(JSON.parse(plain));
}

function judge(found: Findings, results: Results): string[] {
  const [base] = results.configurations;
  const dots =
    results.subjects.flatMap((subject) => samples(runsOf(results, base, subject), "gapUs")).length;
  const lines = new Set(results.runs.map((run) => `${run.configuration}|${run.subject}`)).size;
  return [
    ...(found.dots === dots ? [] : [`${found.dots} dots are drawn, ${dots} runs were measured`]),
    ...(found.lines === lines ? [] : [`the table has ${found.lines} lines, not ${lines}`]),
    ...found.empty.map((name) => `nothing is to be seen of '${name}'`),
    ...found.outside.map((name) => `a label sticks out: ${name}`),
    ...found.overlapping.map((name) => `labels cover each other: ${name}`),
    ...found.loading.map((html) => `the page would load something: ${html}`),
  ];
}

/** Runs Chromium. @returns what it printed, or undefined if there is none */
async function chromium(folder: string, args: readonly string[]): Promise<string | undefined> {
  const common = [
    ...["--headless", "--disable-gpu", "--no-first-run", `--user-data-dir=${folder}/profile`],
    // Whoever is root needs it, and the page has nothing that a sandbox would have to hold back.
    "--no-sandbox",
    // No name has an address: nothing can be fetched.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    ...["--hide-scrollbars", "--virtual-time-budget=2000"],
  ];
  for (const name of names) {
    try {
      const command = new Deno.Command(name, {
        args: [...common, ...args],
        stderr: "null",
        signal: AbortSignal.timeout(60_000),
      });
      return new TextDecoder().decode((await command.output()).stdout);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return undefined;
}
