/**
 * The clocks that drive the chips; tests have their own.
 *
 * @module
 */

/** The host's clocks. */
export interface HostClock {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  monotonicNs(): number;
  /** Nanoseconds of CLOCK_REALTIME. */
  realtimeNs(): bigint;
  /** The host's time stamp counter. */
  tsc(): bigint;
  /** The host's TSC frequency in kHz. */
  readonly tscKhz: number;
}

/** A vCPU's time stamp counter, which runs at the host's frequency. */
export interface GuestTsc {
  /** Stores the counter: low word, high word. */
  read(into: Uint32Array): void;
  /** By how much it is ahead of the host's, modulo 2^64. */
  offset(): bigint;
}
