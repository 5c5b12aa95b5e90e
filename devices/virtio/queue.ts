/**
 * Opens virtqueues that a driver has set up.
 *
 * @module
 */
import { MalformedRing, type RingMemory, wide } from "./chain.ts";
import { PackedRing } from "./packed_ring.ts";
import type { QueueState, RingFeatures, VirtQueue } from "./ring.ts";
import { SplitRing } from "./split_ring.ts";

/** Alignment of the three areas, in bytes, and their sizes for a queue of `size` entries. */
const areas = {
  split: { align: [16, 2, 4], size: (n: number) => [16 * n, 6 + 2 * n, 6 + 8 * n] },
  packed: { align: [16, 4, 4], size: (n: number) => [16 * n, 4, 4] },
} as const;

/**
 * Opens the queue that the driver has set up.
 *
 * @throws {MalformedRing} if it lies where no memory is, or its size or place is not allowed
 */
export function openQueue(
  state: QueueState,
  memory: RingMemory,
  features: RingFeatures,
): VirtQueue {
  const { size } = state;
  if (size === 0 || (!features.packed && (size & (size - 1)) !== 0)) {
    throw new MalformedRing(`virtio: a queue cannot have ${size} entries`);
  }
  if (features.packed && (state.next_avail >= size || state.next_used >= size)) {
    throw new MalformedRing(`virtio: next entry is outside a queue of ${size} entries`);
  }
  const { align, size: sizes } = areas[features.packed ? "packed" : "split"];
  const lengths = sizes(size);
  const [desc, driver, device] = [
    wide(state.desc_low, state.desc_high),
    wide(state.driver_low, state.driver_high),
    wide(state.device_low, state.device_high),
  ].map((gpa, i) => {
    const view = gpa % align[i] === 0 ? memory.view(gpa, lengths[i]) : undefined;
    if (view) return view;
    throw new MalformedRing(`virtio: no ring can be at 0x${gpa.toString(16)}`);
  });
  const parts = { state, memory, features, desc, driver, device };
  return features.packed ? new PackedRing(parts) : new SplitRing(parts);
}
