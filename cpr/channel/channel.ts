/**
 * An open migration channel: reading ahead, writing, waiting for the other end.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { Epoll } from "../../ffi/event.ts";
import {
  fileStatus,
  type OwnedFd,
  pollFd,
  POLLIN,
  POLLOUT,
  readFd,
  setNonblocking,
  writeFd,
} from "../../ffi/fd.ts";
import { type ChildProcess, type ExitStatus, SIGKILL } from "../../ffi/process.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { sendNow, setTimeouts } from "../../ffi/socket.ts";
import type { ByteSink, ByteSource } from "../stream/stream.ts";
import { ChannelClosed, inWords } from "./errors.ts";

/** Milliseconds after which a peer that neither sends nor takes data counts as dead. */
const STALL_MS = 10_000;

/** Milliseconds for which the event loop may stand still. */
const MOMENT_MS = 100;

const SILENT = "The other end of the migration channel has fallen silent";

/** How much is read at a time: more than a machine's state without its RAM. */
const BUFFER_SIZE = 256 << 10;

/** An open channel, in one or both directions. */
export class Channel implements Disposable {
  /** Whether the peer can answer on it: it is a socket. */
  readonly duplex: boolean;
  /** Whether its other end may have to be waited for: files are always ready. */
  readonly #hasPeer: boolean;
  readonly #child: ChildProcess | undefined;
  /** What it is, for messages. */
  readonly #name: string;
  /** Bytes that were read ahead, from `#start` to `#end`. */
  #buffer = new Uint8Array(BUFFER_SIZE);
  #start = 0;
  #end = 0;

  /**
   * @param fd the descriptor
   * @param options.child the command behind it
   * @param options.file the file's name
   */
  constructor(
    readonly fd: OwnedFd,
    { child, file }: { readonly child?: ChildProcess; readonly file?: string } = {},
  ) {
    this.#child = child;
    const { kind } = fileStatus(fd.fd);
    this.#name = file === undefined ? kind : `'${file}'`;
    this.duplex = kind === "socket";
    this.#hasPeer = this.duplex || kind === "fifo";
    // Whoever waits for the other end shall not wait for ever, and be woken by other things.
    if (this.duplex) setTimeouts(fd.fd, STALL_MS);
    else if (this.#hasPeer) setNonblocking(fd.fd, true);
  }

  /** Writes all of a chunk now. @throws {ChannelClosed} @throws {Error} if nobody takes it */
  readonly sink: ByteSink = (data) => {
    for (let done = 0; done < data.length;) {
      const n = this.#write(() => writeFd(this.fd.fd, data.subarray(done)));
      if (n === -1 && !this.#waits(POLLOUT)) throw new Error(SILENT);
      done += Math.max(0, n);
    }
  };

  /**
   * Writes all of a chunk, however long the other end takes; the event loop goes on.
   *
   * @param abort ends it
   * @throws {ChannelClosed}
   */
  async send(
    data: Uint8Array<ArrayBuffer>,
    reactor: Reactor,
    abort: AbortSignal,
  ): Promise<void> {
    const { fd } = this.fd;
    const write = this.duplex ? sendNow : writeFd;
    for (let done = 0; done < data.length;) {
      const n = this.#write(() => write(fd, data.subarray(done)));
      if (n === -1) await reactor.ready(fd, Epoll.OUT, abort);
      done += Math.max(0, n);
    }
  }

  /**
   * Waits until the first data comes, or the end. A command may take its time, as one that asks for a
   * password does; a peer may not.
   */
  async begun(reactor: Reactor, abort: AbortSignal): Promise<void> {
    if (!this.#hasPeer || this.#start < this.#end) return;
    const limit = AbortSignal.timeout(STALL_MS);
    const either = this.duplex ? AbortSignal.any([abort, limit]) : abort;
    await reactor.ready(this.fd.fd, Epoll.IN | Epoll.RDHUP, either).catch(() => {
      throw abort.aborted ? abort.reason : new Error(SILENT);
    });
  }

  #write(write: () => number): number {
    try {
      return write();
    } catch (error) {
      const gone = error instanceof OsError && ["EPIPE", "ECONNRESET"].includes(error.code);
      if (gone) throw new ChannelClosed("Peer has closed the migration channel");
      throw inWords(error, `Unable to write to ${this.#name}`);
    }
  }

  /** Waits until a descriptor that is not blocking is ready; one that is has waited already. */
  #waits(events: number): boolean {
    return !this.duplex && pollFd(this.fd.fd, events, STALL_MS) !== 0;
  }

  /** Waits until there is something to read, or the end. */
  awaitData(): void {
    this.#readAhead(1);
  }

  /** What has been read and not been taken yet. */
  get ahead(): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** Reads exactly a length, or less at the end. */
  readonly source: ByteSource = (length) => {
    if (this.#readAhead(length) === -1) {
      throw new Error(SILENT);
    }
    return this.#take(length);
  };

  /** Reads what comes up to the end, or up to where the peer falls silent. */
  rest(limit: number): Uint8Array<ArrayBuffer> {
    this.#readAhead(limit);
    return this.#take(limit);
  }

  /** A buffer is never written to where it was read: a part of it stays as it is. */
  #take(length: number): Uint8Array<ArrayBuffer> {
    const taken = this.#buffer.subarray(this.#start, Math.min(this.#end, this.#start + length));
    this.#start += taken.length;
    return taken;
  }

