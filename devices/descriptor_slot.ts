/**
 * The descriptor of what a device works with, as all threads see it: a network backend, the process behind a
 * vhost-user socket, the kernel's half of a socket device.
 *
 * Who puts one in is the main thread, and who takes it out, because the connection has ended, is the
 * thread that uses it: so nobody uses a descriptor that is closed and another's by now.
 *
 * @module
 */

const NONE = -1;

/** A word with the descriptor, and one that counts. */
export class DescriptorSlot {
  readonly #fd: Int32Array<SharedArrayBuffer>;

  /** @param buffer of {@linkcode DescriptorSlot.allocate} */
  constructor(readonly buffer: SharedArrayBuffer) {
    this.#fd = new Int32Array(buffer);
  }

  /** A slot without a descriptor. */
  static allocate(): DescriptorSlot {
    const slot = new DescriptorSlot(new SharedArrayBuffer(8));
    slot.fd = undefined;
    return slot;
  }

  /** The descriptor, if there is one. */
  get fd(): number | undefined {
    const fd = Atomics.load(this.#fd, 0);
    return fd === NONE ? undefined : fd;
  }

  set fd(fd: number | undefined) {
    // The number last: who sees another one finds the descriptor that it stands for.
    Atomics.store(this.#fd, 0, fd ?? NONE);
    Atomics.add(this.#fd, 1, 1);
  }

  /** Another number for each descriptor: one that was closed may come back as another's. */
  get count(): number {
    return Atomics.load(this.#fd, 1);
  }
}
