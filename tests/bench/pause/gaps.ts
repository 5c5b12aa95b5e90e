/**
 * Gaps: times for which a guest stood still.
 *
 * @module
 */

/** One gap: nanoseconds of CLOCK_MONOTONIC. */
export interface Gap {
  readonly startNs: number;
  readonly endNs: number;
}

/** From the order to stop to where the guest has stopped; the two clocks are not quite one, either. */
const EARLY_NS = 500_000;

/**
 * The longest gap around a moment, in microseconds; undefined if the guest ran then.
 *
 * @param momentNs when the guest was to stop, nanoseconds of CLOCK_MONOTONIC
 */
export function gapAround(gaps: readonly Gap[], momentNs: number): number | undefined {
  const around = gaps.filter(({ startNs, endNs }) =>
    startNs - EARLY_NS <= momentNs && momentNs <= endNs
  );
  if (around.length === 0) return undefined;
  return Math.max(...around.map(({ startNs, endNs }) => endNs - startNs)) / 1000;
}
