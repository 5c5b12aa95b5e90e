/**
 * What is around the data of a disk's requests: headers, and the bytes that tell the driver what became
 * of them. Of requests that are taken together they are copied together, which takes a fraction of the
 * time.
 *
 * @module
 */
import { MOST_TRANSFERS } from "../block/transfers.ts";
import { IoVector, MAX_PIECES } from "../../ffi/iovec.ts";
import type { TakenRequests } from "./virtio.ts";

/** Bytes of struct virtio_blk_req before its data (virtio 1.2, 5.2.6): type, priority, sector. */
export const HEADER_SIZE = 16;

/** Frames of the requests that are in hand. */
export class BlkFrames {
  /** The header that was read last, at {@linkcode at}. */
  readonly headers: DataView<ArrayBuffer> = new DataView(
    new ArrayBuffer(HEADER_SIZE * MOST_TRANSFERS),
  );
  readonly #bytes = new Uint8Array(this.headers.buffer);
  readonly #pieces = new IoVector(MAX_PIECES);
  /** How many headers have been read. */
  #read = 0;
  readonly #outcomes = new Uint8Array(MOST_TRANSFERS);
  readonly #places = new IoVector(MOST_TRANSFERS);
  readonly #one = new IoVector(1);
  /** How many outcomes there are to tell. */
  #count = 0;

  /** Reads the headers of requests, as far as all are there. */
  take({ chains, count }: TakenRequests): void {
    this.#read = 0;
    this.#pieces.clear();
    for (let i = 0; i < count; i++) {
      const { readable } = chains[i];
      if (readable.length < HEADER_SIZE || !this.#pieces.append(readable, HEADER_SIZE)) return;
    }
    const length = HEADER_SIZE * count;
    if (this.#pieces.copyOut(this.#bytes.subarray(0, length)) === length) this.#read = count;
  }

  /**
   * Takes the header of a request off what the driver wrote.
   *
   * @returns where in `headers` it is; undefined if the guest's memory is lost to the host
   */
  header(request: number, readable: IoVector): number | undefined {
    const at = HEADER_SIZE * request;
    if (request >= this.#read) {
      const bytes = this.#bytes.subarray(at, at + HEADER_SIZE);
      if (readable.copyOut(bytes) !== HEADER_SIZE) return undefined;
    }
    readable.skip(HEADER_SIZE);
    return at;
  }

  /** Keeps an outcome, and where the driver looks for it, until `tell`. */
  finish(status: IoVector, outcome: number): void {
    this.#outcomes[this.#count++] = outcome;
    this.#places.append(status);
  }

  /** Tells the driver all outcomes; nobody can be told one by memory that is lost to the host. */
  tell(): void {
    const outcomes = this.#outcomes.subarray(0, this.#count);
    if (this.#places.copyIn(outcomes) < 0) {
      for (let i = 0; i < outcomes.length; i++) {
        this.#one.clear();
        this.#one.append(this.#places, 1);
        this.#one.copyIn(outcomes.subarray(i, i + 1));
        this.#places.skip(1);
      }
    }
    this.#places.clear();
    this.#count = 0;
  }
}
