/**
 * virtio-rng: entropy for the guest (virtio 1.2, 5.4).
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import { Epoll } from "../../ffi/event.ts";
import type { IoVector } from "../../ffi/iovec.ts";
import { struct, u64 } from "../../ffi/struct.ts";
import type { Chain } from "./chain.ts";
import { defineVirtioDevice } from "./virtio_device.ts";

/** The most that is made for one request; `crypto.getRandomValues` gives no more. */
const MOST = 65_536;

const state = struct("virtio-rng", {
  /** How many bytes are left of this period's. */
  quota: u64,
  /** When the period ends, nanoseconds of CLOCK_MONOTONIC. */
  period_end: u64,
  /** When a request that waits for the next one is looked at again; 0 if none does. */
  wakes_at: u64,
});

/** The entropy device. */
export const virtioRng = defineVirtioDevice({
  name: "virtio-rng-device",
  help: "Entropy for the guest",
  deviceId: 4,
  version: 1,
  state,
  timers: 1,
  properties: {
    rng: {
      type: "link",
      to: "rng-backend",
      help: "source of the random numbers; the host's kernel without",
    },
    source: {
      type: "uint32",
      internal: true,
      help: "descriptor of the file to read",
      unseen: true,
    },
    "max-bytes": {
      type: "uint64",
      help: "bytes given out in a period; all there are without",
      unseen: true,
    },
    period: {
      type: "uint32",
      default: 65_536,
      help: "length of a period in milliseconds",
      unseen: true,
    },
  },
  features: () => 0n,
  queueSizes: () => [8],
  create(state, virtio, context, properties) {
    const max = properties["max-bytes"];
    const periodNs = BigInt(properties.period) * 1_000_000n;
    const scratch = new Uint8Array(MOST);

    /** How much may be given out now. A period begins with the first request in it. */
    const quota = () => {
      if (max === undefined) return MOST;
      const now = context.monotonicNs();
      if (now >= state.period_end || state.period_end > now + periodNs) {
        state.quota = BigInt(max);
        state.period_end = now + periodNs;
      }
      return Math.min(MOST, Number(state.quota));
    };

    const answer = ({ writable }: Chain) => {
      if (writable.length === 0) return 0;
      const size = Math.min(quota(), writable.length);
      if (size === 0) {
        wakeAt(state.period_end);
        return undefined;
      }
      const written = fill(writable, size);
      if (written === -Errno.EAGAIN) {
        watch?.set(Epoll.IN);
        return undefined;
      }
      if (max !== undefined && written > 0) state.quota -= BigInt(written);
      return Math.max(0, written);
    };

    const source = properties.source === undefined ? undefined : Number(properties.source);
    /** A file that has nothing now may have something later. */
    const watch = source === undefined ? undefined : context.watcher?.watch(source, 0, () => {
      watch!.set(0);
      context.doorbells[0].ring();
    });

    /** Writes random bytes; returns how many, or a negative errno. */
    const fill = (writable: IoVector, size: number): number => {
      if (source === undefined) {
        return writable.copyIn(crypto.getRandomValues(scratch.subarray(0, size)));
      }
      writable.truncate(size);
      return writable.readFrom(source);
    };

    const wakeAt = (deadlineNs: bigint) => {
      state.wakes_at = deadlineNs;
      context.timers[0].arm(deadlineNs);
    };

    return {
      handleQueue: () => virtio.queues[0].serve(answer),
      timer() {
        wakeAt(0n);
        context.doorbells[0].ring();
      },
      reset() {
        Object.assign(state, { quota: 0n, period_end: 0n });
        wakeAt(0n);
      },
      restored: () => context.timers[0].arm(state.wakes_at),
    };
  },
});
