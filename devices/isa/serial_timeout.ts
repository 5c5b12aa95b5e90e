/**
 * The 16550's character timeout: bytes that wait in the receiver FIFO below its trigger level are
 * reported when for four character times none came and none was read (data sheet, 8.12).
 *
 * The host's timer is set as seldom as possible, since that is a system call on a vCPU thread: a
 * deadline that moves away, or is given up, leaves the timer as it is, and the timer looks at the
 * deadline when it fires.
 *
 * @module
 */
import { type Field, type Struct, struct, u64, u8, type View } from "../../ffi/struct.ts";
import type { DeviceContext, Timer } from "../device.ts";
import { characterNs } from "./serial_registers.ts";

const Phase = { IDLE: 0, COUNTING: 1, DUE: 2 } as const;

/** How many characters' time must pass. */
const CHARACTERS = 4n;
/** The longest that a timeout can be: the highest divisor, eight data bits, parity, two stop bits. */
const LONGEST_NS = CHARACTERS * characterNs(0xffff, 0x0f);

/** The timeout's part of the saved state; times are nanoseconds of CLOCK_MONOTONIC. */
export type CharacterTimeoutFields = {
  /** Idle, counting, or due. */
  phase: Field<number>;
  /** While counting: when the timeout falls due. */
  deadline: Field<bigint>;
  /** What the device's timer is set to; 0 when it is not set. */
  timer: Field<bigint>;
};

/** The layout of {@linkcode CharacterTimeoutFields}. */
export const characterTimeout: Struct<CharacterTimeoutFields> = struct("character_timeout", {
  phase: u8,
  deadline: u64,
  timer: u64,
});

/** The timeout at work over its part of the state. */
export class CharacterTimeout {
  readonly #state: View<CharacterTimeoutFields>;
  readonly #clock: Pick<DeviceContext, "monotonicNs">;
  readonly #timer: Timer;

  /**
   * Works in place.
   *
   * @param state the timeout's part of the device's state
   * @param clock the time
   * @param timer used by the timeout alone
   */
  constructor(
    state: View<CharacterTimeoutFields>,
    clock: Pick<DeviceContext, "monotonicNs">,
    timer: Timer,
  ) {
    this.#state = state;
    this.#clock = clock;
    this.#timer = timer;
  }

  /** Whether the timeout has come. */
  get due(): boolean {
    return this.#state.phase === Phase.DUE;
  }

  /** Whether the timeout neither counts nor has come. */
  get idle(): boolean {
    return this.#state.phase === Phase.IDLE;
  }

  /** Counts from now, for four characters of these line settings. */
  start(divisor: number, lcr: number): void {
    const s = this.#state;
    s.phase = Phase.COUNTING;
    s.deadline = this.#clock.monotonicNs() + CHARACTERS * characterNs(divisor, lcr);
    if (s.timer === 0n || s.timer > s.deadline) this.#setTimer(s.deadline);
  }

  /** Gives up, or acknowledges that the timeout has come. */
  stop(): void {
    this.#state.phase = Phase.IDLE;
  }

  /** The device's timer has fired. */
  timer(nowNs: bigint): void {
    const s = this.#state;
    // Another thread may have set it again since.
    if (nowNs < s.timer) return;
    s.timer = 0n;
    if (s.phase !== Phase.COUNTING) return;
    if (nowNs < s.deadline) this.#setTimer(s.deadline);
    else s.phase = Phase.DUE;
  }

  /** After saved state came, which may hold anything: sets the timer again. */
  restored(): void {
    const s = this.#state;
    const latest = this.#clock.monotonicNs() + LONGEST_NS;
    if (s.phase > Phase.DUE) s.phase = Phase.IDLE;
    if (s.deadline > latest) s.deadline = latest;
    if (s.timer > latest) s.timer = latest;
    if (s.phase === Phase.COUNTING && s.timer === 0n) s.timer = s.deadline;
    if (s.timer !== 0n) this.#setTimer(s.timer);
  }

  #setTimer(deadline: bigint): void {
    this.#state.timer = deadline;
    this.#timer.arm(deadline);
  }
}
