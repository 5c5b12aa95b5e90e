/**
 * eventfd, timerfd, epoll and clocks.
 *
 * @module
 */
import { check, Errno, errno, OsError, retry } from "./errno.ts";
import { OwnedFd } from "./fd.ts";
import { libc } from "./libc.ts";

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
const TFD_TIMER_ABSTIME = 1;
const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC = 1;

const one = new Uint8Array(new BigUint64Array([1n]).buffer);
const drained = new Uint8Array(8);

/** Makes a non-blocking eventfd. */
export function makeEventfd(): OwnedFd {
  return new OwnedFd(check(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
}

/** Adds one to an eventfd, which makes it readable. Safe on any thread. */
export function signalEventfd(fd: number): void {
  libc.write(fd, one, 8n);
}

/** Sets an eventfd or timerfd back; returns whether it had fired. */
export function drainEvent(fd: number): boolean {
  return libc.read(fd, drained, 8n) === 8;
}

/** Makes a non-blocking timerfd on CLOCK_MONOTONIC. */
export function makeTimerfd(): OwnedFd {
  return new OwnedFd(
    check(libc.timerfd_create(CLOCK_MONOTONIC, EFD_CLOEXEC | EFD_NONBLOCK), "timerfd_create"),
  );
}

/** Arms a timerfd for an absolute CLOCK_MONOTONIC time in nanoseconds; 0n disarms it. */
export function armTimerfd(fd: number, deadlineNs: bigint): void {
  const spec = new BigInt64Array([
    0n,
    0n,
    deadlineNs / 1_000_000_000n,
    deadlineNs % 1_000_000_000n,
  ]);
  check(libc.timerfd_settime(fd, TFD_TIMER_ABSTIME, spec, 0), "timerfd_settime");
}

const timespec = new BigInt64Array(2);

function clock(id: number): bigint {
  libc.clock_gettime(id, timespec);
  return timespec[0] * 1_000_000_000n + timespec[1];
}

/** CLOCK_MONOTONIC in nanoseconds: the same in every process of the host. */
export function monotonicNs(): bigint {
  return clock(CLOCK_MONOTONIC);
}

const now = new Uint32Array(4);

/**
 * CLOCK_MONOTONIC in nanoseconds as a number, for where time is short: exact for the first 104 days
 * of the host's uptime, to two nanoseconds afterwards.
 */
export function monotonicNow(): number {
  libc.clock_gettime(CLOCK_MONOTONIC, now);
  return now[0] * 1e9 + now[2];
}

/** CLOCK_REALTIME in nanoseconds since 1970. */
export function realtimeNs(): bigint {
  return clock(CLOCK_REALTIME);
}

/** epoll event bits (linux/eventpoll.h). */
export const Epoll = { IN: 1, OUT: 4, ERR: 8, HUP: 0x10, RDHUP: 0x2000, ET: 0x8000_0000 } as const;

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
/** struct epoll_event is packed on x86-64: u32 events, u64 data. */
const EVENT_SIZE = 12;
const MAX_EVENTS = 64;

/** An epoll instance. */
export class EpollFd implements Disposable {
  readonly #fd: OwnedFd;
  readonly #events = new Uint8Array(EVENT_SIZE * MAX_EVENTS);
  readonly #data = new DataView(this.#events.buffer);

  /** Makes an epoll instance. */
  constructor() {
    this.#fd = new OwnedFd(check(libc.epoll_create1(EFD_CLOEXEC), "epoll_create1"));
  }

  /** Watches a descriptor. */
  add(fd: number, events: number): void {
    this.#control(EPOLL_CTL_ADD, fd, events);
  }

  /** Changes the events that a descriptor is watched for. */
  modify(fd: number, events: number): void {
    this.#control(EPOLL_CTL_MOD, fd, events);
  }

  /** Stops watching a descriptor. */
  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd, 0);
  }

  /** Stops watching a descriptor, unless it is closed already: then nobody watches it any more. */
  forget(fd: number): void {
    try {
      this.remove(fd);
    } catch (error) {
      if (!(error instanceof OsError) || error.errno !== Errno.EBADF) throw error;
    }
  }

  /** Waits without blocking the event loop and calls `visit` for each descriptor with events. */
  async wait(visit: (fd: number, events: number) => void): Promise<void> {
    const n = await libc.epoll_wait_async(this.#fd.fd, this.#events, MAX_EVENTS, -1);
    // errno of a nonblocking call is lost; the only error an open epoll can give is EINTR.
    this.#visit(n, visit);
  }

  /** Waits on this thread for at most `timeoutMs` milliseconds. */
  waitSync(timeoutMs: number, visit: (fd: number, events: number) => void): void {
    const n = retry(() => libc.epoll_wait(this.#fd.fd, this.#events, MAX_EVENTS, timeoutMs));
    check(n, "epoll_wait");
    this.#visit(n, visit);
  }

  /** Closes the instance. No `wait` may be pending. */
  close(): void {
    this.#fd.close();
  }

  /** Closes the instance at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }

  #visit(n: number, visit: (fd: number, events: number) => void): void {
    const ready: [number, number][] = [];
    for (let i = 0; i < n; i++) {
      const events = this.#data.getUint32(i * EVENT_SIZE, true);
      ready.push([this.#data.getInt32(i * EVENT_SIZE + 4, true), events]);
    }
    for (const [fd, events] of ready) visit(fd, events);
  }

  #control(operation: number, fd: number, events: number): void {
    const event = new Uint8Array(EVENT_SIZE);
    const data = new DataView(event.buffer);
    data.setUint32(0, events, true);
    data.setInt32(4, fd, true);
    if (libc.epoll_ctl(this.#fd.fd, operation, fd, event) === -1) {
      if (operation === EPOLL_CTL_DEL && errno() === Errno.ENOENT) return;
      throw new OsError("epoll_ctl", errno(), `${fd}`);
    }
  }
}
