/**
 * Gaps: times for which a guest stood still.
 *
 * @module
 */

/** From when to when a guest stood still: nanoseconds of CLOCK_MONOTONIC. */
export interface Interval {
  readonly startNs: number;
  readonly endNs: number;
}

/** One gap that a guest has listed. */
export interface Gap extends Interval {
  /** How far the guest's counter was at its end. */
  readonly count: number;
}

/** A guest's counter at some time. */
export interface Pace {
  readonly ns: number;
  readonly count: number;
}

/** From the order to stop to where the guest has stopped; the two clocks are not quite one, either. */
const EARLY_NS = 500_000;

/**
 * The longest gap around a moment; undefined if the guest ran then.
 *
 * @param momentNs when the guest was to stop, nanoseconds of CLOCK_MONOTONIC
 */
export function gapAround<T extends Interval>(
  gaps: readonly T[],
  momentNs: number,
): T | undefined {
  return gaps
    .filter(({ startNs, endNs }) => startNs - EARLY_NS <= momentNs && momentNs <= endNs)
    .toSorted((a, b) => lengthUs(b) - lengthUs(a))[0];
}

/** For how long the guest stood still, in microseconds. */
export function lengthUs({ startNs, endNs }: Interval): number {
  return (endNs - startNs) / 1000;
}

/**
 * What a guest has lost against its usual pace, in microseconds; below 0 if it was faster.
 *
 * @param from @param to where it was at two times
 * @param usual the same at two other times
 */
export function lostUs(from: Pace, to: Pace, usual: readonly [Pace, Pace]): number {
  const [before, after] = usual;
  const nsPerCount = (after.ns - before.ns) / (after.count - before.count);
  return (to.ns - from.ns - (to.count - from.count) * nsPerCount) / 1000;
}
