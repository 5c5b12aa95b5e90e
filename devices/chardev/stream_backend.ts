/**
 * What all character backends have in common: reading and waiting on the main thread.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { drainEvent, Epoll, makeEventfd } from "../../ffi/event.ts";
import { O, openFile, type OwnedFd, readFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { MAX_MESSAGE_FDS, receiveMessage } from "../../ffi/socket_message.ts";
import type {
  CharacterBackend,
  CharacterFrontend,
  ChardevState,
  Held,
  KeptChardev,
  KeptFd,
} from "./backend.ts";
import type { ChardevCommon } from "./config.ts";
import { type FdRequirements, FdTable } from "./fd_table.ts";
import { Encoding } from "./encoding.ts";
import { openSink, type Sink, type SinkDescription } from "./sink.ts";
import { SinkSlot } from "./slot.ts";

/** The most that is read before other descriptors get their turn. */
const READ_SIZE = 4096;

/** What one read has brought. */
interface Received {
  /** Bytes in the buffer; 0 at the end, -1 when there is nothing now. */
  readonly length: number;
  /** The descriptors that came with them. */
  readonly fds?: readonly OwnedFd[];
}

/** A backend over one descriptor for input and one, perhaps the same, for output. */
export abstract class StreamBackend implements CharacterBackend {
  readonly label: string;
  readonly sink: SinkDescription;
  /** The backend's descriptors. */
  protected readonly fds: FdTable;
  readonly #config: ChardevCommon;
  readonly #slot: SinkSlot;
  readonly #sink: Sink;
  readonly #wake: OwnedFd;
  readonly #buffer = new Uint8Array(READ_SIZE);
  /** What each descriptor is watched for. */
  readonly #watched = new Map<number, number>();
  #reactor: Reactor | undefined;
  #frontend: CharacterFrontend | undefined;
  #input = -1;
  #output = -1;
  /** The frontend has no room for input. */
  #paused = false;
  /** The peer has gone, but has left input that the frontend has no room for. */
  #abandoned = false;
  /** Descriptors that epoll does not take, such as files: they are always ready. */
  readonly #alwaysReady = new Set<number>();
  #fileTimer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #held: Held = "nothing";

