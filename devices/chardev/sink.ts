/**
 * The half of a character backend that devices write to, on any thread.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { signalEventfd } from "../../ffi/event.ts";
import { writeFd } from "../../ffi/fd.ts";
import { sendNow } from "../../ffi/socket.ts";
import type { CharacterSink } from "../device.ts";
import { encode, Encoding, MAX_ENCODED } from "./encoding.ts";
import { SinkSlot } from "./slot.ts";

/** A sink as plain data, to be built on any thread. */
export interface SinkDescription {
  /** The backend's {@linkcode SinkSlot}. */
  readonly slot: SharedArrayBuffer;
  /** The eventfd that wakes the backend on the main thread. */
  readonly wake: number;
}

/** Takes and drops everything: for a device without a character backend. */
export const nullSink: CharacterSink = {
  write: (data) => data.length,
  acceptInput() {},
  sendBreak() {},
};

/** Builds this thread's sink. */
export function openSink(description: SinkDescription): Sink {
  return new Sink(new SinkSlot(description.slot), description.wake);
}

const NEWLINE = 10;
const CHUNK = 4096;

/** A sink on this thread. */
export class Sink implements CharacterSink {
  readonly #slot: SinkSlot;
  readonly #wake: number;
  /** Data may lie in shared memory, which system calls are not given. */
  readonly #chunk = new Uint8Array(CHUNK);

  constructor(slot: SinkSlot, wake: number) {
    this.#slot = slot;
    this.#wake = wake;
  }

  write(data: Uint8Array): number {
    return this.#slot.locked(() => {
      const taken = this.#slot.stamping ? this.#writeStamped(data) : this.#writePlain(data);
      this.#noteRest(taken < data.length);
      return taken;
    });
  }

  /** Writes encoded bytes that are no output but the protocol's; false if there is no room for them. */
  answer(bytes: Uint8Array): boolean {
    return this.#slot.locked(() => {
      const { unsent } = this.#slot;
      if (unsent.length + bytes.length > MAX_ENCODED) return false;
      this.#slot.unsent = Uint8Array.of(...unsent, ...bytes);
      this.#sendUnsent();
      this.#noteRest(false);
      return true;
    });
  }

  /** Writes what of encoded bytes is left. */
  flush(): void {
    this.#slot.locked(() => {
      this.#sendUnsent();
      this.#noteRest(false);
    });
  }

  /** Has the main thread tell when the host takes bytes again, if some are left. */
  #noteRest(isLeft: boolean): void {
    if (!isLeft && this.#slot.unsent.length === 0) return;
    if (!this.#slot.setBlocked(true)) signalEventfd(this.#wake);
  }

  acceptInput(): void {
    if (!this.#slot.starved) return;
    this.#slot.locked(() => {
      if (this.#slot.setStarved(false)) signalEventfd(this.#wake);
    });
  }

  sendBreak(): void {
    // As in QEMU: none of the backends has a line that could carry a break condition.
  }

  /** Of encoded bytes a part may be left, which no one but this block knows. */
  #writeEncoded(data: Uint8Array): number {
    const slot = this.#slot;
    let done = 0;
    while (done < data.length && this.#sendUnsent()) {
      const { taken, bytes } = encode(slot.encoding, data.subarray(done));
      slot.unsent = bytes;
      this.#sendUnsent();
      if (slot.log >= 0) put(slot.log, false, Uint8Array.from(data.subarray(done, done + taken)));
      done += taken;
    }
    return done;
  }

  /** Whether nothing is left. */
  #sendUnsent(): boolean {
    const { unsent, output, outputIsSocket } = this.#slot;
    if (unsent.length === 0) return true;
    const taken = output < 0 ? unsent.length : put(output, outputIsSocket, Uint8Array.from(unsent));
    this.#slot.unsent = unsent.subarray(taken);
    return taken === unsent.length;
  }

  #writePlain(data: Uint8Array): number {
    if (this.#slot.encoding !== Encoding.PLAIN) return this.#writeEncoded(data);
    let done = 0;
    while (done < data.length) {
      const length = Math.min(data.length - done, CHUNK);
      this.#chunk.set(data.subarray(done, done + length));
      const taken = this.#transfer(this.#chunk.subarray(0, length));
      done += taken;
      if (taken < length) break;
    }
    return done;
  }

  /** What the host takes now; everything if nobody is there. */
  #transfer(chunk: Uint8Array<ArrayBuffer>): number {
    const { output, log } = this.#slot;
    const taken = output < 0 ? chunk.length : put(output, this.#slot.outputIsSocket, chunk);
    if (log >= 0 && taken > 0) put(log, false, chunk.subarray(0, taken));
    return taken;
  }

  #writeStamped(data: Uint8Array): number {
    const slot = this.#slot;
    for (let done = 0; done < data.length;) {
      if (slot.lineStart) {
        slot.pending = this.#stamp();
        slot.lineStart = false;
      }
      slot.pending = slot.pending.subarray(this.#writePlain(slot.pending));
      if (slot.pending.length > 0) return done;
      const newline = data.indexOf(NEWLINE, done);
      const end = newline === -1 ? data.length : newline + 1;
      done += this.#writePlain(data.subarray(done, end));
      if (done < end) return done;
      slot.lineStart = newline !== -1;
    }
    return data.length;
  }

  /** `[hh:mm:ss.mmm] ` since the first stamp. */
  #stamp(): Uint8Array {
    const now = Date.now();
    if (this.#slot.startMs === 0) this.#slot.startMs = now;
    const ms = now - this.#slot.startMs;
    const field = (value: number, digits: number) => `${Math.floor(value)}`.padStart(digits, "0");
    const seconds = ms / 1000;
    return new TextEncoder().encode(
      `[${field(seconds / 3600, 2)}:${field(seconds / 60 % 60, 2)}:${field(seconds % 60, 2)}.` +
        `${field(ms % 1000, 3)}] `,
    );
  }
}

/** Writes without waiting; what cannot be written to a broken peer or a full disk is dropped. */
function put(fd: number, isSocket: boolean, chunk: Uint8Array<ArrayBuffer>): number {
  try {
    const taken = isSocket ? sendNow(fd, chunk) : writeFd(fd, chunk);
    return Math.max(taken, 0);
  } catch (error) {
    if (error instanceof OsError) return chunk.length;
    throw error;
  }
}
