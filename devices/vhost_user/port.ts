/**
 * What a device knows of its back-end, on any thread.
 *
 * @module
 */
import { drainEvent, signalEventfd } from "../../ffi/event.ts";
import type { InflightRegion } from "./message.ts";
import { DescriptorSlot } from "../descriptor_slot.ts";

/** What a kind of device asks of a back-end. */
export interface VhostUserNeeds {
  /** How many rings it has. */
  readonly queues: number;
  /** Entries of each. */
  readonly queueSize: number;
  /** Bytes of configuration space that the back-end has for it; 0 if the device has them itself. */
  readonly configSize: number;
}

/** A back-end as plain data. */
export interface VhostUserDescription {
  /** The connection's {@linkcode DescriptorSlot}. */
  readonly slot: SharedArrayBuffer;
  /** The eventfd that tells the main thread that the connection has ended. */
  readonly wake: number;
  /** The device's features that the back-end has. */
  readonly features: bigint;
  /** The configuration space that it has. */
  readonly config: SharedArrayBuffer;
  /** Where it notes what it is at. */
  readonly inflight?: InflightRegion & { readonly fd: number };
  /** The eventfds by which it hears of requests, of each ring. */
  readonly kicks: readonly number[];
  /** The eventfds by which it tells of finished ones, of each ring. */
  readonly calls: readonly number[];
  /** Whether a predecessor has been connected, and has left the connection. */
  readonly isInherited: boolean;
}

/** A back-end on this thread. */
export class VhostUserPort {
  readonly #slot: DescriptorSlot;

  /** @param description from the main thread */
  constructor(readonly description: VhostUserDescription) {
    this.#slot = new DescriptorSlot(description.slot);
  }

  /** The connection; undefined while there is none. */
  get fd(): number | undefined {
    return this.#slot.fd;
  }

  /** Another number for each connection. */
  get connection(): number {
    return this.#slot.count;
  }

  /** Gives a connection up that has ended; nobody on this thread waits for it any more. */
  drop(): void {
    this.#slot.fd = undefined;
    signalEventfd(this.description.wake);
  }

  /** Tells the back-end of requests. */
  kick(ring: number): void {
    signalEventfd(this.description.kicks[ring]);
  }

  /** Whether the back-end has told of finished requests since. */
  takeCall(ring: number): boolean {
    return drainEvent(this.description.calls[ring]);
  }
}
