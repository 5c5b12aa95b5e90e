/**
 * Runs tests in the lab, and counts them.
 *
 * @module
 */
import { addRun, summaryOf, type Sums } from "../sums.ts";
import { NoLab } from "./host.ts";
import { putTree, runCommand } from "./inside.ts";
import { makeLab } from "./recipe.ts";
import { nameFilter } from "./slice.ts";
import { LabVm } from "./vm.ts";

/** Milliseconds after which a file's tests hang. */
const FILE_LIMIT_MS = 40 * 60_000;
/** Milliseconds that the lab slice may take in all: it is part of what CI has an hour for. */
export const SLICE_LIMIT_MS = 30 * 60_000;

/** A file's tests, all unless names are given. */
export interface LabTests {
  readonly file: string;
  readonly names?: readonly string[];
}

/**
 * Runs tests, file by file, in a lab of their own. Where there can be no lab they count as skipped.
 *
 * @param options further options for `deno test`
 * @param limitMs milliseconds after which what has not ended has failed
 */
export async function runInLab(
  tests: readonly LabTests[],
  sums: Sums,
  options: readonly string[],
  limitMs = Infinity,
): Promise<void> {
  let lab: LabVm;
  try {
    lab = await LabVm.boot(await makeLab(), false);
  } catch (error) {
    if (!(error instanceof NoLab)) throw error;
    const count = tests.reduce((sum, { names }) => sum + (names?.length ?? 1), 0);
    console.log(`SKIPPED: ${count} tests and files of tests in the lab: ${error.message}`);
    sums.skipped += count;
    return;
  }
  await using vm = lab;
  await putTree(vm.port);
  const deadline = performance.now() + limitMs;
  for (const one of tests) {
    const left = deadline - performance.now();
    if (left > 0) {
      await runFile(vm.port, one, sums, options, Math.min(left, FILE_LIMIT_MS));
      continue;
    }
    console.log(`FAILED: ${one.file} has not run: the lab's time is over`);
    sums.failed += one.names?.length ?? 1;
  }
}

async function runFile(
  port: number,
  { file, names }: LabTests,
  sums: Sums,
  options: readonly string[],
  limitMs: number,
): Promise<void> {
  const filter = names === undefined ? [] : ["--filter", nameFilter(names)];
  const argv = ["deno", "test", "-A", "--no-check", "--quiet", file, ...filter, ...options];
  const start = performance.now();
  const { text, status } = await output(port, argv, limitMs);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`${text.trimEnd()}\nlab: ${file}: ${seconds} s`);
  addRun(sums, text, status === 0);
  // Whoever renames a test renames it here too: else a promise goes unproven.
  const { passed = 0, failed = 0, skipped = 0 } = summaryOf(text) ?? {};
  if (names === undefined || passed + failed === names.length && skipped === 0) return;
  if (failed > 0) return;
  console.log(`FAILED: of ${names.length} tests of the lab slice, ${passed} ran in ${file}`);
  sums.failed++;
}

/** A command's output, both streams in the order in which they came, and its exit status. */
async function output(port: number, argv: readonly string[], limitMs: number) {
  const decoder = new TextDecoder();
  let text = "";
  const add = (data: Uint8Array) => {
    text += decoder.decode(data, { stream: true });
  };
  try {
    const signal = AbortSignal.timeout(Math.ceil(limitMs));
    const status = await runCommand(port, argv, { stdout: add, stderr: add }, { signal });
    return { text, status };
  } catch (error) {
    return { text: `${text}\nlab: ${(error as Error).message}`, status: 1 };
  }
}
