/**
 * The I/O loop: wait for descriptors, let devices work, look whether someone wants the thread parked.
 *
 * @module
 */
import type { DescriptorWatch, DescriptorWatcher } from "../../devices/device.ts";
import { drainEvent, Epoll, EpollFd } from "../../ffi/event.ts";
import { awaitOrders, type ThreadControl, ThreadPhase, Wanted } from "./control_block.ts";

/** A descriptor, and who is told of it. */
interface Watched {
  readonly ready: (events: number) => void;
  /** `Epoll` bits that the watch is for. */
  wanted: number;
  /** Those that the epoll instance has. */
  present: number;
  isLeft: boolean;
  /** Who has made it holds this. */
  watch?: DescriptorWatch;
}

/** What the thread waits for. */
export class IoWatcher implements DescriptorWatcher, Disposable {
  readonly #epoll = new EpollFd();
  readonly #watched = new Map<number, Watched>();
  readonly #control: ThreadControl;

  /** @param control the thread's; handlers are called while it shall run */
  constructor(control: ThreadControl) {
    this.#control = control;
  }

  watch(fd: number, events: number, ready: (events: number) => void): DescriptorWatch {
    // Who has watched the descriptor before does so no more.
    const before = this.#watched.get(fd);
    if (before) this.#apply(fd, before, 0);
    const watched: Watched = { ready, wanted: events, present: 0, isLeft: false };
    this.#watched.set(fd, watched);
    this.#apply(fd, watched, events);
    const watch: DescriptorWatch = {
      set: (wanted) => {
        watched.wanted = wanted;
        if (!watched.isLeft) this.#apply(fd, watched, wanted);
      },
    };
    watched.watch = watch;
    return watch;
  }

  leave(fd: number, isLeft: boolean): void {
    const watched = this.#watched.get(fd)!;
    watched.isLeft = isLeft;
    this.#apply(fd, watched, isLeft ? 0 : watched.wanted);
  }

  unwatch(fd: number, watch?: DescriptorWatch): void {
    const watched = this.#watched.get(fd);
    // The number may be another's descriptor's by now.
    if (!watched || (watch && watch !== watched.watch)) return;
    if (watched.present !== 0) this.#epoll.forget(fd);
    this.#watched.delete(fd);
  }

  #apply(fd: number, watched: Watched, events: number): void {
    if (events === watched.present) return;
    // Without events a descriptor would still be reported for what it cannot be asked not to.
    if (events === 0) this.#epoll.remove(fd);
    else if (watched.present === 0) this.#epoll.add(fd, events);
    else this.#epoll.modify(fd, events);
    watched.present = events;
  }

  /** Waits until something happens, and lets it be handled. */
  wait(): void {
    this.#epoll.waitSync(-1, this.#dispatch);
  }

  /** Closes the epoll instance. */
  [Symbol.dispose](): void {
    this.#epoll.close();
  }

  /** What is left out now because the thread shall park comes again. */
  readonly #dispatch = (fd: number, events: number): void => {
    if (this.#control.wanted === Wanted.RUN) this.#watched.get(fd)?.ready(events);
  };
}

/** A doorbell, and who comes when it rings. */
export interface IoDoorbell {
  /** An eventfd. */
  readonly fd: number;
  /** There may be work. */
  answer(): void;
}

/** What the I/O thread works with. */
export interface IoThreadParts {
  readonly control: ThreadControl;
  readonly watcher: IoWatcher;
  /** An eventfd: the thread has orders. */
  readonly kickFd: number;
  /** Those that there are now. */
  doorbells(): readonly IoDoorbell[];
  /** Learns of devices that have come or gone while the thread was parked; whether there were any. */
  learn(): boolean;
  /** The thread stands still from now on, or ends. */
  rest(): void;
}

/** Works for the devices until the thread is told to exit. */
export function ioLoop(parts: IoThreadParts): void {
  const { control, watcher, kickFd } = parts;
  watcher.watch(kickFd, Epoll.IN, () => drainEvent(kickFd));
  let doorbells = watchDoorbells(parts);
  while (awaitOrders(control)) {
    if (parts.learn()) {
      for (const { fd } of doorbells) watcher.unwatch(fd);
      doorbells = watchDoorbells(parts);
    }
    // What came while nobody waited, or was there when the guest was somewhere else.
    for (const { answer } of doorbells) if (control.wanted === Wanted.RUN) answer();
    while (control.wanted === Wanted.RUN) watcher.wait();
    parts.rest();
  }
  control.phase = ThreadPhase.EXITED;
}

function watchDoorbells({ watcher, doorbells }: IoThreadParts): readonly IoDoorbell[] {
  const all = doorbells();
  for (const { fd, answer } of all) {
    watcher.watch(fd, Epoll.IN, () => {
      drainEvent(fd);
      answer();
    });
  }
  return all;
}
