/**
 * The local APIC's timer (Intel SDM volume 3, 12.5.4): one-shot and periodic on a bus of 1 GHz, as
 * KVM's, and by TSC deadline.
 *
 * Only the vCPU's own thread uses it, or another while the vCPU is parked.
 *
 * @module
 */
import type { View } from "../../../../ffi/struct.ts";
import { lapicWords, Register, Word } from "./lapic_registers.ts";
import { lapicOffset, lapicState } from "./state.ts";
import type { GuestTsc, HostClock } from "./time.ts";

/** Bits 17 and 18 of the timer's LVT entry. */
export const TimerMode = { ONE_SHOT: 0, PERIODIC: 1 << 17, TSC_DEADLINE: 2 << 17, ALL: 3 << 17 };
/** The shortest period, ns: what KVM allows, lest a guest keep its vCPU in interrupts alone. */
const MIN_PERIOD = 200_000;
const NS_PER_MS = 1_000_000;
const TWO_32 = 0x1_0000_0000;

/** A LAPIC's timer over shared state. */
export class LapicTimer {
  readonly #words: Int32Array;
  readonly #state: View<typeof lapicState.fields>;
  readonly #clock: HostClock;
  readonly #tsc: GuestTsc;
  readonly #now = new Uint32Array(2);

  /**
   * @param buffer the chips' state
   * @param index the vCPU
   */
  constructor(buffer: ArrayBufferLike, index: number, clock: HostClock, tsc: GuestTsc) {
    this.#words = lapicWords(buffer, index);
    this.#state = lapicState.view(buffer, lapicOffset(index));
    this.#clock = clock;
    this.#tsc = tsc;
  }

  /** When it expires next, nanoseconds of CLOCK_MONOTONIC; Infinity for never. */
  get deadline(): number {
    return this.#state.timer_deadline || Infinity;
  }

