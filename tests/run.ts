/**
 * `deno task test`: runs tests, then prints one line with the sums.
 *
 *     deno task test                    all that can run here: without KVM, guests run on the software CPU
 *     deno task test --lab              all that need KVM, in the lab; it takes hours
 *     deno task test --slice            the lab slice: each promise once, on a real KVM
 *     deno task test --here --slice     one after the other, as CI does
 *
 * Further options go to `deno test`.
 *
 * Two processes at a time: much of a test is waiting for something that must not happen. Files that
 * start VMs have a process each; what a file prints comes when it is done. What fails gets a second
 * look (`second_look.ts`).
 *
 * @module
 */
import { runInLab, SLICE_LIMIT_MS } from "./lab/run.ts";
import { slice } from "./lab/slice.ts";
import { runWithin } from "./limited.ts";
// Says why tests are skipped; test processes, which are told to be quiet, do not show it.
import { noKvm } from "./needs_kvm.ts";
import { patience } from "./patience.ts";
import { lookAgain, type TestRun } from "./second_look.ts";
import { addRun } from "./sums.ts";

/** Tests of pure parts, and the examples in doc comments: a process for each line. */
const together: readonly (readonly string[])[] = [
  ["--doc", "vmm/options/command_line.ts"],
  [
    "tests/imports_test.ts",
    "tests/ffi",
    "tests/devices",
    "tests/vmm",
    "tests/accel",
    "tests/cpr",
    "tests/guests",
    "tests/bench",
    "tests/lab",
  ],
];

/** Examples that run a guest, on whatever accelerator there is. */
const running: readonly string[] = ["--doc", "mod.ts"];

/** What runs on the software CPU too where there is KVM; without it everything does. */
const onSoftware: readonly string[] = [
  "tests/kvm/access_test.ts",
  "tests/kvm/acpi_test.ts",
  "tests/kvm/pause_test.ts",
  "tests/kvm/programs_test.ts",
  "tests/kvm/states_test.ts",
  "tests/kvm/undecided_test.ts",
  "tests/kvm/vcpu_state_test.ts",
  "tests/conformance/cpr_generation_test.ts",
  "tests/conformance/cpr_reboot_test.ts",
  "tests/conformance/cpr_suspended_test.ts",
  "tests/conformance/cpr_transfer_test.ts",
];

/** Folders with a process for each file; those with the longest files first, lest one be left over. */
const alone: readonly string[] = ["tests/kvm", "tests/faults", "tests/conformance"];

/** What measures: nothing runs beside it, for what the host takes from a guest is in its figures. */
const quiet = "tests/kvm/bench_pause_test.ts";

/** Files elsewhere with tests that need KVM. */
const alsoInLab: readonly string[] = [
  "tests/vmm/cpu_tables_test.ts",
  "tests/cpr/machine_state_test.ts",
  "tests/cpr/streams_test.ts",
  "tests/bench/pause/gaps_test.ts",
  "tests/accel/software/chips/kvm_test.ts",
];

/** More would take from the guests what they need to get on. */
const PROCESSES = Math.min(2, navigator.hardwareConcurrency);

/** A process of tests that takes longer does not end by itself. The longest takes some minutes. */
const LIMIT_MS = patience(20 * 60_000);

const root = new URL("..", import.meta.url).pathname;
const sums = { passed: 0, failed: 0, skipped: 0 };
const unsteady: string[] = [];
const PLACES = ["--here", "--slice", "--lab"];
const places = Deno.args.filter((word) => PLACES.includes(word));
const options = Deno.args.filter((word) => !PLACES.includes(word));

function testFiles(folder: string): string[] {
  return Array.from(Deno.readDirSync(`${root}${folder}`), ({ name }) => `${folder}/${name}`)
    .filter((path) => path.endsWith("_test.ts") && path !== quiet)
    .sort();
}

const said = new Set<string>();

/** A text without the lines about skipped tests that were shown before. */
function news(text: string): string {
  const isNew = (line: string) => {
    if (!line.startsWith("SKIPPED: ")) return true;
    return !said.has(line) && said.add(line);
  };
  return text.split("\n").filter(isNew).join("\n");
}

/** Runs test files in a process of their own. */
async function run(what: readonly string[], env: Record<string, string> = {}): Promise<TestRun> {
  const argv = [Deno.execPath(), "test", "-A", "--no-check", "--quiet", ...what, ...options];
  const { success, text } = await runWithin(argv, LIMIT_MS, {
    cwd: root,
    env: { NO_COLOR: "1", ...env },
  });
  console.log(news(text.trimEnd()));
  const name = [...what, ...Object.values(env)].join(" ");
  return { name, text, success, repeat: () => run(what, env) };
}

/** Runs what can run on this machine, and adds to the sums. */
async function runHere(): Promise<void> {
  const queue = [
    ...[running, ...together, ...alone.flatMap(testFiles).map((file) => [file])]
      .map((what) => () => run(what)),
    ...(noKvm === undefined ? onSoftware : []).map((file) => () =>
      run([file], { DENOVO_TEST_ACCEL: "tcg" })
    ),
  ];
  const failed: TestRun[] = [];
  const count = (ended: TestRun) => {
    if (ended.success) addRun(sums, ended.text, true);
    else failed.push(ended);
  };
  const work = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) count(await next());
  };
  await Promise.all(Array.from({ length: PROCESSES }, work));
  count(await run([quiet]));
  unsteady.push(...await lookAgain(failed, sums));
}

if (places.length === 0 || places.includes("--here")) await runHere();
if (places.includes("--slice")) unsteady.push(...await runInLab(slice, sums, [], SLICE_LIMIT_MS));
if (places.includes("--lab")) {
  const files = [...alone.flatMap(testFiles), quiet, ...alsoInLab];
  unsteady.push(...await runInLab(files.map((file) => ({ file })), sums, options));
}
unsteady.forEach((line) => console.log(line));
console.log(`${sums.passed} passed, ${sums.failed} failed, ${sums.skipped} skipped`);
Deno.exit(sums.failed > 0 || sums.passed === 0 ? 1 : 0);
