/**
 * `deno task fuzz -- cpu [SECONDS [SEED]]`: random instructions on the processor and on the software CPU,
 * with new seeds until the time is over (a minute). It prints every case that differs; its seed repeats it.
 *
 * @module
 */
import { canRunNatively } from "./accel/software/native.ts";
import { compareCases } from "./accel/software/native_compare.ts";
import { cases, Random } from "./accel/software/native_cases.ts";
import { simdCase, simdForms } from "./accel/software/native_simd_cases.ts";

const [what, seconds = "60", seed = String(Date.now() % 1_000_000)] = Deno.args;
if (what !== "cpu") throw new Error(`Cannot fuzz "${what ?? ""}", there is: cpu`);
if (!canRunNatively) throw new Error("Cannot compare with this processor, it is no x86-64 Linux");

const end = performance.now() + Number(seconds) * 1000;
let compared = 0, different = 0;
for (let round = Number(seed); performance.now() < end; round++) {
  const random = new Random(round);
  const list = [...cases(round, 4, 3000), ...simdForms.map((form) => simdCase(random, form))];
  const result = await compareCases(list);
  compared += result.compared;
  different += result.report.length;
  for (const line of result.report) console.log(`seed ${round}: ${line}`);
}
console.log(`${compared} sequences compared, ${different} differ`);
Deno.exit(different > 0 ? 1 : 0);
