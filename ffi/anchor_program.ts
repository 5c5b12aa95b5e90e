/**
 * Programs of system calls for an anchor (`anchor.ts`), laid out as those for the pause.
 *
 * @module
 */
import { type EncodedCall, SYS_IOCTL } from "./call_program.ts";

/** An ioctl on a descriptor of the anchor's, with what it points to in its mailbox, or a value. */
export function ioctlCall(
  fd: number,
  request: number,
  argument: number,
  expected = 0,
): EncodedCall {
  return { number: SYS_IOCTL, args: [fd, request, argument], expected };
}

/** Memory of the mailbox, here and where the anchor has it. */
export interface AnchorBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Its address for the anchor's system calls. */
  readonly address: number;
}

/** System calls that the anchor makes, one after the other. */
export class AnchorProgram {
  /** Where the anchor has it. */
  readonly address: number;
  readonly #head: BigInt64Array<ArrayBuffer>;
  readonly #order: () => void;

  /**
   * @param buffer the program
   * @param order has the anchor run it, and waits until it has
   */
  constructor({ bytes, address }: AnchorBuffer, order: () => void) {
    this.address = address;
    this.#head = new BigInt64Array(bytes.buffer, bytes.byteOffset, 3);
    this.#order = order;
  }

  /**
   * Has the calls made, up to the first that returns what it should not.
   *
   * @returns how many went well
   * @throws {AnchorEnded}
   */
  run(): number {
    this.#order();
    return Number(this.#head[1]);
  }

  /** What the last call that was made has returned: below 0 an errno. */
  get result(): number {
    return Number(this.#head[2]);
  }
}
