/**
 * A connection to a vhost-user back-end: requests, and the replies of those that have one.
 *
 * Whatever the back-end does, a call returns: what is sent, and what is waited for, has a limit of time,
 * and of bytes and descriptors. After an error the connection is good for nothing more: a reply might
 * come yet, and be taken for another's.
 *
 * @module
 */
import { Epoll } from "../../ffi/event.ts";
import { type OwnedFd, pollFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { receiveMessage, sendMessage } from "../../ffi/socket_message.ts";
import { encode, HEADER, replySize } from "./message.ts";

/** How long a back-end may take for a reply, or to read what it is sent: milliseconds. */
export const REPLY_LIMIT_MS = 10_000;

/** A reply: its payload, and the descriptors that came with it, which are the caller's. */
export interface Reply {
  readonly payload: Uint8Array;
  readonly fds: readonly OwnedFd[];
}

const nothing = new Uint8Array();

/**
 * Sends a request.
 *
 * @param fd the connection, non-blocking
 * @param limit when it must have been read, as `performance.now()` counts
 * @throws {Error} if the back-end is gone, or reads nothing
 */
export function send(
  fd: number,
  request: number,
  payload: Uint8Array = nothing,
  fds: readonly number[] = [],
  limit: number = performance.now() + REPLY_LIMIT_MS,
): void {
  const message = encode(request, payload);
  for (let sent = 0; sent < message.length;) {
    // The descriptors go with the first byte.
    const n = sendMessage(fd, message.subarray(sent), sent === 0 ? fds : []);
    if (n > 0) sent += n;
    else waitUntil(fd, Epoll.OUT, limit, `it does not read request ${request}`);
  }
}

/**
 * Sends a request and waits for its reply on this thread.
 *
 * @param limit when it must be here, as `performance.now()` counts
 * @throws {Error} that says what is wrong with the reply
 */
export function ask(fd: number, request: number, payload: Uint8Array, limit: number): Uint8Array {
  send(fd, request, payload);
  using reader = new ReplyReader(request, 0);
  for (;;) {
    const reply = reader.read(fd);
    if (reply) return reply.payload;
    waitUntil(fd, Epoll.IN, limit, `it does not answer request ${request}`);
  }
}

/**
 * Sends a request and waits for its reply while others go on.
 *
 * @param fds how many descriptors the reply may have
 * @param abort ends the wait
 * @throws {Error} that says what is wrong with the reply
 */
export async function askLater(
  fd: number,
  request: number,
  payload: Uint8Array,
  { reactor, abort, fds = 0 }: {
    readonly reactor: Reactor;
    readonly abort: AbortSignal;
    readonly fds?: number;
  },
): Promise<Reply> {
  send(fd, request, payload);
  using reader = new ReplyReader(request, fds);
  for (;;) {
    const reply = reader.read(fd);
    if (reply) return reply;
    await reactor.ready(fd, Epoll.IN, abort);
  }
}

function waitUntil(fd: number, events: number, limit: number, failure: string): void {
  const left = limit - performance.now();
  if (left <= 0 || pollFd(fd, events, Math.ceil(left)) === 0) throw new Error(failure);
}

/** Puts a reply together from what comes of it. */
class ReplyReader implements Disposable {
  readonly #request: number;
  readonly #maxFds: number;
  readonly #fds: OwnedFd[] = [];
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(HEADER);
  #read = 0;

  constructor(request: number, maxFds: number) {
    this.#request = request;
    this.#maxFds = maxFds;
  }

  /** Reads what is there. @returns the reply when all of it is @throws {Error} */
  read(fd: number): Reply | undefined {
    for (;;) {
      if (this.#read === HEADER && this.#bytes.length === HEADER) this.#makeRoom();
      if (this.#read === this.#bytes.length) {
        return { payload: this.#bytes.subarray(HEADER), fds: this.#fds.splice(0) };
      }
      const room = this.#bytes.subarray(this.#read);
      const message = receiveMessage(fd, room, this.#maxFds - this.#fds.length);
      if (!message) return undefined;
      this.#fds.push(...message.fds);
      if (message.length === 0) throw new Error("it has closed the connection");
      this.#read += message.length;
    }
  }

  /** The header is here. */
  #makeRoom(): void {
    const size = replySize(this.#bytes, this.#request);
    const header = this.#bytes;
    this.#bytes = new Uint8Array(HEADER + size);
    this.#bytes.set(header);
  }

  /** Closes descriptors of a reply that was not taken. */
  [Symbol.dispose](): void {
    for (const fd of this.#fds) fd.close();
  }
}
