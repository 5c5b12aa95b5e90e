/**
 * A client that connects again and again until somebody is there (`reconnect-ms`).
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { Epoll } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { socketError } from "../../ffi/socket.ts";

/** Makes connections, one at a time, when it is told to; nothing here blocks. */
export class Connector {
  readonly #intervalMs: number;
  readonly #connect: () => OwnedFd;
  readonly #connected: (connection: OwnedFd) => void;
  #reactor: Reactor | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** A connection that is under way. */
  #attempt: OwnedFd | undefined;

  /**
   * @param intervalMs how long to wait after a failure, or after the peer has hung up
   * @param connect makes a non-blocking socket whose connection is up, or under way
   * @param connected takes a connection that is up
   */
  constructor(
    intervalMs: number,
    connect: () => OwnedFd,
    connected: (connection: OwnedFd) => void,
  ) {
    this.#intervalMs = intervalMs;
    this.#connect = connect;
    this.#connected = connected;
  }

  /** Begins with an attempt at once, unless it has begun. */
  start(reactor: Reactor): void {
    if (this.#reactor) return;
    this.#reactor = reactor;
    this.#try();
  }

  /** Begins with an attempt after the interval, unless it has begun. */
  startLater(reactor: Reactor): void {
    if (this.#reactor) return;
    this.#reactor = reactor;
    this.#tryLater();
  }

  /** Gives up what is under way. */
  stop(): void {
    clearTimeout(this.#timer);
    if (this.#attempt) {
      this.#reactor!.remove(this.#attempt.fd);
      this.#attempt.close();
      this.#attempt = undefined;
    }
    this.#reactor = undefined;
  }

  #tryLater(): void {
    this.#timer = setTimeout(() => this.#try(), this.#intervalMs);
  }

  #try(): void {
    let attempt: OwnedFd;
    try {
      attempt = this.#connect();
    } catch (error) {
      if (!(error instanceof Error && error.cause instanceof OsError)) throw error;
      return this.#tryLater();
    }
    this.#attempt = attempt;
    this.#reactor!.add(attempt.fd, Epoll.OUT, () => this.#finish(attempt));
  }

  #finish(attempt: OwnedFd): void {
    this.#reactor!.remove(attempt.fd);
    this.#attempt = undefined;
    if (socketError(attempt.fd) !== 0) {
      attempt.close();
      return this.#tryLater();
    }
    this.#reactor = undefined;
    this.#connected(attempt);
  }
}
