/**
 * The I/O loop: wait for doorbells, let devices work, look whether someone wants the thread parked.
 *
 * @module
 */
import { drainEvent, Epoll, type EpollFd } from "../../ffi/event.ts";
import { awaitOrders, type ThreadControl, ThreadPhase, Wanted } from "./control_block.ts";

/** Something that the loop waits for. */
export interface IoSource {
  /** An eventfd. */
  readonly fd: number;
  /** There may be work. */
  run(): void;
}

/** What the I/O thread works with. */
export interface IoThreadParts {
  readonly control: ThreadControl;
  readonly epoll: EpollFd;
  /** An eventfd: the thread has orders. */
  readonly kickFd: number;
  readonly sources: readonly IoSource[];
}

/** Works for the devices until the thread is told to exit. */
export function ioLoop({ control, epoll, kickFd, sources }: IoThreadParts): void {
  const byFd = new Map(sources.map((source) => [source.fd, source]));
  for (const fd of [kickFd, ...byFd.keys()]) epoll.add(fd, Epoll.IN);
  const visit = (fd: number) => {
    drainEvent(fd);
    // Who is left out now is looked at when the thread goes on.
    if (control.wanted === Wanted.RUN) byFd.get(fd)?.run();
  };
  while (awaitOrders(control)) {
    // What came while nobody waited, or was there when the guest was somewhere else.
    for (const source of sources) if (control.wanted === Wanted.RUN) source.run();
    while (control.wanted === Wanted.RUN) epoll.waitSync(-1, visit);
  }
  control.phase = ThreadPhase.EXITED;
}
