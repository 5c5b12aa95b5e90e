/**
 * Opens migration channels: files, sockets, commands.
 *
 * @module
 */
import { Errno, OsError } from "../../ffi/errno.ts";
import { Epoll } from "../../ffi/event.ts";
import {
  accessMode,
  duplicate,
  fileStatus,
  lockFile,
  makePipe,
  O,
  openFile,
  type OwnedFd,
  pollFd,
  POLLIN,
  POLLOUT,
  readFd,
  seekFd,
  setNonblocking,
  writeFd,
} from "../../ffi/fd.ts";
import { resizeFile } from "../../ffi/memory.ts";
import { type ChildProcess, type ExitStatus, spawn } from "../../ffi/process.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import {
  awaitTcp,
  connectUnix,
  listenTcp,
  listenUnix,
  refuseBoundPath,
  resolveHost,
  sendNow,
  setTimeouts,
} from "../../ffi/socket.ts";
import type { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import { describeAddress, type FileAddress, type MigrationAddress } from "./address.ts";
import type { ByteSink, ByteSource } from "../stream/stream.ts";

/** Milliseconds after which a peer that neither sends nor takes data counts as dead. */
const STALL_MS = 10_000;

/** Milliseconds for which the event loop may stand still. */
const MOMENT_MS = 100;

const SILENT = "The other end of the migration channel has fallen silent";

const SIGKILL = 9;

/** How much is read at a time: more than a machine's state without its RAM. */
const BUFFER_SIZE = 256 << 10;

/** Nobody reads the channel any more. */
export class ChannelClosed extends Error {}

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

/** Whether failing to open it is known at once, so that `migrate` itself can say so. */
export function opensAtOnce(address: MigrationAddress): boolean {
  return address.transport !== "socket" || address.type === "fd";
}

/** How to wait for what is outside. */
export interface Waiting {
  readonly reactor: Reactor;
  /** Ends the wait. */
  readonly abort: AbortSignal;
}

/**
 * Opens a channel to write to.
 *
 * @param address where
 * @param fds the descriptors that `getfd` named
 * @throws {Error} in QEMU's words
 */
export async function openOutgoing(
  address: MigrationAddress,
  fds: FdRegistry,
  waiting: Waiting,
): Promise<Channel> {
  switch (address.transport) {
    case "file":
      return new Channel(createFile(address, fds), { file: address.filename });
    case "exec": {
      const [reader, writer] = makePipe();
      using stdin = reader;
      return new Channel(writer, { child: spawn(address.args, { fds: [[stdin.fd, 0]] }) });
    }
    case "socket":
      return new Channel(await connectSocket(address, fds, waiting));
  }
}

async function connectSocket(
  address: MigrationAddress & { transport: "socket" },
  fds: FdRegistry,
  waiting: Waiting,
): Promise<OwnedFd> {
  switch (address.type) {
    case "unix":
      return connectUnixNow(address.path);
    case "inet": {
      const port = parsePort(address.port, address.host);
      const [host] = await resolveHost(address.host || "localhost", port);
      const socket = await awaitTcp(host, port, waiting.reactor, waiting.abort);
      setNonblocking(socket.fd, false);
      return socket;
    }
    case "fd":
      checkNamed(address, fds);
      return fds.take(address.str)!;
  }
}

/**
 * Connects to a UNIX socket, without waiting for who listens but does not accept.
 *
 * @throws {Error} in QEMU's words
 */
export function connectUnixNow(path: string): OwnedFd {
  const socket = connectUnix(path, { nonblocking: true });
  setNonblocking(socket.fd, false);
  return socket;
}

/**
 * Refuses an address of type fd whose descriptor nobody has passed.
 *
 * @throws {Error} in QEMU's words
 */
export function checkNamed(address: MigrationAddress, fds: FdRegistry): void {
  if (address.transport !== "socket" || address.type !== "fd" || fds.named.has(address.str)) return;
  throw new Error(`File descriptor named '${address.str}' has not been found`);
}

function parsePort(port: string, host: string): number {
  const number = Number(port);
  if (/^\d+$/.test(port) && number <= 65535) return number;
  throw new Error(
    `address resolution failed for ${host}:${port}: Servname not supported for ai_socktype`,
  );
}

/**
 * Opens a file for state. A FIFO's other end is not waited for: one that nobody reads is an error. A
 * file that is being written is another VMM's.
 *
 * @throws {OsError}
 */
function openStateFile(filename: string, flags: number, lock: "shared" | "exclusive"): OwnedFd {
  const fd = openFile(filename, flags | O.NONBLOCK, 0o660);
  if (fileStatus(fd.fd).kind !== "file" || lockIfPossible(fd.fd, lock)) return fd;
  fd.close();
  throw new OsError("fcntl(F_OFD_SETLK)", Errno.EAGAIN, filename);
}

/** A file system without locks is no reason not to write there. */
function lockIfPossible(fd: number, kind: "shared" | "exclusive"): boolean {
  try {
    return lockFile(fd, kind);
  } catch (error) {
    if (error instanceof OsError) return true;
    throw error;
  }
}

function createFile({ filename, offset }: FileAddress, fds: FdRegistry): OwnedFd {
  let fd: OwnedFd;
  try {
    fd = fromFdset(filename, O.WRONLY, fds) ??
      openStateFile(filename, O.WRONLY | O.CREAT, "exclusive");
  } catch (error) {
    throw inWords(error, `Could not create '${filename}'`);
  }
  try {
    if (fileStatus(fd.fd).kind !== "fifo") resizeFile(fd.fd, offset);
    if (offset > 0) seekFd(fd.fd, offset);
    return fd;
  } catch (error) {
    fd.close();
    throw inWords(error, `failed to truncate migration file to offset ${offset.toString(16)}`);
  }
}

/**
 * `/dev/fdset/N`: the descriptor with the right access mode in a set that `add-fd` made.
 *
 * @returns undefined for other names
 * @throws {OsError} ENOENT without such a set, EACCES without such a descriptor in it
 */
function fromFdset(filename: string, mode: number, fds: FdRegistry): OwnedFd | undefined {
  const id = /^\/dev\/fdset\/(\d+)$/.exec(filename)?.[1];
  if (id === undefined) return undefined;
  const set = fds.sets.find(({ fdsetId }) => fdsetId === Number(id));
  if (!set) throw new OsError("open", Errno.ENOENT, filename);
  const member = set.fds.find(({ fd }) => accessMode(fd) === mode);
  if (!member) throw new OsError("open", Errno.EACCES, filename);
  return duplicate(member.fd);
}

/** A source of incoming data: open already, or a socket on which it will come. */
export type IncomingEnd =
  | { readonly kind: "open"; readonly channel: Channel }
  | { readonly kind: "listener"; readonly listener: OwnedFd };

/**
 * Opens a channel to read from, or a listener on which one will come.
 *
 * @throws {Error} in QEMU's words
 */
export async function openIncoming(
  address: MigrationAddress,
  fds: FdRegistry,
): Promise<IncomingEnd> {
  switch (address.transport) {
    case "file":
      return {
        kind: "open",
        channel: new Channel(readFile(address, fds), { file: address.filename }),
      };
    case "exec": {
      const [reader, writer] = makePipe();
      using stdout = writer;
      const child = spawn(address.args, { fds: [[stdout.fd, 1]] });
      return { kind: "open", channel: new Channel(reader, { child }) };
    }
    case "socket":
      break;
  }
  if (address.type === "unix") {
    refuseBoundPath(address.path);
    return { kind: "listener", listener: listenUnix(address.path) };
  }
  if (address.type === "inet") {
    const port = parsePort(address.port, address.host);
    const [host] = address.host === "" || address.host === "0"
      ? ["0.0.0.0"]
      : await resolveHost(address.host, port);
    return { kind: "listener", listener: listenTcp(host, port) };
  }
  const fd = fds.take(address.str) ?? inheritedFd(address.str);
  return { kind: "open", channel: new Channel(fd) };
}

/** `fd:N` on the command line: a descriptor that the process was started with. */
function inheritedFd(text: string): OwnedFd {
  const number = Number(text);
  if (!/^\d+$/.test(text)) throw new Error(`File descriptor named '${text}' has not been found`);
  try {
    return duplicate(number);
  } catch (error) {
    throw inWords(
      error,
      `Cannot use file descriptor ${
        describeAddress({ transport: "socket", type: "fd", str: text })
      }`,
    );
  }
}

function readFile({ filename, offset }: FileAddress, fds: FdRegistry): OwnedFd {
  try {
    const fd = fromFdset(filename, O.RDONLY, fds) ??
      openStateFile(filename, O.RDONLY, "shared");
    if (offset > 0) seekFd(fd.fd, offset);
    return fd;
  } catch (error) {
    throw inWords(error, `Could not open '${filename}'`);
  }
}

/** An OsError as a sentence that begins like QEMU's; other errors as they are. */
function inWords(error: unknown, beginning: string): unknown {
  return error instanceof OsError
    ? new Error(`${beginning}: ${error.reason}`, { cause: error })
    : error;
}
