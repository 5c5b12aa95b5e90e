/**
 * The console of a VM that is driven from code: its first serial port as a pair of streams.
 *
 * @module
 */
import { Epoll } from "../ffi/event.ts";
import { type OwnedFd, readFd, setNonblocking } from "../ffi/fd.ts";
import type { Reactor } from "../ffi/reactor.ts";
import { sendNow, socketPair } from "../ffi/socket.ts";
import type { ChardevConfig } from "./config.ts";

const READ_SIZE = 4096;

/** Streams to and from a serial port, over a socket pair whose other end the port has. */
export class Console {
  /** What the guest prints. A reader that does not read makes the guest wait. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** What the guest reads as typed. */
  readonly writable: WritableStream<Uint8Array<ArrayBuffer>>;
  /** The serial port's end, as a character device. */
  readonly chardev: ChardevConfig;
  readonly #reactor: Reactor;
  readonly #fd: OwnedFd;
  #output: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | undefined;
  /** Chunks on their way to the guest, and who waits for them. */
  #pending: { data: Uint8Array<ArrayBuffer>; done: PromiseWithResolvers<void> } | undefined;
  #closed = false;

  /**
   * Makes the streams.
   *
   * @param id the character device's id
   * @param reactor watches the socket
   */
  constructor(id: string, reactor: Reactor) {
    const [own, ports] = socketPair("stream");
    this.chardev = { backend: "fd", id, fd: ports.release() };
    setNonblocking(own.fd, true);
    this.#fd = own;
    this.#reactor = reactor;
    this.readable = new ReadableStream({
      start: (controller) => {
        this.#output = controller;
      },
      pull: () => this.#watch(),
      cancel: () => this.#closeOutput(),
    });
    this.writable = new WritableStream({ write: (chunk) => this.#write(chunk) });
    reactor.add(own.fd, Epoll.IN, (events) => this.#ready(events));
  }

  /** Ends both streams. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reactor.remove(this.#fd.fd);
    // What the guest printed last is still in the socket.
    while (this.#read());
    this.#fd.close();
    this.#output?.close();
    this.#output = undefined;
    this.#pending?.done.reject(new Error("Console is closed"));
  }

  #ready(events: number): void {
    if (events & Epoll.OUT) this.#flush();
    if (events & (Epoll.IN | Epoll.HUP | Epoll.ERR)) this.#read();
    this.#watch();
  }

  /** Reads what is there; false when there is nothing. */
  #read(): boolean {
    const buffer = new Uint8Array(READ_SIZE);
    const n = readFd(this.#fd.fd, buffer);
    if (n > 0) this.#output?.enqueue(buffer.subarray(0, n));
    return n > 0;
  }

  #write(data: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#closed) return Promise.reject(new Error("Console is closed"));
    const done = Promise.withResolvers<void>();
    this.#pending = { data, done };
    this.#flush();
    this.#watch();
    return done.promise;
  }

  #flush(): void {
    const pending = this.#pending;
    if (!pending) return;
    pending.data = pending.data.subarray(Math.max(0, sendNow(this.#fd.fd, pending.data)));
    if (pending.data.length > 0) return;
    this.#pending = undefined;
    pending.done.resolve();
  }

  #watch(): void {
    if (this.#closed) return;
    const wantsInput = !this.#output || (this.#output.desiredSize ?? 0) > 0;
    const events = (wantsInput ? Epoll.IN : 0) | (this.#pending ? Epoll.OUT : 0);
    this.#reactor.modify(this.#fd.fd, events);
  }

  #closeOutput(): void {
    this.#output = undefined;
    this.#watch();
  }
}
