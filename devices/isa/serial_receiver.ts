/**
 * The 16550's receiver: the bytes that came, each with its line errors.
 *
 * @module
 */
import { type Field, type Struct, struct, u8, type View } from "../../ffi/struct.ts";
import { ByteFifo, byteFifo, type ByteFifoFields } from "./byte_fifo.ts";
import { LSR, LSR_ERRORS } from "./serial_registers.ts";

/** Places of each of the chip's FIFOs. */
export const FIFO_SIZE = 16;

/** The receiver's part of the saved state. */
export type ReceiverFields = {
  /** OE, PE, FE and BI as LSR shows them until it is read. */
  lineErrors: Field<number>;
  /** The bytes that wait. */
  bytes: Struct<ByteFifoFields>;
  /** The LSR errors of each byte in `bytes`. */
  errors: Struct<ByteFifoFields>;
};

/** The layout of {@linkcode ReceiverFields}. */
export const receiverState: Struct<ReceiverFields> = struct("receiver", {
  lineErrors: u8,
  bytes: byteFifo(FIFO_SIZE),
  errors: byteFifo(FIFO_SIZE),
});

/** The receiver at work over its part of the state. */
export class Receiver {
  readonly #state: View<ReceiverFields>;
  readonly #bytes: ByteFifo;
  readonly #errors: ByteFifo;

  /**
   * Works in place.
   *
   * @param state the receiver's part of the device's state
   */
  constructor(state: View<ReceiverFields>) {
    this.#state = state;
    this.#bytes = new ByteFifo(state.bytes);
    this.#errors = new ByteFifo(state.errors);
  }

  /** Number of bytes that wait. */
  get length(): number {
    return this.#bytes.length;
  }

  /** OE, PE, FE and BI as LSR shows them now. */
  get lineErrors(): number {
    return this.#state.lineErrors;
  }

  /** LSR was read: those errors are told. */
  forgetErrors(): void {
    this.#state.lineErrors = 0;
    this.#errors.put(0, 0);
  }

  /** Whether any byte that waits has an error. */
  get hasErrors(): boolean {
    for (let i = 0; i < this.length; i++) if (this.#errors.at(i)) return true;
    return false;
  }

  /**
   * Takes a byte from the line.
   *
   * @param errors its LSR errors
   * @param capacity how many bytes there is room for
   * @param fifo whether the FIFOs are on
   */
  receive(byte: number, errors: number, capacity: number, fifo: boolean): void {
    if (this.length >= capacity) {
      this.#state.lineErrors |= LSR.OE;
      // 8.4 bit 1: a full FIFO keeps what it has, RBR alone is overwritten.
      if (fifo) return;
      this.#bytes.put(this.length - 1, byte);
      this.#errors.put(this.length - 1, errors);
    } else {
      this.#bytes.push(byte);
      this.#errors.push(errors);
    }
    if (this.length === 1) this.#exposeErrors();
  }

  /** Removes and returns the oldest byte, 0 when there is none. */
  shift(): number {
    const byte = this.#bytes.shift();
    this.#errors.shift();
    this.#exposeErrors();
    return byte;
  }

  /** Removes all bytes. */
  clear(): void {
    this.#bytes.clear();
    this.#errors.clear();
  }

  /** Puts the receiver into its power-on state. */
  reset(): void {
    this.clear();
    this.#state.lineErrors = 0;
  }

  /** Brings saved state, which may hold anything, into its bounds. */
  normalise(): void {
    this.#state.lineErrors &= LSR_ERRORS;
    this.#bytes.normalise();
    this.#errors.normalise();
    if (this.#errors.length === this.length) return;
    this.#errors.clear();
    for (let i = 0; i < this.length; i++) this.#errors.push(0);
  }

  /** Errors show in LSR when their byte comes to the top of the FIFO (8.4). */
  #exposeErrors(): void {
    if (this.length > 0) this.#state.lineErrors |= this.#errors.at(0) & LSR_ERRORS;
  }
}
