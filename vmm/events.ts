/**
 * The VM's events, with QEMU's names and data (QAPI run-state.json, migration.json).
 *
 * @module
 */

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

  /** Adds a listener; the function returned removes it. */
  subscribe(listener: VmEventListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Sends an event to all listeners, now. */
  emit(name: string, data?: Record<string, unknown>): void {
    const now = Date.now() * 1000 + Math.floor((performance.now() * 1000) % 1000);
    const timestamp = { seconds: Math.floor(now / 1e6), microseconds: now % 1e6 };
    const event: VmEvent = data ? { name, data, timestamp } : { name, timestamp };
    for (const listener of this.#listeners) listener(event);
  }
}
