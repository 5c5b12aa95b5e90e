/**
 * The I/O loop: wait for descriptors, let devices work, look whether someone wants the thread parked.
 *
 * @module
 */
import type { DescriptorWatch, DescriptorWatcher } from "../../devices/device.ts";
import { drainEvent, Epoll, EpollFd } from "../../ffi/event.ts";
import { awaitOrders, type ThreadControl, ThreadPhase, Wanted } from "./control_block.ts";

/** What the thread waits for. */
export class IoWatcher implements DescriptorWatcher, Disposable {
  readonly #epoll = new EpollFd();
  readonly #handlers = new Map<number, (events: number) => void>();
  readonly #control: ThreadControl;

  /** @param control the thread's; handlers are called while it shall run */
  constructor(control: ThreadControl) {
    this.#control = control;
  }

  watch(fd: number, events: number, ready: (events: number) => void): DescriptorWatch {
    let watched = 0;
    const set = (wanted: number) => {
      if (wanted === watched) return;
      // Without events a descriptor would still be reported for what it cannot be asked not to.
      if (wanted === 0) this.#epoll.remove(fd);
      else if (watched === 0) this.#epoll.add(fd, wanted);
      else this.#epoll.modify(fd, wanted);
      watched = wanted;
    };
    // Who has watched the descriptor before does so no more.
    if (this.#handlers.has(fd)) this.#epoll.remove(fd);
    this.#handlers.set(fd, ready);
    set(events);
    return { set };
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
    if (this.#control.wanted === Wanted.RUN) this.#handlers.get(fd)?.(events);
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
  readonly doorbells: readonly IoDoorbell[];
}

/** Works for the devices until the thread is told to exit. */
export function ioLoop({ control, watcher, kickFd, doorbells }: IoThreadParts): void {
  watcher.watch(kickFd, Epoll.IN, () => drainEvent(kickFd));
  for (const { fd, answer } of doorbells) {
    watcher.watch(fd, Epoll.IN, () => {
      drainEvent(fd);
      answer();
    });
  }
  while (awaitOrders(control)) {
    // What came while nobody waited, or was there when the guest was somewhere else.
    for (const { answer } of doorbells) if (control.wanted === Wanted.RUN) answer();
    while (control.wanted === Wanted.RUN) watcher.wait();
  }
  control.phase = ThreadPhase.EXITED;
}
