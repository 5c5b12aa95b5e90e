/**
 * A queue of bytes inside a device's saved state.
 *
 * Head and length come from saved state and may be anything, so every use bounds them: a damaged
 * queue holds wrong bytes but never reaches past its own memory.
 *
 * @module
 */
import { bytes, type Field, type Struct, struct, u16, type View } from "../../ffi/struct.ts";
import type { CharacterSink } from "../device.ts";

/** The fields of a queue in a state struct. */
export type ByteFifoFields = {
  head: Field<number>;
  length: Field<number>;
  ring: Field<Uint8Array>;
};

/**
 * Declares a queue as a field of a state struct.
 *
 * @param capacity bytes that it holds, a power of two so that indices can be masked
 */
export function byteFifo(capacity: number): Struct<ByteFifoFields> {
  return struct("byte_fifo", { head: u16, length: u16, ring: bytes(capacity) });
}

/** The queue at work over its part of the state. */
export class ByteFifo {
  readonly #state: View<ByteFifoFields>;
  readonly #ring: Uint8Array;
  readonly #mask: number;
  /** Sinks get a copy: the state itself may be shared memory, which system calls cannot take. */
  readonly #chunk: Uint8Array;

  /** Works in place on `state`, the queue's part of the device's state. */
  constructor(state: View<ByteFifoFields>) {
    this.#state = state;
    this.#ring = state.ring;
    this.#mask = this.#ring.length - 1;
    this.#chunk = new Uint8Array(this.#ring.length);
  }

  /** Number of bytes in the queue. */
  get length(): number {
    return Math.min(this.#state.length, this.#ring.length);
  }

  /** Number of bytes that still fit. */
  get room(): number {
    return this.#ring.length - this.length;
  }

  /** The byte `index` places behind the oldest. */
  at(index: number): number {
    return this.#ring[(this.#state.head + index) & this.#mask];
  }

  /** Replaces the byte `index` places behind the oldest. */
  put(index: number, byte: number): void {
    this.#ring[(this.#state.head + index) & this.#mask] = byte;
  }

  /** Appends a byte; returns false, and does nothing, when the queue is full. */
  push(byte: number): boolean {
    const length = this.length;
    if (length === this.#ring.length) return false;
    this.put(length, byte);
    this.#state.length = length + 1;
    return true;
  }

  /** Removes and returns the oldest byte, 0 when there is none. */
  shift(): number {
    if (this.length === 0) return 0;
    const byte = this.at(0);
    this.#drop(1);
    return byte;
  }

  /** Removes all bytes. */
  clear(): void {
    this.#state.head = 0;
    this.#state.length = 0;
  }

  /** Moves bytes to `sink`, oldest first, until none are left or it takes no more. */
  drainTo(sink: CharacterSink): void {
    for (let length = this.length; length > 0; length = this.length) {
      for (let i = 0; i < length; i++) this.#chunk[i] = this.at(i);
      const taken = sink.write(this.#chunk.subarray(0, length));
      if (taken === 0) return;
      this.#drop(taken);
    }
  }

  /** Brings head and length from saved state into their bounds. */
  normalise(): void {
    this.#state.head &= this.#mask;
    this.#state.length = this.length;
  }

  #drop(count: number): void {
    const length = this.length;
    const dropped = Math.min(count, length);
    this.#state.head = (this.#state.head + dropped) & this.#mask;
    this.#state.length = length - dropped;
  }
}
