/**
 * What runs of tests come to.
 *
 * @module
 */

/** Numbers of tests. */
export interface Sums {
  passed: number;
  failed: number;
  skipped: number;
}

/** What the last line of `deno test` says; undefined if it says nothing. */
export function summaryOf(text: string): Sums | undefined {
  const found = [...text.matchAll(/(\d+) passed.* \| (\d+) failed(?: \| (\d+) ignored)?/g)].at(-1);
  if (!found) return undefined;
  const [passed, failed, skipped = 0] = found.slice(1).map((number) => Number(number ?? 0));
  return { passed, failed, skipped };
}

/**
 * Adds a run of `deno test`. One that ended without a summary, or failed outside of any test, is a
 * failure all the same.
 *
 * @param text all that it printed
 * @param success whether it ended with status 0
 */
export function addRun(sums: Sums, text: string, success: boolean): void {
  const own = summaryOf(text) ?? { passed: 0, failed: 1, skipped: 0 };
  sums.passed += own.passed;
  sums.failed += !success && own.failed === 0 ? 1 : own.failed;
  sums.skipped += own.skipped;
}
