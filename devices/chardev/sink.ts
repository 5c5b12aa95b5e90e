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
export function openSink(description: SinkDescription): CharacterSink {
  return new Sink(new SinkSlot(description.slot), description.wake);
}

const NEWLINE = 10;
const CHUNK = 4096;

class Sink implements CharacterSink {
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
      if (taken < data.length && !this.#slot.setBlocked(true)) signalEventfd(this.#wake);
      return taken;
    });
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

  #writePlain(data: Uint8Array): number {
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
