/** Runs the same cases on the processor and on the software CPU. */
import { type Case, differences, runNatively, SoftwareRunner } from "./native.ts";

/** How many cases ran on both, and what differed, a line for each case. */
export async function compareCases(
  list: readonly Case[],
): Promise<{ compared: number; report: string[] }> {
  const native = await runNatively(list);
  const software = new SoftwareRunner();
  const report: string[] = [];
  let compared = 0;
  for (const [i, one] of list.entries()) {
    const expected = native[i];
    if (!expected) continue;
    compared++;
    const difference = differences(one, expected, software.run(one));
    if (difference) report.push(`${one.name}: ${difference}`);
  }
  return { compared, report };
}
