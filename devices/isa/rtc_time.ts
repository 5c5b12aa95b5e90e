/**
 * Arithmetic of the real-time clock: BCD and the search for the next alarm.
 *
 * @module
 */

/** The two decimal digits of `value` (0 to 99) as BCD. */
export function bcd(value: number): number {
  return Math.floor(value / 10) << 4 | value % 10;
}

/** The value of a BCD byte; digits above nine count as what they are. */
export function fromBcd(byte: number): number {
  return (byte >> 4) * 10 + (byte & 0x0f);
}

/** The remainder of a division rounded down, so never negative for a positive `divisor`. */
export function mod(value: number, divisor: number): number {
  return value - Math.floor(value / divisor) * divisor;
}

/** Which times of day an alarm matches, one test for each unit. */
export interface AlarmPattern {
  /** Whether hour 0 to 23 matches. */
  hour(hour: number): boolean;
  /** Whether minute 0 to 59 matches. */
  minute(minute: number): boolean;
  /** Whether second 0 to 59 matches. */
  second(second: number): boolean;
}

/**
 * Finds the first second after `second` that an alarm matches.
 *
 * @param second seconds since 1970-01-01 UTC
 * @returns seconds since 1970-01-01 UTC, Infinity when no time of day matches
 */
export function nextMatch(second: number, pattern: AlarmPattern): number {
  const end = second + 24 * 3600;
  for (let t = second + 1; t <= end;) {
    if (!pattern.hour(mod(Math.floor(t / 3600), 24))) t += 3600 - mod(t, 3600);
    else if (!pattern.minute(mod(Math.floor(t / 60), 60))) t += 60 - mod(t, 60);
    else if (!pattern.second(mod(t, 60))) t += 1;
    else return t;
  }
  return Infinity;
}
