/**
 * A process of its own that looks at the guest's counters and notes for how long they stood still,
 * by CLOCK_MONOTONIC: a check of what the guest says about itself, and all there is where the guest's
 * clock stands still with it.
 *
 * It looks every 50 µs or so and sleeps in between: a process that spins would take a processor from
 * the VMMs. The bench tells it by a page of shared memory when to begin and to end.
 *
 *     deno run -A observer.ts CONTROL RAM ADDRESS...
 *
 * @module
 */
import { armTimerfd, makeTimerfd, monotonicNs } from "../../../ffi/event.ts";
import { O, openFile, pollFd, POLLIN } from "../../../ffi/fd.ts";
import { mapShared } from "../../../ffi/memory.ts";
import { WINDOW } from "./guest_ram.ts";

/** Words of the control page. */
export const Control = {
  /** Written by the bench: one of {@linkcode Request}. */
  REQUEST: 0,
  /** Written by the observer: the request that it follows. */
  STATE: 1,
  /** The longest time for which a counter stood still, nanoseconds. */
  GAP: 2,
  /** The longest time from one look to the next, nanoseconds. */
  BLIND: 3,
  /** How many gaps were listed; of more than {@linkcode LISTED_GAPS} the last ones are there. */
  LISTED: 4,
  /** From here on the listed gaps: when each began and ended, nanoseconds of CLOCK_MONOTONIC. */
  GAPS: 8,
} as const;

/** What the bench asks for. */
export const Request = { REST: 0n, WATCH: 1n } as const;
/** How many gaps there is room for. */
export const LISTED_GAPS = 1024;
/** Bytes of the control memory. */
export const CONTROL_SIZE = 8 * (Control.GAPS + 2 * LISTED_GAPS);

const STDIN = 0;
const REST_MS = 2;
const INTERVAL_NS = 50_000n;
/** Gaps that are listed: clearly longer than the time between two looks. */
const LISTED_FROM_NS = 4n * INTERVAL_NS;

function observe(controlPath: string, guestRam: string, addresses: readonly number[]): void {
  using controlFile = openFile(controlPath, O.RDWR);
  using ramFile = openFile(guestRam, O.RDWR);
  const control = new BigInt64Array(mapShared(controlFile.fd, CONTROL_SIZE).bytes.buffer);
  const ram = mapShared(ramFile.fd, WINDOW.size, WINDOW.offset, false).bytes;
  const words = new BigInt64Array(ram.buffer);
  const counters = addresses.map((address) => (address - WINDOW.offset) / 8);
  // The first time is practice: afterwards the code is compiled.
  for (let i = 0; i < 200; i++) watch(words, counters, control, () => false);
  // The bench holds the other end of stdin: when it is gone, this ends as well.
  const isAlone = (ms: number) => pollFd(STDIN, POLLIN, ms) !== 0;
  const wanted = () => control[Control.REQUEST] === Request.WATCH && !isAlone(0);
  while (!isAlone(REST_MS)) {
    if (control[Control.REQUEST] !== Request.WATCH) continue;
    control[Control.STATE] = Request.WATCH;
    watch(words, counters, control, wanted);
    control[Control.STATE] = Request.REST;
  }
}

function watch(
  words: BigInt64Array,
  counters: readonly number[],
  control: BigInt64Array,
  wanted: () => boolean,
): void {
  using timer = makeTimerfd();
  let looked = monotonicNs();
  const values = counters.map((index) => words[index]);
  const changed = counters.map(() => looked);
  let gap = 0n;
  let blind = 0n;
  let listed = 0;
  // The last look comes after the request to end: nothing that was before it is missed.
  for (let isLast = false; !isLast;) {
    armTimerfd(timer.fd, looked + INTERVAL_NS);
    pollFd(timer.fd, POLLIN, REST_MS);
    isLast = !wanted();
    const now = monotonicNs();
    if (now - looked > blind) blind = now - looked;
    looked = now;
    for (let i = 0; i < counters.length; i++) {
      const value = words[counters[i]];
      const still = now - changed[i];
      if (still > gap) gap = still;
      if (value === values[i]) continue;
      if (still >= LISTED_FROM_NS) {
        const at = Control.GAPS + 2 * (listed++ % LISTED_GAPS);
        control[at] = changed[i];
        control[at + 1] = now;
      }
      values[i] = value;
      changed[i] = now;
    }
  }
  control[Control.GAP] = gap;
  control[Control.BLIND] = blind;
  control[Control.LISTED] = BigInt(listed);
}

if (import.meta.main) {
  const [controlPath, guestRam, ...addresses] = Deno.args;
  observe(controlPath, guestRam, addresses.map(Number));
}
