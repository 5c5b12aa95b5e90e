import assert from "node:assert/strict";
import { canRunNatively } from "./native.ts";
import { cases, forms, Random } from "./native_cases.ts";
import { compareCases } from "./native_compare.ts";
import { simdCase, simdForms } from "./native_simd_cases.ts";

Deno.test({
  name:
    "every integer instruction leaves what the processor leaves: registers, flags, memory, fault",
  ignore: !canRunNatively,
  fn: async () => {
    const list = [...cases(2, 8, 0)];
    assert.ok(forms.length > 300);
    const { compared, compiled, report } = await compareCases(list);
    assert.deepEqual(report, []);
    assert.ok(compiled > list.length / 2, `only ${compiled} of ${list.length} were compiled`);
    assert.ok(compared > list.length * 0.99, `only ${compared} of ${list.length} ran`);
  },
});

Deno.test({
  name: "sequences of instructions leave what the processor leaves",
  ignore: !canRunNatively,
  fn: async () => {
    const list = [...cases(7, 0, 4000)];
    const { compared, compiled, report } = await compareCases(list);
    assert.deepEqual(report, []);
    assert.ok(compiled > list.length / 2, `only ${compiled} of ${list.length} were compiled`);
    assert.ok(compared > list.length * 0.99, `only ${compared} of ${list.length} ran`);
  },
});

Deno.test({
  name:
    "MMX and SSE instructions leave what the processor leaves, with operands wherever they can be",
  ignore: !canRunNatively,
  fn: async () => {
    const random = new Random(5);
    const list = simdForms.flatMap((form) =>
      Array.from({ length: 6 }, () => simdCase(random, form))
    );
    assert.ok(simdForms.length > 300);
    const { compared, report } = await compareCases(list);
    assert.deepEqual(report, []);
    assert.equal(compared, list.length);
  },
});
