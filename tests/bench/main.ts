/**
 * The benchmarks: `deno task bench -- [--quick] [PART...]`, and `deno task bench -- pause [OPTION...]`.
 *
 * Prints a table and writes `dist/bench.json` with every sample. Nothing here passes or fails: aims
 * are printed beside the numbers. Run it on a machine that does nothing else. Without a PART it
 * measures all, `pause` in its quick form.
 *
 * @module
 */
import { busy } from "./busy.ts";
import { cpu } from "./cpu.ts";
import { devices } from "./devices.ts";
import { exits } from "./exits.ts";
import { lifecycle, stopping } from "./lifecycle.ts";
import { linux } from "./linux.ts";
import { memory } from "./memory.ts";
import { pause } from "./pause/main.ts";
import { startup } from "./startup.ts";
import { type Measurement, type Part, summarize, tableHead, tableLine } from "./statistics.ts";

const parts: Readonly<Record<string, Part>> = {
  startup,
  exits,
  stop: stopping,
  memory,
  lifecycle,
  linux,
  cpu,
  devices,
  busy,
};

const usage = `usage: deno task bench -- [--quick] [PART...]
       deno task bench -- pause [OPTION...]    see 'pause --help'

Without a PART it measures all, and pause in its quick form.

startup     from the start of a process to the guest's first instruction
exits       exits a second, beside a C program that does the same ioctls
stop        stopping and continuing a VM
memory      resident memory without the guest's RAM
lifecycle   creating and closing a VM
linux       Linux until it is up, in turns with QEMU
cpu         the software CPU: instructions, exits, Linux, in turns with QEMU's
devices     disks and network cards, in turns with QEMU's
busy        the pause of guests that keep a disk, a tap or both at work, beside that of one without
pause       how long a guest stands still while its VMM is replaced

--quick     fewer and shorter runs: shows that it works, the numbers are rough`;

/** What is wrong with arguments, if anything is. */
function complaint(args: readonly string[]): string | undefined {
  const wrong = args.find((one) => one !== "--" && one !== "--quick" && !Object.hasOwn(parts, one));
  if (wrong === undefined) return undefined;
  return wrong.startsWith("-")
    ? `Unknown option '${wrong}': --help lists those there are, 'pause --help' those of pause`
    : `Unknown part '${wrong}': give any of ${[...Object.keys(parts), "pause"].join(", ")}`;
}

async function main(args: readonly string[]): Promise<number> {
  // It has options and files of its own.
  if (args.includes("pause")) return await pause(args.filter((arg) => arg !== "pause"));
  if (args.includes("--help") || args.includes("-h")) {
    console.log(usage);
    return 0;
  }
  const quick = args.includes("--quick");
  const named = args.filter((argument) => !argument.startsWith("-"));
  const wrong = complaint(args);
  if (wrong !== undefined) {
    console.error(wrong);
    return 1;
  }
  const measurements: Measurement[] = [];
  let status = 0;
  console.log(tableHead());
  for (const name of named.length > 0 ? named : Object.keys(parts)) {
    try {
      for await (const measurement of parts[name]({ quick })) {
        measurements.push(measurement);
        console.log(tableLine(measurement));
      }
    } catch (error) {
      console.error(`${name}: ${(error as Error).stack ?? error}`);
      status = 1;
    }
  }
  await writeResults(measurements, quick);
  if (named.length === 0 && await pause(["--quick"]) !== 0) status = 1;
  return status;
}

async function writeResults(measurements: readonly Measurement[], quick: boolean): Promise<void> {
  const folder = new URL("../../dist/", import.meta.url);
  await Deno.mkdir(folder, { recursive: true });
  const results = {
    date: new Date().toISOString(),
    deno: Deno.version.deno,
    kernel: Deno.osRelease(),
    cpus: navigator.hardwareConcurrency,
    loadAverage: Deno.loadavg(),
    quick,
    measurements: measurements.map((m) => ({ ...m, ...summarize(m.samples) })),
  };
  await Deno.writeTextFile(new URL("bench.json", folder), JSON.stringify(results, null, 1) + "\n");
}

if (import.meta.main) Deno.exit(await main(Deno.args));
