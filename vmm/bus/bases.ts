/**
 * Where the ranges are that devices move, in memory that all threads share.
 *
 * A device moves its range with its mutex held, on whichever thread the guest's access came. Every
 * thread's bus looks at the generation before it decodes an address, and places the ranges anew when
 * there was a move.
 *
 * @module
 */

/** What stands for nowhere. */
const NOWHERE = -1n;

/** Bases of ranges, each in a slot of its own. */
export class RangeBases {
  /** Counts the moves. */
  readonly #generation: Int32Array<SharedArrayBuffer>;
  readonly #bases: BigInt64Array<SharedArrayBuffer>;

  /** @param buffer of {@linkcode RangeBases.allocate} */
  constructor(buffer: SharedArrayBuffer) {
    this.#generation = new Int32Array(buffer, 0, 1);
    this.#bases = new BigInt64Array(buffer, 8);
  }

  /** Memory for as many slots, all of them nowhere. */
  static allocate(slots: number): SharedArrayBuffer {
    const buffer = new SharedArrayBuffer(8 + 8 * slots);
    new BigInt64Array(buffer, 8).fill(NOWHERE);
    return buffer;
  }

  /**
   * Another number after each move. Every access asks for it, so it is read plainly: that is one load,
   * in the order of the program on x86, where `Atomics.load` takes as long as all of the decoding.
   */
  get generation(): number {
    return this.#generation[0];
  }

  /** The base in a slot; undefined if it is nowhere. */
  get(slot: number): number | undefined {
    const base = Atomics.load(this.#bases, slot);
    return base === NOWHERE ? undefined : Number(base);
  }

  /** Moves the range in a slot. */
  move(slot: number, base: number | undefined): void {
    const value = base === undefined ? NOWHERE : BigInt(base);
    // A guest may write the same again and again: nothing to place anew then.
    if (Atomics.exchange(this.#bases, slot, value) === value) return;
    Atomics.add(this.#generation, 0, 1);
  }
}
