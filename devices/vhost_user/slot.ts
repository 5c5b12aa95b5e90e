/**
 * A connection to a back-end as all threads see it.
 *
 * The main thread makes connections; the thread that works on the device's queues gives one up that has
 * ended: so nobody uses a descriptor that is closed, and another's by now.
 *
 * @module
 */

const FD = 0;
const COUNT = 1;
const WORDS = 2;
const NONE = -1;

/** A word with the connection's descriptor, and one that counts. */
export class ConnectionSlot {
  readonly #words: Int32Array<SharedArrayBuffer>;

  /** @param buffer of {@linkcode ConnectionSlot.allocate} */
  constructor(readonly buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
  }

  /** A slot without a connection. */
  static allocate(): ConnectionSlot {
    const slot = new ConnectionSlot(new SharedArrayBuffer(4 * WORDS));
    slot.fd = undefined;
    return slot;
  }

  /** The connection's descriptor; undefined while there is none. */
  get fd(): number | undefined {
    const fd = Atomics.load(this.#words, FD);
    return fd === NONE ? undefined : fd;
  }

  set fd(fd: number | undefined) {
    // The count first: who sees another descriptor, of the same number even, sees another count.
    Atomics.add(this.#words, COUNT, 1);
    Atomics.store(this.#words, FD, fd ?? NONE);
  }

  /** Another number for each connection. */
  get count(): number {
    return Atomics.load(this.#words, COUNT);
  }
}
