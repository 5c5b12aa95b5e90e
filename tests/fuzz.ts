/**
 * `deno task fuzz -- WHAT [SECONDS [SEED]]`, with new seeds until the time is over (a minute). A seed
 * repeats what it finds.
 *
 * - `cpu`: random instructions on the processor and on the software CPU; prints every case that differs.
 * - `virtio`: drivers that break the rules of rings; anything but a malformed ring ends it.
 *
 * @module
 */
import { canRunNatively } from "./accel/software/native.ts";
import { compareCases } from "./accel/software/native_compare.ts";
import { cases, Random } from "./accel/software/native_cases.ts";
import { simdCase, simdForms } from "./accel/software/native_simd_cases.ts";
import { fuzzRing } from "./devices/virtio/fuzz.ts";

/** What there is: each takes a first seed and a time at which it ends, and says whether all is well. */
const targets: Record<string, (seed: number, end: number) => Promise<boolean>> = {
  cpu: fuzzCpu,
  virtio: fuzzVirtio,
};

async function fuzzCpu(seed: number, end: number): Promise<boolean> {
  if (!canRunNatively) throw new Error("Cannot compare with this processor, it is no x86-64 Linux");
  let compared = 0, compiled = 0, different = 0;
  for (let round = seed; performance.now() < end; round++) {
    const random = new Random(round);
    const list = [...cases(round, 4, 3000), ...simdForms.map((form) => simdCase(random, form))];
    const result = await compareCases(list);
    compared += result.compared;
    compiled += result.compiled;
    different += result.report.length;
    for (const line of result.report) console.log(`seed ${round}: ${line}`);
  }
  console.log(
    `${compared} sequences compared, ${compiled} of them also compiled, ${different} differ`,
  );
  return different === 0;
}

function fuzzVirtio(seed: number, end: number): Promise<boolean> {
  let malformed = 0, taken = 0, round = seed;
  for (; performance.now() < end; round++) {
    try {
      const count = fuzzRing(round);
      malformed += count.malformed;
      taken += count.taken;
    } catch (error) {
      console.log(`seed ${round}: ${(error as Error).stack ?? error}`);
      return Promise.resolve(false);
    }
  }
  console.log(`${round - seed} drivers: ${taken} requests taken, ${malformed} rings malformed`);
  return Promise.resolve(true);
}

// `deno task` passes on what separates its own options from these.
const args = Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args;
const [what = "", seconds = "60", seed = String(Date.now() % 1_000_000)] = args;
const target = Object.hasOwn(targets, what) ? targets[what] : undefined;
if (!target) {
  throw new Error(`Cannot fuzz "${what}", there are: ${Object.keys(targets).join(", ")}`);
}
const isWell = await target(Number(seed), performance.now() + Number(seconds) * 1000);
Deno.exit(isWell ? 0 : 1);
