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

/** A file's tests, all unless names are given. */
export interface LabTests {
  readonly file: string;
  readonly names?: readonly string[];
}

/**
 * Runs tests, file by file, in a lab of their own. Where there can be no lab they count as skipped.
 *
 * @param options further options for `deno test`
 */
export async function runInLab(
  tests: readonly LabTests[],
  sums: Sums,
  options: readonly string[],
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
  for (const one of tests) await runFile(vm.port, one, sums, options);
}

async function runFile(
  port: number,
  { file, names }: LabTests,
  sums: Sums,
  options: readonly string[],
): Promise<void> {
  const filter = names === undefined ? [] : ["--filter", nameFilter(names)];
  const argv = ["deno", "test", "-A", "--no-check", "--quiet", file, ...filter, ...options];
  const start = performance.now();
  const { text, status } = await output(port, argv);
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
async function output(port: number, argv: readonly string[]) {
  const decoder = new TextDecoder();
  let text = "";
  const add = (data: Uint8Array) => {
    text += decoder.decode(data, { stream: true });
  };
  try {
    const signal = AbortSignal.timeout(FILE_LIMIT_MS);
    const status = await runCommand(port, argv, { stdout: add, stderr: add }, { signal });
    return { text, status };
  } catch (error) {
    return { text: `${text}\nlab: ${(error as Error).message}`, status: 1 };
  }
}
