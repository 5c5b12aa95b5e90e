/**
 * `deno task test`: runs every test file, then prints one line with the sums.
 *
 * Where there is no KVM, the tests that need it are skipped, which is said once.
 *
 * Two processes at a time: much of a test is waiting for something that must not happen. Files that
 * start VMs have a process each; what a file prints comes when it is done.
 *
 * @module
 */

import { noKvm } from "./needs_kvm.ts";

/** Tests of pure parts, and the examples in doc comments: a process for each line. */
const together: readonly (readonly string[])[] = [
  ["--doc", "vmm/options/command_line.ts"],
  [
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

/** Examples that run a guest. */
const running: readonly string[] = ["--doc", "mod.ts"];

/** Folders with a process for each file; those with the longest files first, lest one be left over. */
const alone: readonly string[] = ["tests/kvm", "tests/faults", "tests/conformance"];

/** More would take from the guests what they need to get on. */
const PROCESSES = Math.min(2, navigator.hardwareConcurrency);

const root = new URL("..", import.meta.url).pathname;
const sums = { passed: 0, failed: 0, skipped: 0 };

function testFiles(folder: string): string[] {
  return Array.from(Deno.readDirSync(`${root}${folder}`), ({ name }) => `${folder}/${name}`)
    .filter((path) => path.endsWith("_test.ts"))
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

/** Runs test files in a process of their own, and adds to the sums. */
async function run(what: readonly string[]): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--no-check", "--quiet", ...what, ...Deno.args],
    cwd: root,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  console.log(news(text.trimEnd()));
  const summary = [...text.matchAll(/(\d+) passed.* \| (\d+) failed(?: \| (\d+) ignored)?/g)].at(
    -1,
  );
  sums.passed += Number(summary?.[1] ?? 0);
  sums.failed += Number(summary?.[2] ?? 0);
  sums.skipped += Number(summary?.[3] ?? 0);
  // A run that ended without a summary, or failed outside of any test, is a failure all the same.
  if (!summary || (!success && summary[2] === "0")) sums.failed++;
}

if (noKvm !== undefined) {
  const examples = Deno.readTextFileSync(`${root}mod.ts`).match(/^ \* ```ts$/gm) ?? [];
  sums.skipped += examples.length;
}

const queue = [
  ...(noKvm === undefined ? [running] : []),
  ...together,
  ...alone.flatMap(testFiles).map((file) => [file]),
];

async function work(): Promise<void> {
  for (let next = queue.shift(); next; next = queue.shift()) await run(next);
}

await Promise.all(Array.from({ length: PROCESSES }, work));
console.log(`${sums.passed} passed, ${sums.failed} failed, ${sums.skipped} skipped`);
Deno.exit(sums.failed > 0 || sums.passed === 0 ? 1 : 0);