  /** Reads until a length is there. Returns 0 if the end came first, -1 if a silence did. */
  #readAhead(length: number): number {
    let n = length;
    while (this.#end - this.#start < length && n > 0) {
      n = this.#fill(length);
      this.#end += Math.max(0, n);
    }
    return n;
  }

  /** Reads more behind what is there: in the pause one system call shall fetch the whole state. */
  #fill(length: number): number {
    if (this.#buffer.length - this.#start < length) {
      const larger = new Uint8Array(Math.max(BUFFER_SIZE, length));
      larger.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = larger;
      this.#end -= this.#start;
      this.#start = 0;
    }
    const rest = this.#buffer.subarray(this.#end);
    try {
      const n = readFd(this.fd.fd, rest);
      return n === -1 && this.#waits(POLLIN) ? readFd(this.fd.fd, rest) : n;
    } catch (error) {
      // The peer has gone without reading all that it was sent: that is an end as well.
      if (error instanceof OsError && error.code === "ECONNRESET") return 0;
      throw inWords(error, `Unable to read from ${this.#name}`);
    }
  }

  /**
   * Closes the channel and waits for the command behind it, on this thread.
   *
   * @throws {Error} if the command failed, or does not end
   */
  finishNow(): void {
    this.fd.close();
    if (!this.#child) return;
    if (pollFd(this.#child.pidfd.fd, POLLIN, STALL_MS) === 0) {
      throw new Error(`Command did not end within ${STALL_MS / 1000} s`);
    }
    checkStatus(this.#child.wait());
  }

  /**
   * The same on the event loop, for as long as the command takes.
   *
   * @param abort ends the wait
   */
  async finish(reactor: Reactor, abort: AbortSignal): Promise<void> {
    this.fd.close();
    if (!this.#child) return;
    await reactor.ready(this.#child.pidfd.fd, Epoll.IN, abort);
    checkStatus(this.#child.wait());
  }

  /** Closes the channel; a command that has not ended is killed. */
  [Symbol.dispose](): void {
    this.fd.close();
    if (!this.#child) return;
    this.#child.kill(SIGKILL);
    this.#child.wait();
    this.#child[Symbol.dispose]();
  }
}

function checkStatus(status: ExitStatus): void {
  if ("code" in status && status.code === 0) return;
  throw new Error(
    "code" in status
      ? `Command exited with status ${status.code}`
      : `Command was killed by signal ${status.signal}`,
  );
}

/** Sends to a peer that may be gone: it has said why before, or says it by that, to who reads. */
export function sendIfThere(channel: Channel, bytes: Uint8Array<ArrayBuffer>): void {
  try {
    channel.sink(bytes);
  } catch (error) {
    if (!(error instanceof ChannelClosed)) throw error;
  }
}

/** Sleeps until the peer has answered or gone, or for a moment that nobody at a monitor notices. */
export function awaitAnswer(channel: Channel): void {
  pollFd(channel.fd.fd, POLLIN, MOMENT_MS);
}
