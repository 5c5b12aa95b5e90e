/**
 * `deno task bench -- pause`: how long a guest stands still while its VMM is replaced, with a
 * machine-readable record of every run, a table and a page with plots.
 *
 * The guest keeps the longest gap between two readings of its TSC; the gap is cleared right before
 * the update and read right after, through a mapping of the guest's RAM. A process of its own
 * watches the guest's counter in the same RAM by the host's clock. Afterwards both measure a window
 * of the same length without an update: that is the noise floor. No process has a priority that
 * not every user could give it. On software CPUs only the watching process counts: QEMU stops the
 * guest's TSC with the guest.
 *
 * @module
 */
import { bundleCommand } from "../../../cpr/update/bundle.ts";
import { debianQemu } from "../../lab/debian_qemu.ts";
import { Workspace } from "../program.ts";
import { checkReport } from "./chromium.ts";
import { guestFile } from "./guest_files.ts";
import { describeHost } from "./host.ts";
import { renderHtml } from "./html.ts";
import { renderMarkdown } from "./markdown.ts";
import { measure } from "./measure.ts";
import { parseOptions, type PauseOptions, usage } from "./options.ts";
import { configurations, type Skipped, subjects } from "./plan.ts";
import { able, hasRelayParameter, qemuVersion } from "./probe.ts";
import { failures, readResults, type Results, type Run } from "./results.ts";

/**
 * Runs the instrument.
 *
 * @param given the arguments after `pause`
 * @returns the exit status: 1 if an option is wrong, a run failed, or the report does not hold
 */
export async function pause(given: readonly string[]): Promise<number> {
  const args = given.filter((argument) => argument !== "--");
  let options: PauseOptions;
  let results: Results;
  try {
    options = parseOptions(args);
    if (options.help) {
      console.log(usage);
      return 0;
    }
    results = options.report === undefined
      ? await measureAll(options, args)
      : await readResults(options.report);
  } catch (error) {
    console.error((error as Error).message);
    return 1;
  }
  const page = await writeReports(results, options.out);
  const failed = failures(results.runs);
  if (failed > 0) console.error(`${failed} of ${results.runs.length} runs FAILED: see the report`);
  const isFaulty = options.checkReport && !await checkReport(page, results);
  return failed > 0 || isFaulty ? 1 : 0;
}

async function measureAll(options: PauseOptions, args: readonly string[]): Promise<Results> {
  await using work = await Workspace.create();
  const ram = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "denovo-pause-" });
  try {
    const start = performance.now();
    const program = options.qemu === "debian" ? await debianQemu() : options.qemu;
    const qemu = program === undefined ? undefined : await qemuVersion(program);
    const kernel = await guestFile(work.path, "cpl3");
    const host = await describeHost(kernel, qemu, options.accel);
    const denovo = await bundleCommand(host.accel === "tcg");
    const hasRelay = await hasRelayParameter(denovo, kernel, `${work.path}/probe`);
    if (host.accel === "tcg" && !options.observe) {
      throw new Error(
        "--observe off leaves nothing to measure by on software CPUs: QEMU's guests' clocks stop there",
      );
    }
    const chosen = able(subjects(options), options, { hasRelay, qemu });
    for (const skipped of chosen.skipped) saySkipped(skipped);
    const skipped = [...chosen.skipped];
    const runs: Run[] = [];
    const plan = {
      signal: interruption(),
      subjects: chosen.subjects,
      configurations: configurations(options),
      runs: options.runs,
      onRun: (run: Run) => {
        runs.push(run);
        sayRun(run);
      },
      onSkip: (what: Skipped) => {
        skipped.push(what);
        saySkipped(what);
      },
    };
    const { accel, tscKhz } = host;
    const context = { folder: work.path, ramFile: `${ram}/ram`, denovo, qemu: program, accel };
    await measure(plan, { ...context, tscKhz, hasRelay, observe: options.observe });
    if (plan.signal.aborted) plan.onSkip({ what: "the rest", reason: "interrupted by SIGINT" });
    const left = new Set(runs.map(({ configuration }) => configuration));
    if (left.size === 0) throw new Error("Nothing could be measured: see what was skipped, above");
    return {
      format: 1,
      date: new Date().toISOString(),
      command: `deno task bench -- pause ${args.join(" ")}`.trim(),
      quick: options.quick,
      seconds: Math.round((performance.now() - start) / 1000),
      host: { ...host, loadAfter: Deno.loadavg() },
      subjects: chosen.subjects,
      configurations: plan.configurations.filter(({ name }) => left.has(name)),
      skipped,
      runs,
    };
  } finally {
    await Deno.remove(ram, { recursive: true });
  }
}

/** After Ctrl-C what was measured until then is still reported; a second one ends it at once. */
function interruption(): AbortSignal {
  const controller = new AbortController();
  const interrupt = () => {
    Deno.removeSignalListener("SIGINT", interrupt);
    controller.abort();
  };
  Deno.addSignalListener("SIGINT", interrupt);
  return controller.signal;
}

function saySkipped({ what, reason }: Skipped): void {
  console.log(`SKIPPED: ${what}: ${reason}`);
}

function sayRun({ configuration, subject, index, error, gapUs, floorUs, xPauseUs }: Run): void {
  const ms = (us: number | undefined) => us === undefined ? "-" : (us / 1000).toFixed(3);
  const numbers = `${ms(gapUs)} ms, floor ${ms(floorUs)}, x-pause ${ms(xPauseUs)}`;
  const outcome = error === undefined ? numbers : `FAILED: ${error}`;
  console.log(`${configuration} | ${subject} #${index}: ${outcome}`);
}

/** Writes the three files. @returns the page's path */
async function writeReports(results: Results, folder: string): Promise<string> {
  await Deno.mkdir(folder, { recursive: true });
  const files = {
    "pause.json": JSON.stringify(results, null, 1) + "\n",
    "pause.md": renderMarkdown(results),
    "pause.html": renderHtml(results),
  };
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(`${folder}/${name}`, text);
  }
  console.log(`\n${files["pause.md"]}`);
  console.log(`Wrote ${Object.keys(files).map((name) => `${folder}/${name}`).join(", ")}`);
  return `${folder}/pause.html`;
}
