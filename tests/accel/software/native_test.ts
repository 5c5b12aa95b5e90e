import assert from "node:assert/strict";
import { canRunNatively, type Case, differences, runNatively, SoftwareRunner } from "./native.ts";
import { cases, forms } from "./native_cases.ts";

/** Runs cases on both; a report of the first that differ. */
async function compare(list: readonly Case[]): Promise<{ compared: number; report: string[] }> {
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

Deno.test({
  name:
    "every integer instruction leaves what the processor leaves: registers, flags, memory, fault",
  ignore: !canRunNatively,
  fn: async () => {
    const list = [...cases(2, 8, 0)];
    assert.ok(forms.length > 300);
    const { compared, report } = await compare(list);
    assert.deepEqual(report, []);
    assert.ok(compared > list.length * 0.99, `only ${compared} of ${list.length} ran`);
  },
});

Deno.test({
  name: "sequences of instructions leave what the processor leaves",
  ignore: !canRunNatively,
  fn: async () => {
    const list = [...cases(7, 0, 4000)];
    const { compared, report } = await compare(list);
    assert.deepEqual(report, []);
    assert.ok(compared > list.length * 0.99, `only ${compared} of ${list.length} ran`);
  },
});