  /** The current count register. */
  get currentCount(): number {
    const { timer_deadline: deadline, timer_period: period } = this.#state;
    if (deadline === 0 || period === 0 || this.#mode === TimerMode.TSC_DEADLINE) return 0;
    const left = deadline - this.#clock.monotonicNs();
    const inPeriod = left > 0 || this.#mode !== TimerMode.PERIODIC
      ? Math.max(left, 0)
      : period + left % period;
    return Math.floor(inPeriod / this.#divisor) >>> 0;
  }

  /** Whether it has expired by `now`; a periodic one starts again. */
  advance(now: number): boolean {
    const deadline = this.#state.timer_deadline;
    if (deadline === 0 || now < deadline) return false;
    if (this.#mode === TimerMode.TSC_DEADLINE) return this.#checkTsc(now);
    const period = this.#state.timer_period;
    const repeats = this.#mode === TimerMode.PERIODIC && period > 0;
    // What was missed in between is one interrupt, because there is one bit for it.
    this.#state.timer_deadline = repeats
      ? deadline + (Math.floor((now - deadline) / period) + 1) * period
      : 0;
    return true;
  }

  /** The LVT entry changes from what it was: to or from TSC deadline mode it stops the timer. */
  setEntry(value: number): void {
    const before = this.#mode;
    this.#words[Register.LVT_TIMER >> 2] = value;
    const isDeadline = this.#mode === TimerMode.TSC_DEADLINE;
    if ((before === TimerMode.TSC_DEADLINE) !== isDeadline) {
      this.#words[Register.TIMER_INITIAL >> 2] = 0;
      this.stop();
    } else this.#limitPeriod();
  }

  /** Starts counting from a new initial count; 0 stops. Without effect in TSC deadline mode. */
  setInitialCount(value: number): void {
    if (this.#mode === TimerMode.TSC_DEADLINE) return;
    this.#words[Register.TIMER_INITIAL >> 2] = value;
    this.#start();
  }

  /** Changes the divide configuration; what is left to count takes longer or shorter. */
  setDivide(value: number): void {
    const before = this.#divisor;
    this.#words[Register.TIMER_DIVIDE >> 2] = value & 0xb;
    const factor = this.#divisor / before;
    const { timer_deadline: deadline } = this.#state;
    if (factor === 1 || deadline === 0 || this.#mode === TimerMode.TSC_DEADLINE) return;
    const now = this.#clock.monotonicNs();
    this.#state.timer_deadline = now + Math.max(deadline - now, 0) * factor;
    this.#state.timer_period = this.#initialNs();
    this.#limitPeriod();
  }

  /** Whether it is in TSC deadline mode. */
  get hasTscMode(): boolean {
    return this.#mode === TimerMode.TSC_DEADLINE;
  }

  /** IA32_TSC_DEADLINE's low word; 0 out of TSC deadline mode. */
  get tscDeadlineLow(): number {
    return this.#words[Word.TSC_DEADLINE_LOW] >>> 0;
  }

  /** IA32_TSC_DEADLINE's high word. */
  get tscDeadlineHigh(): number {
    return this.#words[Word.TSC_DEADLINE_HIGH] >>> 0;
  }

  /** Writes IA32_TSC_DEADLINE. Without effect out of TSC deadline mode; 0 disarms. */
  setTscDeadline(low: number, high: number): void {
    if (this.#mode !== TimerMode.TSC_DEADLINE) return;
    this.#words[Word.TSC_DEADLINE_LOW] = low;
    this.#words[Word.TSC_DEADLINE_HIGH] = high;
    this.tscChanged();
  }

  /** The guest's TSC has been set, so that the deadline is at another time. */
  tscChanged(): void {
    if (this.#mode !== TimerMode.TSC_DEADLINE) return;
    const now = this.#clock.monotonicNs();
    const armed = (this.tscDeadlineLow | this.tscDeadlineHigh) !== 0;
    this.#state.timer_deadline = armed ? now + Math.max(this.#ticksLeft() / this.#rate, 0) : 0;
  }

  /** Disarms it. */
  stop(): void {
    this.#words[Word.TSC_DEADLINE_LOW] = 0;
    this.#words[Word.TSC_DEADLINE_HIGH] = 0;
    this.#state.timer_deadline = 0;
    this.#state.timer_period = 0;
  }

  /** Registers have been loaded: counts on from a current count, as KVM_SET_LAPIC does. */
  restored(currentCount: number): void {
    this.stop();
    if (this.#mode === TimerMode.TSC_DEADLINE) return;
    this.#start();
    if (this.#state.timer_deadline === 0) return;
    const left = Math.min(currentCount * this.#divisor, this.#state.timer_period);
    const isPeriodic = this.#mode === TimerMode.PERIODIC;
    const wait = left === 0 && isPeriodic ? this.#state.timer_period : left;
    this.#state.timer_deadline = this.#clock.monotonicNs() + wait;
  }

  #start(): void {
    this.#state.timer_period = this.#initialNs();
    this.#limitPeriod();
    const period = this.#state.timer_period;
    this.#state.timer_deadline = period === 0 ? 0 : this.#clock.monotonicNs() + period;
  }

  /** The TSC is what counts; its clock and CLOCK_MONOTONIC may differ by a little. */
  #checkTsc(now: number): boolean {
    const left = this.#ticksLeft();
    if (left > 0) {
      this.#state.timer_deadline = now + left / this.#rate;
      return false;
    }
    this.stop();
    return true;
  }

  /** Ticks of the TSC until the deadline; exact below 2^53. */
  #ticksLeft(): number {
    this.#tsc.read(this.#now);
    return (this.tscDeadlineHigh - this.#now[1]) * TWO_32 + (this.tscDeadlineLow - this.#now[0]);
  }

  /** Ticks of the TSC in a nanosecond. */
  get #rate(): number {
    return this.#clock.tscKhz / NS_PER_MS;
  }

  get #mode(): number {
    return this.#words[Register.LVT_TIMER >> 2] & TimerMode.ALL;
  }

  /** SDM volume 3, figure 12-10: bits 0, 1 and 3, of which 7 is a division by 1. */
  get #divisor(): number {
    const bits = this.#words[Register.TIMER_DIVIDE >> 2];
    return 1 << (((bits & 3) | ((bits & 8) >> 1)) + 1 & 7);
  }

  #initialNs(): number {
    return (this.#words[Register.TIMER_INITIAL >> 2] >>> 0) * this.#divisor;
  }

  #limitPeriod(): void {
    const { timer_period: period } = this.#state;
    if (this.#mode !== TimerMode.PERIODIC || period === 0) return;
    this.#state.timer_period = Math.max(period, MIN_PERIOD);
  }
}
