/**
 * The VM's events, with QEMU's names and data (QAPI run-state.json, migration.json).
 *
 * @module
 */
import { realtimeNs } from "../ffi/event.ts";

/** One event. */
export interface VmEvent {
  /** QEMU's name, for example `STOP`. */
  readonly name: string;
  /** QEMU's data members, if the event has any. */
  readonly data?: Readonly<Record<string, unknown>>;
  /** Host wall-clock time. */
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

/** Called with each event. */
export type VmEventListener = (event: VmEvent) => void;

/** Distributes events to listeners, in order. */
export class EventHub {
  readonly #listeners = new Set<VmEventListener>();
  #held: VmEvent[] = [];
  /** How many keep events back. */
  #holders = 0;

  /** Adds a listener; the function returned removes it. */
  subscribe(listener: VmEventListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Sends an event to all listeners, now.
   *
   * @param agoNs how long ago it happened, nanoseconds
   */
  emit(name: string, data?: Record<string, unknown>, agoNs = 0): void {
    const then = (realtimeNs() - BigInt(agoNs)) / 1000n;
    const timestamp = {
      seconds: Number(then / 1_000_000n),
      microseconds: Number(then % 1_000_000n),
    };
    const event: VmEvent = data ? { name, data, timestamp } : { name, timestamp };
    if (this.#holders > 0) this.#held.push(event);
    else this.#send(event);
  }

  /** Keeps events back until as many calls of `release` have come. */
  hold(): void {
    this.#holders++;
  }

  /** Undoes a `hold`. */
  release(): void {
    if (--this.#holders === 0) this.flush();
  }

  /** Sends what was kept back, with the times at which it happened. */
  flush(): void {
    const held = this.#held;
    this.#held = [];
    for (const event of held) this.#send(event);
  }

  #send(event: VmEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
