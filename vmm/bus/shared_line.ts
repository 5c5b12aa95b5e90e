/**
 * Interrupt lines that several devices drive, as PCI's four wires are: high while one of them holds it.
 *
 * @module
 */
import type { Interrupt } from "../../devices/device.ts";
import { lock, unlock } from "../../devices/mutex.ts";

/** Words of memory that a line takes: a mutex, and a bit for each device that holds it high. */
export const SHARED_LINE_WORDS = 2;
/** How many devices can share a line. */
const MOST = 32;

/** One device's end of a shared line, on one thread. */
export class SharedLine implements Interrupt {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #at: number;
  readonly #bit: number;
  readonly #line: Interrupt;

  /**
   * @param words memory that all threads share
   * @param at the line's first word
   * @param number the device's, among those on the line
   * @param line what is driven
   * @throws {RangeError} if there are too many
   */
  constructor(
    words: Int32Array<SharedArrayBuffer>,
    at: number,
    number: number,
    line: Interrupt,
  ) {
    if (number >= MOST) throw new RangeError(`An interrupt line cannot have ${number + 1} devices`);
    this.#words = words;
    this.#at = at;
    this.#bit = 1 << number;
    this.#line = line;
  }

  set(level: boolean): void {
    lock(this.#words, this.#at);
    const before = this.#words[this.#at + 1];
    const after = level ? before | this.#bit : before & ~this.#bit;
    this.#words[this.#at + 1] = after;
    if ((before !== 0) !== (after !== 0)) this.#line.set(after !== 0);
    unlock(this.#words, this.#at);
  }
}
