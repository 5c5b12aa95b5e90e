/**
 * Virtqueues as devices see them (virtio 1.2, 2.6): one interface for split and packed rings.
 *
 * Where a ring is and how far it is read are in shared memory; any thread may build its own object over
 * that, and the one that holds the device's queue lock uses it.
 *
 * @module
 */
import { type Struct, struct, u16, u32, u8, type View } from "../../ffi/struct.ts";
import type { Chain, RingMemory } from "./chain.ts";

/** What the driver has chosen that rings differ by. */
export interface RingFeatures {
  /** VIRTIO_F_RING_PACKED */
  readonly packed: boolean;
  /** VIRTIO_F_INDIRECT_DESC */
  readonly indirect: boolean;
  /** VIRTIO_F_EVENT_IDX */
  readonly eventIndex: boolean;
}

const fields = {
  /** Entries, set by the driver; 0 until then. */
  size: u16,
  /** Next entry that the driver will make available: a counter, or an index of a packed ring. */
  next_avail: u16,
  /** Next entry that the device will use. */
  next_used: u16,
  /** Whether the driver has switched the queue on. */
  ready: u8,
  /** The wrap counters of a packed ring, bit 0 the driver's, bit 1 the device's. */
  wrap: u8,
  // The areas' guest physical addresses: descriptors, the driver's, the device's.
  desc_low: u32,
  desc_high: u32,
  driver_low: u32,
  driver_high: u32,
  device_low: u32,
  device_high: u32,
};

/** A queue's saved state. */
export const virtqueue: Struct<typeof fields> = struct("virtqueue", fields);
/** See {@linkcode virtqueue}. */
export type QueueState = View<typeof fields>;

/** A queue in use. */
export interface VirtQueue {
  /**
   * Takes the next request.
   *
   * @param chain is filled
   * @returns false if there is none
   * @throws {MalformedRing}
   */
  pop(chain: Chain): boolean;
  /** Puts the last taken request back, as if it had not been looked at. */
  unpop(chain: Chain): void;
  /** Gives a request back; the driver sees it after `flush`. @param written bytes written */
  push(chain: Chain, written: number): void;
  /** Shows the driver what was given back. @returns whether it wants an interrupt for that */
  flush(): boolean;
  /** Asks the driver not to tell of new requests. */
  suppress(): void;
  /** Asks the driver to tell of the next request. @returns whether there is one already */
  listen(): boolean;
}

/** Sets a queue back to how the driver finds it after a reset. */
export function resetQueue(state: QueueState, size: number): void {
  Object.assign(state, {
    size,
    next_avail: 0,
    next_used: 0,
    ready: 0,
    wrap: 3,
    desc_low: 0,
    desc_high: 0,
    driver_low: 0,
    driver_high: 0,
    device_low: 0,
    device_high: 0,
  });
}

/** What a ring is made over. */
export interface RingParts {
  readonly state: QueueState;
  readonly memory: RingMemory;
  readonly features: RingFeatures;
  // The three areas.
  readonly desc: ArrayBuffer;
  readonly driver: ArrayBuffer;
  readonly device: ArrayBuffer;
}
