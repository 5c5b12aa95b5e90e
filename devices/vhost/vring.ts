/**
 * A queue as somebody else works on it, who knows guest memory by this process's addresses: the kernel's
 * vhost, or the process behind a vhost-user socket.
 *
 * @module
 */
import type { DeviceMemory } from "../device.ts";
import { MalformedRing, wide } from "../virtio/chain.ts";
import type { QueueState } from "../virtio/ring.ts";

/** Where a split queue's areas are mapped in this process. */
export interface RingAddresses {
  /** Descriptors. */
  readonly desc: number;
  /** What the driver makes available. */
  readonly avail: number;
  /** What the device has used. */
  readonly used: number;
}

/** How far driver and device are in a split queue, as they count entries: 16 bits. */
export interface RingIndices {
  /** What the driver has made available. */
  readonly avail: number;
  /** What the device has used. */
  readonly used: number;
}

/**
 * Finds the areas of a split queue (virtio 1.2, 2.7).
 *
 * @throws {MalformedRing} if they are not in memory, or not aligned
 */
export function ringAddresses(queue: QueueState, memory: DeviceMemory): RingAddresses {
  const { size } = queue;
  if (size === 0 || (size & (size - 1)) !== 0) {
    throw new MalformedRing(`virtio: a queue cannot have ${size} entries`);
  }
  const [desc, avail, used] = [
    { gpa: wide(queue.desc_low, queue.desc_high), align: 16, length: 16 * size },
    { gpa: wide(queue.driver_low, queue.driver_high), align: 2, length: 6 + 2 * size },
    { gpa: wide(queue.device_low, queue.device_high), align: 4, length: 6 + 8 * size },
  ].map(({ gpa, align, length }) => {
    const address = gpa % align === 0 ? hostAddress(memory, gpa, length) : undefined;
    if (address !== undefined) return address;
    throw new MalformedRing(`virtio: no ring can be at 0x${gpa.toString(16)}`);
  });
  return { desc, avail, used };
}

/** How far driver and device are; undefined if the queue is not in memory. */
export function ringIndices(queue: QueueState, memory: DeviceMemory): RingIndices | undefined {
  const [avail, used] = [
    wide(queue.driver_low, queue.driver_high),
    wide(queue.device_low, queue.device_high),
  ].map((gpa) => {
    // Flags, and the index.
    const view = gpa % 2 === 0 ? memory.view(gpa, 4) : undefined;
    return view && Atomics.load(new Uint16Array(view), 1);
  });
  return avail === undefined || used === undefined ? undefined : { avail, used };
}

/** Where a range of guest RAM is mapped; undefined if it is not RAM throughout. */
function hostAddress({ ranges }: DeviceMemory, gpa: number, length: number): number | undefined {
  const range = ranges.find((one) => gpa >= one.gpa && gpa + length <= one.gpa + one.size);
  return range && range.address + gpa - range.gpa;
}
