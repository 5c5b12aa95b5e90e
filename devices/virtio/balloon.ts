/**
 * virtio-balloon: the guest gives memory back to the host and takes it again (virtio 1.2, 5.5).
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { array, struct, u32, u64, u8 } from "../../ffi/struct.ts";
import type { Balloon, GuestStatistics } from "../device.ts";
import type { Chain } from "./chain.ts";
import { defineVirtioDevice } from "./virtio_device.ts";

/** VIRTIO_BALLOON_F_*: feature bits (5.5.3). */
export const BalloonFeature = {
  STATS_VQ: 1,
  DEFLATE_ON_OOM: 2,
  PAGE_POISON: 4,
  REPORTING: 5,
} as const;

/** Its queues; of those that a driver may do without, the last one exists only if it is offered. */
const Queue = { INFLATE: 0, DEFLATE: 1, STATS: 2, REPORTING: 3 } as const;
const QUEUE_SIZE = 128;

/** Pages are of that size, whatever the guest's or the host's are (5.5.6). */
const PAGE = 4096;
/** How many pages are taken from one request; Linux has 256 in one. */
const MOST_PAGES = 16_384;

/** Names that QEMU has for statistics, by their tags (5.5.6.4 and linux/virtio_balloon.h). */
const STATISTICS = [
  "stat-swap-in",
  "stat-swap-out",
  "stat-major-faults",
  "stat-minor-faults",
  "stat-free-memory",
  "stat-total-memory",
  "stat-available-memory",
  "stat-disk-caches",
  "stat-htlb-pgalloc",
  "stat-htlb-pgfail",
  "stat-oom-kills",
  "stat-alloc-stalls",
  "stat-async-scans",
  "stat-direct-scans",
  "stat-async-reclaims",
  "stat-direct-reclaims",
] as const;
/** Bytes of a statistic: its tag, 16 bits, and its value, 64 bits. */
const STATISTIC_SIZE = 10;
/** How many are read of a request: a driver may tell one more than once. */
const MOST_STATISTICS = 4 * STATISTICS.length;

const SECOND_NS = 1_000_000_000n;

const state = struct("virtio-balloon", {
  /** How many pages the guest is asked to give back. */
  num_pages: u32,
  /** How many it says that it has. */
  actual: u32,
  /** What its free pages are filled with. */
  poison_val: u32,
  /** Seconds between questions for statistics; 0 for none. */
  poll_interval: u32,
  /** When the next is asked, nanoseconds of CLOCK_MONOTONIC; 0 if none is waited for. */
  polls_at: u64,
  /** When statistics came, seconds of CLOCK_REALTIME. */
  last_update: u64,
  /** A bit for each statistic that the guest has told. */
  told: u32,
  /** Whether a request of the driver's waits for the next question. */
  is_held: u8,
  /** Whether it is to go back to the driver, as the question. */
  is_due: u8,
  statistics: array(u64, STATISTICS.length),
});

/** struct virtio_balloon_config (5.5.4). */
const config = struct("virtio_balloon_config", {
  num_pages: u32,
  actual: u32,
  free_page_hint_cmd_id: u32,
  poison_val: u32,
});
/** The part that there is without VIRTIO_BALLOON_F_PAGE_POISON and VIRTIO_BALLOON_F_FREE_PAGE_HINT. */
const OLD_CONFIG_SIZE = 8;

