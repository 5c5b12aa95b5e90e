/**
 * Waiting for another process that is there, or is to come.
 *
 * @module
 */
import { Epoll } from "../../ffi/event.ts";
import type { Reactor } from "../../ffi/reactor.ts";

/**
 * Milliseconds for which a peer that is there may keep silent while the guest runs: waiting costs
 * the guest nothing then, and a runtime that starts on a busy host takes seconds.
 */
export const PEER_LIMIT_MS = 60_000;

/** Waits on the event loop for input on a descriptor, or its end; rejects by `abort`. */
export function awaitInput(reactor: Reactor, fd: number, abort?: AbortSignal): Promise<void> {
  return reactor.ready(fd, Epoll.IN | Epoll.RDHUP, abort);
}
