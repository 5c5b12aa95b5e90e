/**
 * What the machine keeps for devices that come while the guest runs: mutexes, and slots for the bases of
 * ranges that move. All threads share them, so there are as many as there can be from the start.
 *
 * @module
 */

/** Numbers that are given out and come back. */
export class Room {
  readonly #free: number[];
  readonly #what: string;

  /**
   * @param what what is numbered, for messages
   * @param first the first number
   * @param count how many there are
   */
  constructor(what: string, first: number, count: number) {
    this.#what = what;
    this.#free = Array.from({ length: count }, (_, i) => first + count - 1 - i);
  }

  /** Gives one out. @throws {Error} if all are in use */
  take(): number {
    const number = this.#free.pop();
    if (number === undefined) throw new Error(`The machine has no ${this.#what} left for a device`);
    return number;
  }

  /** Takes some back. */
  giveBack(numbers: readonly number[]): void {
    this.#free.push(...numbers);
  }
}