/** The memory balloon. */
export const virtioBalloon = defineVirtioDevice({
  name: "virtio-balloon-device",
  help: "Takes memory from the guest and gives it back",
  deviceId: 5,
  version: 1,
  state,
  timers: 1,
  properties: {
    "deflate-on-oom": {
      type: "bool",
      default: false,
      help: "let the guest take memory back rather than end a process for lack of it",
    },
    "free-page-reporting": {
      type: "bool",
      default: false,
      help: "give the host memory back that is free in the guest",
    },
    "page-poison": {
      type: "bool",
      default: true,
      help: "let the guest tell what its free pages are filled with",
    },
    iothread: {
      type: "link",
      to: "iothread",
      help: "thread that serves requests; the machine's own without",
    },
  },
  features(properties) {
    const bit = (isOffered: boolean, feature: number) => isOffered ? 1n << BigInt(feature) : 0n;
    return bit(true, BalloonFeature.STATS_VQ) |
      bit(properties["deflate-on-oom"] === true, BalloonFeature.DEFLATE_ON_OOM) |
      bit(properties["page-poison"] === true, BalloonFeature.PAGE_POISON) |
      bit(properties["free-page-reporting"] === true, BalloonFeature.REPORTING);
  },
  queueSizes: (properties) =>
    Array.from({ length: properties["free-page-reporting"] ? 4 : 3 }, () => QUEUE_SIZE),
  create(state, virtio, context, properties) {
    const { memory } = context;
    const configSize = properties["page-poison"] ? config.size : OLD_CONFIG_SIZE;
    const pages = new IoVector();
    const numbers = new Uint32Array(MOST_PAGES);
    const words = new Uint8Array(numbers.buffer);
    const told = new DataView(new ArrayBuffer(STATISTIC_SIZE * MOST_STATISTICS));
    let isRefused = false;

    const giveBack = (vector: IoVector) => {
      try {
        memory.giveBack(vector);
      } catch (error) {
        if (!(error instanceof OsError)) throw error;
        if (!isRefused) context.warn(`virtio-balloon-device: guest RAM is kept: ${error.message}`);
        isRefused = true;
      }
    };

    /** Pages that are no RAM are passed over. */
    const inflate = ({ readable }: Chain) => {
      const bytes = Math.max(0, readable.copyOut(words));
      // Linux takes pages as they come, many of them neighbours, and tells of the last one first.
      const sorted = numbers.subarray(0, Math.floor(bytes / 4)).sort();
      pages.clear();
      for (const number of sorted) {
        if (memory.collect(pages, number * PAGE, PAGE) !== "full") continue;
        giveBack(pages);
        pages.clear();
        memory.collect(pages, number * PAGE, PAGE);
      }
      if (pages.length > 0) giveBack(pages);
      return 0;
    };

    /** What is free in the guest is used again without a word: only zeros may be lost. */
    const report = ({ writable }: Chain) => {
      const isPoisoned = virtio.hasFeature(BalloonFeature.PAGE_POISON) && state.poison_val !== 0;
      if (!isPoisoned && writable.length > 0) giveBack(writable);
      return 0;
    };

    const pollAt = (deadlineNs: bigint) => {
      state.polls_at = deadlineNs;
      context.timers[0].arm(deadlineNs);
    };

    const interval = () => BigInt(state.poll_interval) * SECOND_NS;

    const pollLater = () => {
      pollAt(state.poll_interval === 0 ? 0n : context.monotonicNs() + interval());
    };

    /** The driver's one request holds its statistics; given back, it asks for new ones (5.5.6.3). */
    const takeStatistics = (chain: Chain) => {
      if (state.is_held && !state.is_due) {
        // The host has been restarted since, and its clock with it.
        if (state.polls_at > context.monotonicNs() + interval()) pollLater();
        return undefined;
      }
      if (state.is_held) {
        Object.assign(state, { is_held: 0, is_due: 0 });
        return 0;
      }
      readStatistics(chain);
      state.is_held = 1;
      pollLater();
      return undefined;
    };

    const readStatistics = ({ readable }: Chain) => {
      const bytes = Math.max(0, readable.copyOut(new Uint8Array(told.buffer)));
      state.told = 0;
      for (let at = 0; at + STATISTIC_SIZE <= bytes; at += STATISTIC_SIZE) {
        const tag = told.getUint16(at, true);
        if (tag >= STATISTICS.length) continue;
        state.statistics.put(tag, told.getBigUint64(at + 2, true));
        state.told |= 1 << tag;
      }
      state.last_update = context.realtimeNs() / SECOND_NS;
    };

    const handlers = [inflate, () => 0, takeStatistics, report];

    const balloon: Balloon = {
      get actual() {
        return state.actual * PAGE;
      },
      setTarget(bytes) {
        state.num_pages = Math.floor(bytes / PAGE);
        virtio.configChanged();
      },
      get pollInterval() {
        return state.poll_interval;
      },
      set pollInterval(seconds) {
        virtio.locked(() => {
          const before = state.poll_interval;
          if (seconds === before) return;
          state.poll_interval = seconds;
          if (before === 0) pollAt(context.monotonicNs());
          else pollLater();
        });
      },
      get statistics(): GuestStatistics {
        let stats: GuestStatistics | undefined;
        virtio.locked(() => {
          stats = {
            stats: STATISTICS.map((name, tag) =>
              [name, state.told >>> tag & 1 ? state.statistics.at(tag) : undefined] as const
            ),
            lastUpdate: Number(state.last_update),
          };
        });
        return stats!;
      },
    };

    return {
      balloon,
      handleQueue: (index) => virtio.queues[index].serve(handlers[index]),
      readConfig(offset, size) {
        const bytes = new Uint8Array(config.size);
        const { num_pages, actual, poison_val } = state;
        Object.assign(config.view(bytes.buffer), { num_pages, actual, poison_val });
        let value = 0;
        for (let i = size - 1; i >= 0; i--) {
          value = value * 256 + (offset + i < configSize ? bytes[offset + i] : 0);
        }
        return value;
      },
      writeConfig(offset, size, value) {
        if (size !== 4) return;
        if (offset === config.offsets.actual && value !== state.actual) {
          state.actual = value;
          context.request({ kind: "balloon-change" });
        }
        if (offset === config.offsets.poison_val && offset < configSize) state.poison_val = value;
      },
      timer() {
        virtio.locked(() => {
          if (state.is_held) {
            state.polls_at = 0n;
            context.timers[0].arm(0n);
            state.is_due = 1;
          } else pollLater();
        });
        context.doorbells[Queue.STATS].ring();
      },
      /** A driver that begins has all memory, and finds how much it is to give back. */
      reset() {
        if (state.actual !== 0) context.request({ kind: "balloon-change" });
        Object.assign(state, { actual: 0, poison_val: 0, is_held: 0, is_due: 0 });
      },
      restored: () => context.timers[0].arm(state.polls_at),
    };
  },
});

/** Whether a device of a type is a balloon. */
export function isBalloon(type: string): boolean {
  return type === virtioBalloon.name || type === virtioBalloon.pci.name;
}
