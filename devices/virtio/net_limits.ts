/**
 * The limits of a network backend, as one direction of a card keeps to them.
 *
 * @module
 */
import type { ThrottleGroup } from "../block/throttle.ts";
import type { DeviceContext, Timer } from "../device.ts";

/** Limits on what a card receives, or on what it sends. */
export class NetLimits {
  readonly #group: ThrottleGroup | undefined;
  readonly #isWrite: boolean;
  readonly #clock: Pick<DeviceContext, "monotonicNs">;
  readonly #timer: Timer;

  /**
   * @param group where its frames count, if they do
   * @param isWrite whether it is what the guest sends
   * @param timer used for this alone: it rings for the direction's queues
   */
  constructor(
    group: ThrottleGroup | undefined,
    isWrite: boolean,
    clock: Pick<DeviceContext, "monotonicNs">,
    timer: Timer,
  ) {
    this.#group = group;
    this.#isWrite = isWrite;
    this.#clock = clock;
    this.#timer = timer;
  }

  /** Whether frames have to wait, until the timer says that there may be room. */
  waits(): boolean {
    if (!this.#group?.active) return false;
    const now = this.#clock.monotonicNs();
    const ns = this.#group.wait(this.#isWrite, now);
    if (ns > 0) this.#timer.arm(now + BigInt(ns));
    return ns > 0;
  }

  /** A frame has gone, or come. */
  count(bytes: number): void {
    this.#group?.count(this.#isWrite, bytes);
  }
}
