/** Runs the same cases on the processor and on the software CPU, interpreted and compiled. */
import { type Case, differences, runNatively, SoftwareRunner } from "./native.ts";

/** What came of cases. */
export interface Comparison {
  /** How many ran on both. */
  readonly compared: number;
  /** How many of them were compiled, too. */
  readonly compiled: number;
  /** What differed, a line for each case. */
  readonly report: readonly string[];
}

/** Compares cases, one by one. */
export async function compareCases(list: readonly Case[]): Promise<Comparison> {
  const native = await runNatively(list);
  const software = new SoftwareRunner();
  const report: string[] = [];
  let compared = 0, compiled = 0;
  for (const [i, one] of list.entries()) {
    const expected = native[i];
    if (!expected) continue;
    compared++;
    const difference = differences(one, expected, software.run(one));
    if (difference) report.push(`${one.name}: ${difference}`);
    const outcome = software.runCompiled(one);
    if (!outcome) continue;
    compiled++;
    const again = differences(one, expected, outcome);
    if (again) report.push(`${one.name}, compiled: ${again}`);
  }
  return { compared, compiled, report };
}
