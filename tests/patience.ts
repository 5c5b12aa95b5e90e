/**
 * How long tests wait: a place that emulates its processor, or is busy, is given more time.
 *
 * No time decides a test. Waits have an end so that nothing hangs, and that end is scaled by one
 * factor, which each process of the tests measures as it starts.
 *
 * @module
 */

/** Milliseconds that {@linkcode measure} takes where the waits in tests are meant as they are. */
const ORDINARY_MS = 15;
/** Where everything takes longer than this many times, waiting helps no more. */
const MOST = 10;

/** Runs code for the first time, which is what tests do nearly all the time. */
function measure(): number {
  const functions = Array.from(
    { length: 500 },
    (_, i) => `function f${i}(a) { const b = [a, ${i}]; for (const c of b) a += c; return a; }`,
  ).join("\n");
  const calls = Array.from({ length: 500 }, (_, i) => `f${i}(${i})`).join("+");
  const start = performance.now();
  new Function(`${functions}\nreturn ${calls}`)();
  return performance.now() - start;
}

/** How many times longer than meant tests wait here. */
const factor = Math.min(MOST, Math.max(1, measure() / ORDINARY_MS));

/**
 * The time after which a wait has failed.
 *
 * @param ms milliseconds on an ordinary machine
 */
export function patience(ms: number): number {
  return ms * factor;
}
