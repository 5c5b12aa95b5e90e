/**
 * Who owns the guest: one word in a memory page that the old and the new VMM both map.
 *
 * ```text
 * OLD --old, after its state is out--> HANDED_OVER --new, just before it runs the guest--> NEW
 *  ^                                        |
 *  +--------- old, finding new dead --------+
 * ```
 *
 * Every step is one compare-and-swap, so exactly one side makes it, whoever dies when: the old VMM
 * may run the guest in OLD, the new one in NEW, nobody in between.
 *
 * @module
 */
import { fileStatus, type OwnedFd } from "../ffi/fd.ts";
import { addSeals, makeMemfd, type MappedRegion, mapShared, Seal } from "../ffi/memory.ts";

const PAGE = 4096;

/** The word's values. */
export const Owner = { OLD: 0, HANDED_OVER: 1, NEW: 2 } as const;

/** One side's view of the ownership page. */
export class Ownership {
  readonly #fd: OwnedFd;
  readonly #mapping: MappedRegion;
  readonly #word: Int32Array<ArrayBuffer>;

  /**
   * Maps a page that was passed.
   *
   * @throws {Error} if it is too small to be one
   */
  constructor(fd: OwnedFd) {
    if (fileStatus(fd.fd).size < PAGE) throw new Error("Ownership page is too small");
    this.#fd = fd;
    this.#mapping = mapShared(fd.fd, PAGE);
    this.#word = new Int32Array(this.#mapping.bytes.buffer, 0, 1);
  }

  /** Makes a page that says OLD. */
  static create(): Ownership {
    const fd = makeMemfd("denovo-ownership", PAGE, { sealing: true });
    addSeals(fd.fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
    return new Ownership(fd);
  }

  /** The page's descriptor, to be passed on. */
  get fd(): number {
    return this.#fd.fd;
  }

  /** Who owns the guest now, an {@linkcode Owner}. */
  get owner(): number {
    return Atomics.load(this.#word, 0);
  }

  /** Makes one step; true if this side made it. */
  swap(from: number, to: number): boolean {
    return Atomics.compareExchange(this.#word, 0, from, to) === from;
  }

  /** Unmaps and closes the page. */
  close(): void {
    this.#mapping.close();
    this.#fd.close();
  }
}
