/**
 * The main thread's event loop over file descriptors: one epoll instance, awaited without blocking
 * Deno's own loop. Callbacks are synchronous.
 *
 * @module
 */
import { drainEvent, Epoll, EpollFd, makeEventfd, signalEventfd } from "./event.ts";

/** Called with the epoll events that a descriptor has. */
export type ReadyHandler = (events: number) => void;

/** Dispatches readiness of descriptors to handlers. */
export class Reactor {
  readonly #epoll = new EpollFd();
  readonly #handlers = new Map<number, ReadyHandler>();
  readonly #wake = makeEventfd();
  #loop: Promise<void> | undefined;
  #closing = false;

  /** Makes a reactor; it starts to wait with the first descriptor. */
  constructor() {
    this.#epoll.add(this.#wake.fd, Epoll.IN);
  }

  /**
   * Watches a descriptor.
   *
   * @param fd the descriptor; it must be removed before it is closed
   * @param events {@linkcode Epoll} bits; ERR and HUP are always reported
   * @param handler called on the main thread
   */
  add(fd: number, events: number, handler: ReadyHandler): void {
    this.#epoll.add(fd, events);
    this.#handlers.set(fd, handler);
    this.#loop ??= this.#run();
  }

  /** Changes the events that a descriptor is watched for. */
  modify(fd: number, events: number): void {
    this.#epoll.modify(fd, events);
  }

  /** Stops watching a descriptor; events that were already fetched for it are dropped. */
  remove(fd: number): void {
    if (this.#handlers.delete(fd)) this.#epoll.remove(fd);
  }

  /**
   * Waits until a descriptor that is not watched otherwise has events.
   *
   * @param fd the descriptor, which stays open meanwhile
   * @param events {@linkcode Epoll} bits; ERR and HUP end the wait as well
   * @param abort ends it too: it rejects with the signal's reason then
   */
  ready(fd: number, events: number, abort?: AbortSignal): Promise<void> {
    if (abort?.aborted) return Promise.reject(abort.reason);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const done = () => {
      this.remove(fd);
      abort?.removeEventListener("abort", aborted);
    };
    const aborted = () => {
      done();
      reject(abort?.reason);
    };
    abort?.addEventListener("abort", aborted);
    this.add(fd, events, () => {
      done();
      resolve();
    });
    return promise;
  }

  /** Handles on this thread what is ready now, waiting at most `timeoutMs`. */
  poll(timeoutMs: number): void {
    this.#epoll.waitSync(timeoutMs, this.#dispatch);
  }

  /** Stops waiting and closes the epoll instance. */
  async close(): Promise<void> {
    this.#closing = true;
    signalEventfd(this.#wake.fd);
    await this.#loop;
    this.#epoll.close();
    this.#wake.close();
  }

  readonly #dispatch = (fd: number, events: number): void => {
    if (fd === this.#wake.fd) drainEvent(fd);
    else this.#handlers.get(fd)?.(events);
  };

  async #run(): Promise<void> {
    while (!this.#closing) await this.#epoll.wait(this.#dispatch);
  }
}
