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
import { fileStatus, type OwnedFd } from "../../ffi/fd.ts";
import type { FdRequirement } from "../../ffi/fd_requirement.ts";
import { addSeals, makeMemfd, type MappedRegion, mapShared, Seal } from "../../ffi/memory.ts";
import type { Handover, Inheritance, Keeper } from "../../vmm/inheritance.ts";
import { Timeline, type UpdateProcess } from "../migration/timeline.ts";

/** Bytes of the page. */
const OWNERSHIP_SIZE = 4096;
/** The word has a cache line of its own; the timeline fills the rest of the page. */
const TIMELINE = 64;

/** The word's values. */
export const Owner = { OLD: 0, HANDED_OVER: 1, NEW: 2 } as const;

/** What the page is handed over as. */
const OWNERSHIP = "ownership";
/** Both write to the page, and nobody may take it away from under the other. */
const pageFd: FdRequirement = {
  kind: "file",
  bytes: OWNERSHIP_SIZE,
  sealed: true,
  writable: true,
};

/** One side's view of the ownership page. */
export class Ownership implements Disposable, Keeper {
  readonly #fd: OwnedFd;
  readonly #mapping: MappedRegion;
  readonly #word: Int32Array<ArrayBuffer>;
  /** When the steps of this update were done, on both sides. */
  readonly timeline: Timeline;

  /**
   * Maps a page that was passed.
   *
   * @param fd the page
   * @param process who this process is in the timeline
   * @throws {Error} if it is too small to be one
   */
  constructor(fd: OwnedFd, process: UpdateProcess) {
    if (fileStatus(fd.fd).size < OWNERSHIP_SIZE) throw new Error("Ownership page is too small");
    this.#fd = fd;
    this.#mapping = mapShared(fd.fd, OWNERSHIP_SIZE);
    this.#word = new Int32Array(this.#mapping.bytes.buffer, 0, 1);
    this.timeline = new Timeline(this.#mapping.bytes.subarray(TIMELINE), process);
  }

  /**
   * Makes a page.
   *
   * @param process who this process is in the timeline
   * @param owner what it says at first, an {@linkcode Owner}
   */
  static create(process: UpdateProcess = "old", owner: number = Owner.OLD): Ownership {
    const fd = makeMemfd("denovo-ownership", OWNERSHIP_SIZE, { sealing: true });
    addSeals(fd.fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
    const page = new Ownership(fd, process);
    Atomics.store(page.#word, 0, owner);
    return page;
  }

  /**
   * Maps the page that a predecessor left.
   *
   * @param process who this process is in the timeline
   * @throws {Error} if it is missing, or not a page that both can rely on
   */
  static takeOver(inheritance: Inheritance, process: UpdateProcess): Ownership {
    const fd = inheritance.takeFd(OWNERSHIP, "", pageFd);
    if (!fd) throw new Error(`File descriptor '${OWNERSHIP}' is missing`);
    return new Ownership(fd, process);
  }

  handOver(): Handover {
    return { fds: [{ name: OWNERSHIP, id: "", fd: this.fd }], values: [] };
  }

  /** The page's descriptor. */
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

  /** Unmaps and closes the page: nobody may look at it, or at its timeline, any more. */
  close(): void {
    this.#mapping.close();
    this.#fd.close();
  }

  /** Closes the page at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}
