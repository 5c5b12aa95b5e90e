/**
 * What the two halves of a character backend share: one small block of shared memory.
 *
 * The main thread puts the descriptor for output there when a peer comes, and -1 when it goes. A
 * writer holds the slot's mutex while it uses the descriptor, so that it is never closed, and its
 * number never given to another file, under a write.
 *
 * @module
 */
import { MAX_ENCODED } from "./encoding.ts";
import { lock, unlock } from "../mutex.ts";

const MUTEX = 0;
const OUTPUT = 1;
const OUTPUT_IS_SOCKET = 2;
const LOG = 3;
const BLOCKED = 4;
const STARVED = 5;
const STAMPING = 6;
const LINE_START = 7;
const PENDING = 8;
const ENCODING = 9;
const UNSENT = 10;
const PENDING_BYTES = 48;
const PENDING_MAX = 24;
const START_MS = 72;
const UNSENT_BYTES = 80;
const SIZE = UNSENT_BYTES + MAX_ENCODED;

/** One thread's view of the block. Without the mutex held, only the flags may be touched. */
export class SinkSlot {
  /** The block itself, to be viewed on other threads. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #pending: Uint8Array<SharedArrayBuffer>;
  readonly #start: Float64Array<SharedArrayBuffer>;
  readonly #unsent: Uint8Array<SharedArrayBuffer>;

  /** Views a block that another thread has made. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, PENDING_BYTES / 4);
    this.#pending = new Uint8Array(buffer, PENDING_BYTES, PENDING_MAX);
    this.#start = new Float64Array(buffer, START_MS, 1);
    this.#unsent = new Uint8Array(buffer, UNSENT_BYTES, MAX_ENCODED);
  }

  /**
   * Makes a block for a backend without a peer.
   *
   * @param log the descriptor of its log, or -1
   * @param encoding how peers want bytes to be written, an `Encoding`
   */
  static create(log: number, encoding: number): SinkSlot {
    const slot = new SinkSlot(new SharedArrayBuffer(SIZE));
    slot.#words[ENCODING] = encoding;
    slot.#words[OUTPUT] = -1;
    slot.#words[LOG] = log;
    return slot;
  }

  /** Calls `action` with the mutex held. It must not call frontends: they have mutexes too. */
  locked<T>(action: () => T): T {
    lock(this.#words, MUTEX);
    try {
      return action();
    } finally {
      unlock(this.#words, MUTEX);
    }
  }

  /** The descriptor for output, -1 when nobody is there. */
  get output(): number {
    return this.#words[OUTPUT];
  }

  /** Whether `output` is a socket. */
  get outputIsSocket(): boolean {
    return this.#words[OUTPUT_IS_SOCKET] === 1;
  }

  /** The descriptor of the log file, -1 without one. */
  get log(): number {
    return this.#words[LOG];
  }

  /** Changes the descriptor for output; after it returns nobody uses the previous one. */
  setOutput(fd: number, isSocket: boolean): void {
    this.locked(() => {
      this.#words[OUTPUT] = fd;
      this.#words[OUTPUT_IS_SOCKET] = isSocket ? 1 : 0;
      this.#words[PENDING] = 0;
      this.#words[UNSENT] = 0;
    });
  }

  /** Ends all use of descriptors, for good. */
  close(): void {
    this.setOutput(-1, false);
    this.locked(() => {
      this.#words[LOG] = -1;
      this.setBlocked(false);
      this.setStarved(false);
    });
  }

  /** Whether a writer waits until the host takes bytes again. */
  get blocked(): boolean {
    return Atomics.load(this.#words, BLOCKED) === 1;
  }

  /** Sets that flag and returns what it was. */
  setBlocked(on: boolean): boolean {
    return Atomics.exchange(this.#words, BLOCKED, on ? 1 : 0) === 1;
  }

  /** Whether the reader waits until the frontend takes input again. */
  get starved(): boolean {
    return Atomics.load(this.#words, STARVED) === 1;
  }

  /** Sets that flag and returns what it was. */
  setStarved(on: boolean): boolean {
    return Atomics.exchange(this.#words, STARVED, on ? 1 : 0) === 1;
  }

  /** Whether each line of output begins with the time (C-a t of a multiplexer). */
  get stamping(): boolean {
    return Atomics.load(this.#words, STAMPING) === 1;
  }

  /** Switches the time stamps; time counts from the first one. */
  setStamping(on: boolean): void {
    this.locked(() => {
      this.#words[LINE_START] = 0;
      this.#start[0] = 0;
      Atomics.store(this.#words, STAMPING, on ? 1 : 0);
    });
  }

  /** Whether the next byte begins a line. */
  get lineStart(): boolean {
    return this.#words[LINE_START] === 1;
  }

  set lineStart(on: boolean) {
    this.#words[LINE_START] = on ? 1 : 0;
  }

  /** When time stamps began to count, milliseconds since 1970; 0 before the first one. */
  get startMs(): number {
    return this.#start[0];
  }

  set startMs(value: number) {
    this.#start[0] = value;
  }

  /** How bytes are written, an `Encoding`. */
  get encoding(): number {
    return this.#words[ENCODING];
  }

  /** Encoded bytes that the host has not taken yet: they come before all others. */
  get unsent(): Uint8Array<SharedArrayBuffer> {
    return this.#unsent.subarray(0, this.#words[UNSENT]);
  }

  set unsent(bytes: Uint8Array) {
    // A copy first: the bytes may lie in this very block.
    this.#unsent.set(Uint8Array.from(bytes));
    this.#words[UNSENT] = bytes.length;
  }

  /** Bytes of a time stamp that the host has not taken yet, up to 24. */
  get pending(): Uint8Array<SharedArrayBuffer> {
    return this.#pending.subarray(0, this.#words[PENDING]);
  }

  set pending(bytes: Uint8Array) {
    this.#words[PENDING] = bytes.length;
    // A copy first: the bytes may lie in this very block.
    this.#pending.set(Uint8Array.from(bytes));
  }
}
