/**
 * The words through which the main thread and the machine's other threads steer each other: a thread's
 * state machine and its mailbox, in one SharedArrayBuffer.
 *
 * A thread is *running*, *parked* (waiting in `Atomics.wait`) or *exited*; the main thread says by
 * `wanted` which of these it shall be. Both sides write first and look afterwards; because Atomics
 * are sequentially consistent, one of them always sees the other.
 *
 * @module
 */
import { monotonicNow } from "../../ffi/event.ts";

/** What the main thread wants a thread to do; READY is to park, awake, for a moment. */
export const Wanted = { PARK: 0, RUN: 1, EXIT: 2, READY: 3 } as const;

/** What a thread does. A thread that has not started yet counts as parked. */
export const ThreadPhase = { STARTING: 0, PARKED: 1, RUNNING: 2, EXITED: 3 } as const;

/** What a thread reports to the main thread. */
export const GuestEvent = {
  NONE: 0,
  RESET: 1,
  SHUTDOWN: 2,
  DEBUG_EXIT: 3,
  TRIPLE_FAULT: 4,
  INTERNAL_ERROR: 5,
  UNKNOWN_EXIT: 6,
  FAILED_ENTRY: 7,
  CRASH: 8,
  THREAD_FAILED: 9,
  /** The vCPU could not be entered; the argument is the errno. */
  RUN_FAILED: 10,
  /** Where a debugger wanted the vCPU to stop; the argument is DR6. */
  DEBUG: 11,
  /** The host could not do a request to a disk, whose statistics have the rest. */
  DISK_ERROR: 12,
  /** The guest has put the machine to sleep. */
  SUSPEND: 13,
} as const;

/**
 * How often a phase is looked at before its change is slept for, some 200 µs: a thread that sleeps is
 * woken later than that, and one that looks for longer keeps others from running.
 */
const SPIN_LOOKS = 16_000;
/** The same for a thread that is to run within a moment, some 2 ms. */
const READY_LOOKS = 10 * SPIN_LOOKS;

// One cache line of words for each thread: vCPUs first, the main thread's own last.
const LINE = 16;
const WANTED = 0;
const PHASE = 1;
const THREAD_ID = 2;
const EVENT = 3;
const EVENT_ARGUMENT = 4;
/** A double: the two words from here. */
const ENTERED = 6;

/** Size in bytes of the control block for `threads` threads besides the main one. */
export function controlBlockSize(threads: number): number {
  return (threads + 1) * LINE * 4;
}

/** One thread's words. */
export class ThreadControl {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #times: Float64Array<SharedArrayBuffer>;
  readonly #base: number;

  /**
   * @param buffer the control block
   * @param line the thread's line: a vCPU's index, or the number of threads for the main thread
   */
  constructor(buffer: SharedArrayBuffer, line: number) {
    this.#words = new Int32Array(buffer);
    this.#times = new Float64Array(buffer);
    this.#base = line * LINE;
  }

  /** What the thread shall do, a {@linkcode Wanted}. */
  get wanted(): number {
    return Atomics.load(this.#words, this.#base + WANTED);
  }

  set wanted(value: number) {
    Atomics.store(this.#words, this.#base + WANTED, value);
    Atomics.notify(this.#words, this.#base + WANTED);
  }

  /** Wakes a parked thread, so that it can run at once when it shall. */
  makeReady(): void {
    const index = this.#base + WANTED;
    if (Atomics.compareExchange(this.#words, index, Wanted.PARK, Wanted.READY) !== Wanted.PARK) {
      return;
    }
    Atomics.notify(this.#words, index);
  }

  /** The thread itself asks to be parked; an order to exit stands. */
  requestPark(): void {
    Atomics.compareExchange(this.#words, this.#base + WANTED, Wanted.RUN, Wanted.PARK);
  }

  /** What the thread does, a {@linkcode ThreadPhase}. */
  get phase(): number {
    return Atomics.load(this.#words, this.#base + PHASE);
  }

  set phase(value: number) {
    Atomics.store(this.#words, this.#base + PHASE, value);
    Atomics.notify(this.#words, this.#base + PHASE);
  }

  /** The thread's id; 0 before it has started. */
  get threadId(): number {
    return Atomics.load(this.#words, this.#base + THREAD_ID);
  }

  set threadId(value: number) {
    Atomics.store(this.#words, this.#base + THREAD_ID, value);
  }

  /**
   * When the thread last went from parked to running, nanoseconds of CLOCK_MONOTONIC. It is written
   * before the phase.
   */
  get enteredNs(): number {
    return this.#times[(this.#base + ENTERED) / 2];
  }

  set enteredNs(ns: number) {
    this.#times[(this.#base + ENTERED) / 2] = ns;
  }

  /** Waits while `wanted` is `value`. */
  waitWhileWanted(value: number): void {
    Atomics.wait(this.#words, this.#base + WANTED, value);
  }

  /** Looks for a moment whether the thread, which is READY, shall do something else. */
  spinWhileReady(): void {
    for (let look = 0; look < READY_LOOKS && this.wanted === Wanted.READY; look++);
  }

  /** Looks for a moment whether the phase is something else; false if it is not. */
  spinWhilePhase(value: number): boolean {
    for (let look = 0; look < SPIN_LOOKS; look++) {
      if (Atomics.load(this.#words, this.#base + PHASE) !== value) return true;
    }
    return false;
  }

  /** Waits while the phase is `value`, at most `timeoutMs`; returns false after the timeout. */
  waitWhilePhase(value: number, timeoutMs: number): boolean {
    return Atomics.wait(this.#words, this.#base + PHASE, value, timeoutMs) !== "timed-out";
  }

  /** Leaves an event for the main thread; the first one stays until it is taken. */
  post(event: number, argument = 0): void {
    // The argument first: the event word is what the reader looks at.
    if (Atomics.load(this.#words, this.#base + EVENT) !== GuestEvent.NONE) return;
    Atomics.store(this.#words, this.#base + EVENT_ARGUMENT, argument);
    Atomics.store(this.#words, this.#base + EVENT, event);
  }

  /** Whether there is an event that nobody has taken. */
  get hasEvent(): boolean {
    return Atomics.load(this.#words, this.#base + EVENT) !== GuestEvent.NONE;
  }

  /** Takes the event that is there, if any. */
  take(): { event: number; argument: number } | undefined {
    const event = Atomics.load(this.#words, this.#base + EVENT);
    if (event === GuestEvent.NONE) return undefined;
    const argument = Atomics.load(this.#words, this.#base + EVENT_ARGUMENT);
    Atomics.store(this.#words, this.#base + EVENT, GuestEvent.NONE);
    return { event, argument };
  }
}

/**
 * What a thread does between two runs: it parks until it shall run.
 *
 * @returns false when it shall exit
 */
export function awaitOrders(control: ThreadControl): boolean {
  control.phase = ThreadPhase.PARKED;
  while (control.wanted === Wanted.PARK || control.wanted === Wanted.READY) {
    control.waitWhileWanted(Wanted.PARK);
    control.spinWhileReady();
    control.waitWhileWanted(Wanted.READY);
  }
  control.enteredNs = monotonicNow();
  control.phase = ThreadPhase.RUNNING;
  return control.wanted !== Wanted.EXIT;
}

/** The words of the first `count` threads of a control block: those of the vCPUs. */
export function vcpuControls(buffer: SharedArrayBuffer, count: number): ThreadControl[] {
  return Array.from({ length: count }, (_, index) => new ThreadControl(buffer, index));
}