  /**
   * Takes over what was kept, and opens the log file.
   *
   * @param config the configuration
   * @param kept what a predecessor left
   * @param must what the backend's descriptors must be, by the names that they may have
   * @param encoding how peers want bytes to be written
   */
  protected constructor(
    config: ChardevCommon,
    kept: KeptChardev | undefined,
    must: FdRequirements,
    encoding: number = Encoding.PLAIN,
  ) {
    this.label = config.id;
    this.#config = config;
    this.fds = new FdTable(kept?.fds);
    try {
      this.fds.check(config.id, { ...must, log: { writable: true } });
      const { logfile } = config;
      const log = logfile === undefined ? -1 : this.fds.open("log", () => openLog(config, logfile));
      this.#slot = SinkSlot.create(log, encoding);
      this.#wake = makeEventfd();
    } catch (error) {
      this.fds.closeAll();
      throw error;
    }
    this.sink = { slot: this.#slot.buffer, wake: this.#wake.fd };
    this.#sink = openSink(this.sink);
  }

  abstract get filename(): string;

  get connected(): boolean {
    return this.#output >= 0;
  }

  get frontendOpen(): boolean {
    return this.#frontend !== undefined;
  }

  /** Whether time stamps are put before lines of output. */
  get stamping(): boolean {
    return this.#slot.stamping;
  }

  set stamping(on: boolean) {
    this.#slot.setStamping(on);
  }

  get held(): Held {
    return this.#held;
  }

  set held(held: Held) {
    if (held === this.#held) return;
    this.#held = held;
    this.heldChanged();
    if (held !== "everything") this.#inputWanted();
  }

  attach(reactor: Reactor, frontend: CharacterFrontend): void {
    if (this.#frontend) throw new Error(`chardev '${this.label}' is already in use`);
    if (this.#closed) throw new Error(`Chardev '${this.label}' is closed`);
    this.#frontend = frontend;
    this.#reactor = reactor;
    reactor.add(this.#wake.fd, Epoll.IN, () => this.#woken());
    // A frontend with restored state may have bytes left that its predecessor could not write.
    this.#slot.setBlocked(true);
    if (this.connected) frontend.event("opened");
    this.started(reactor);
    this.#update();
  }

  write(data: Uint8Array): number {
    return this.#sink.write(data);
  }

  acceptInput(): void {
    this.#sink.acceptInput();
  }

  sendBreak(): void {
    this.#sink.sendBreak();
  }

  receiveBreak(): void {
    this.#frontend?.event("break");
  }

  /** Makes the next `acceptInput()` ask the frontend for room again, on the main thread. */
  expectRoom(): void {
    this.#slot.setStarved(true);
  }

  hangUp(): void {}

  keptFds(): KeptFd[] {
    return this.#config.cpr === false ? [] : this.fds.list();
  }

  saveState(): ChardevState {
    return {};
  }

  restoreState(_state: ChardevState): void {}

  release(): void {
    this.#end(() => {});
  }

  close(): void {
    this.#end(() => this.restoreHost());
  }

  /** A frontend is there: begin to wait for peers. */
  protected started(_reactor: Reactor): void {}

  /** What is held back has changed. */
  protected heldChanged(): void {}

  /** Input has ended, or reading failed. */
  protected abstract inputEnded(): void;

  /** The peer has gone, but input that it left is still to be read. */
  protected peerGone(): void {}

  /** Stops waiting for peers. Called once, before the descriptors are closed. */
  protected stopped(): void {}

  /** Undoes what would outlive the process: terminal settings, names of files. */
  protected restoreHost(): void {}

  /** Runs the rest of a constructor: if it throws, everything is closed. */
  protected setUp(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** Bytes have come. */
  protected received(data: Uint8Array, fds?: readonly OwnedFd[]): void {
    this.deliver(data, fds);
  }

  /** Gives the frontend input, not more than has come. */
  protected deliver(data: Uint8Array, fds?: readonly OwnedFd[]): void {
    this.#frontend?.input(data, fds);
  }

  /** Says something to the peer that is no output; false if there is no room for it. */
  protected answer(bytes: Uint8Array): boolean {
    return this.#sink.answer(bytes);
  }

  /** Encoded bytes that the host has not taken. */
  protected get unsent(): Uint8Array {
    return this.#slot.locked(() => Uint8Array.from(this.#slot.unsent));
  }

  protected set unsent(bytes: Uint8Array) {
    this.#slot.locked(() => this.#slot.unsent = bytes);
  }

  /** Somebody is there. Both descriptors are non-blocking; -1 means none. */
  protected connect(input: number, output: number, isSocket = false): void {
    if (this.#input >= 0) this.disconnect();
    this.#input = input;
    this.#output = output;
    this.#paused = this.#abandoned = false;
    this.#alwaysReady.clear();
    this.#slot.setOutput(output, isSocket);
    this.#frontend?.event("opened");
    this.#update();
  }

  /** Nobody is there any more. The descriptors may be closed when this returns. */
  protected disconnect(): void {
    this.#forgetStreams();
    this.#frontend?.event("closed");
    this.#update();
  }

  /** Input has ended for good, output goes on. */
  protected endInput(): void {
    this.#input = -1;
    this.#frontend?.event("closed");
    this.#update();
  }

  #forgetStreams(): void {
    this.#input = this.#output = -1;
    for (const fd of [...this.#watched.keys()]) this.#watch(fd, 0);
    this.#slot.setOutput(-1, false);
  }

  #end(restore: () => void): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#fileTimer);
    this.stopped();
    this.#forgetStreams();
    this.#reactor?.remove(this.#wake.fd);
    this.#reactor = undefined;
    this.#frontend = undefined;
    this.#slot.close();
    restore();
    this.fds.closeAll();
    this.#wake.close();
  }

  /** Another thread has set one of the slot's flags. */
  #woken(): void {
    drainEvent(this.#wake.fd);
    this.#inputWanted();
  }

  /** There may be room for input that was left where it is. */
  #inputWanted(): void {
    if (this.#inputRoom() > 0) {
      this.#paused = false;
      // Nothing else would report input that an absent peer has left.
      if (this.#abandoned) this.#read(true);
    }
    this.#update();
  }

  /** Watches the descriptors for what is wanted of them now. */
  #update(): void {
    if (!this.#frontend) return;
    const [input, output] = [this.#input, this.#output];
    if (this.#slot.blocked && (output < 0 || this.#alwaysReady.has(output))) {
      this.#slot.setBlocked(false);
      this.#frontend.writable();
    }
    const wanted = new Map<number, number>();
    if (input >= 0) {
      wanted.set(input, this.#abandoned ? 0 : this.#paused ? Epoll.HUP : Epoll.IN);
    }
    if (output >= 0 && this.#slot.blocked) {
      wanted.set(output, (wanted.get(output) ?? 0) | Epoll.OUT);
    }
    for (const fd of [...this.#watched.keys()]) this.#watch(fd, wanted.get(fd) ?? 0);
    for (const [fd, events] of wanted) this.#watch(fd, events);
    if (this.#alwaysReady.has(input) && !this.#paused) this.#readLater();
  }

  /** A descriptor watched for nothing is not in the epoll: it would report HUP without end. */
  #watch(fd: number, events: number): void {
    const before = this.#watched.get(fd) ?? 0;
    if (!this.#reactor || before === events || this.#alwaysReady.has(fd)) return;
    if (events === 0) {
      this.#reactor.remove(fd);
      this.#watched.delete(fd);
      return;
    }
    try {
      if (before === 0) this.#reactor.add(fd, events, (events) => this.#ready(fd, events));
      else this.#reactor.modify(fd, events);
      this.#watched.set(fd, events);
    } catch (error) {
      if (!(error instanceof OsError && error.code === "EPERM")) throw error;
      this.#alwaysReady.add(fd);
      this.#update();
    }
  }

  #readLater(): void {
    this.#fileTimer ??= setTimeout(() => {
      this.#fileTimer = undefined;
      this.#read(false);
      this.#update();
    }, 0);
  }

  #ready(fd: number, events: number): void {
    if (fd === this.#output && this.#slot.blocked && events & (Epoll.OUT | Epoll.ERR)) {
      this.#slot.setBlocked(false);
      // While its successor may have it already, what is left is not this VMM's to write.
      if (this.#held !== "everything") this.#sink.flush();
      if (!this.#slot.blocked) this.#frontend?.writable();
    }
    if (fd === this.#input && events & (Epoll.IN | Epoll.HUP | Epoll.ERR)) {
      this.#read((events & (Epoll.HUP | Epoll.ERR)) !== 0);
    }
    this.#update();
  }

  /** Reads while there is room. With `hangup`, an empty descriptor is at its end. */
  #read(hangup: boolean): void {
    const input = this.#input;
    for (let budget = READ_SIZE; budget > 0 && this.#input === input && input >= 0;) {
      const room = this.#inputRoom();
      if (room <= 0) return this.#pauseInput(hangup);
      const { length, fds } = this.#readSome(input, Math.min(room, budget));
      if (length === 0 || (length === -1 && hangup)) return this.inputEnded();
      if (length === -1) return;
      budget -= length;
      this.received(this.#buffer.subarray(0, length), fds);
    }
  }

  #readSome(fd: number, length: number): Received {
    const buffer = this.#buffer.subarray(0, length);
    try {
      if (!this.#frontend!.wantsFds || !this.#slot.outputIsSocket) {
        return { length: readFd(fd, buffer) };
      }
      return receiveMessage(fd, buffer, MAX_MESSAGE_FDS) ?? { length: -1 };
    } catch (error) {
      // A RangeError: more descriptors than this process may open. The bytes with them are lost.
      if (error instanceof OsError || error instanceof RangeError) return { length: 0 };
      throw error;
    }
  }

  #inputRoom(): number {
    if (!this.#frontend || this.#held === "everything") return 0;
    const room = this.#frontend.inputRoom();
    if (room > 0) return room;
    // The flag first: a thread that makes room from now on sees it and wakes us.
    this.#slot.setStarved(true);
    return this.#frontend.inputRoom();
  }

  #pauseInput(hangup: boolean): void {
    this.#paused = true;
    if (!hangup || this.#abandoned) return;
    this.#abandoned = true;
    if (this.#output !== this.#input) return;
    this.#output = -1;
    this.#slot.setOutput(-1, false);
    this.peerGone();
  }
}

function openLog(config: ChardevCommon, path: string): OwnedFd {
  const mode = config.logappend ? O.APPEND : O.TRUNC;
  return openOrExplain(path, O.WRONLY | O.CREAT | mode, "Could not create");
}

/**
 * Opens a file, without waiting for the other end of a FIFO.
 *
 * @throws {Error} in QEMU's words; `cause` is the {@linkcode OsError}
 */
export function openOrExplain(path: string, flags: number, words = "Could not open"): OwnedFd {
  try {
    return openFile(path, flags | O.NONBLOCK);
  } catch (cause) {
    if (!(cause instanceof OsError)) throw cause;
    throw new Error(`${words} '${path}': ${cause.reason}`, { cause });
  }
}
