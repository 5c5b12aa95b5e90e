/**
 * Frames of the guest's: from its buffers straight to the backend.
 *
 * @module
 */
import { IoVector, MAX_PIECES } from "../../ffi/iovec.ts";
import { addressOf } from "../../ffi/memory.ts";
import { MAX_FRAME, type NetPort } from "../net/port.ts";
import { type Chain, MalformedRing } from "./chain.ts";
import type { NetLimits } from "./net_limits.ts";
import { HEADER_SIZE, type PairState } from "./net_state.ts";
import type { Virtio } from "./virtio.ts";

/** The sending half of a network device, on the I/O thread. */
export class NetSender {
  readonly #state: PairState;
  readonly #virtio: Virtio;
  readonly #port: NetPort;
  readonly #limits: NetLimits;
  /** The queue's number. */
  readonly #index: number;
  readonly #frame = new IoVector(MAX_PIECES - 1);
  /** What stands in for the rest of a frame that is gone. */
  #zeros: Uint8Array<ArrayBuffer> | undefined;

  /**
   * @param state the pair's state
   * @param virtio the device
   * @param port where frames go
   * @param limits how many, and how much of them
   * @param index the queue's number
   */
  constructor(
    state: PairState,
    virtio: Virtio,
    port: NetPort,
    limits: NetLimits,
    index: number,
  ) {
    this.#limits = limits;
    this.#index = index;
    this.#state = state;
    this.#virtio = virtio;
    this.#port = port;
  }

  /**
   * Sends until there is nothing, or the backend takes no more.
   *
   * @returns whether it waits for the backend
   * @throws {MalformedRing}
   */
  run(): boolean {
    if (this.#state.tx_abandoned && !this.#finishAbandoned()) return true;
    let isWaiting = false;
    this.#virtio.queues[this.#index].serve((chain) => {
      // The timer rings then, and not the backend.
      if (this.#state.tx_sent === 0 && this.#limits.waits()) return undefined;
      isWaiting = !this.#send(chain);
      return isWaiting ? undefined : 0;
    });
    return isWaiting;
  }

  /** The connection is another one, or none: what has gone of a frame is gone. */
  forget(): void {
    this.#state.tx_sent = this.#state.tx_abandoned = 0;
  }

  /** @returns false if the rest of it must wait */
  #send({ readable }: Chain): boolean {
    if (readable.length < HEADER_SIZE) {
      throw new MalformedRing("virtio-net header not in first element");
    }
    const s = this.#state;
    const frame = this.#frame;
    frame.clear();
    const isWhole = frame.append(readable);
    frame.skip(HEADER_SIZE - this.#port.headerSize);
    const size = this.#port.frameSize(frame.length);
    if (s.tx_sent !== 0 && size !== s.tx_length) {
      // The driver has changed what it had made available.
      s.tx_abandoned = 1;
      return this.#finishAbandoned();
    }
    const isLost = !isWhole || s.link_down || frame.length > MAX_FRAME + HEADER_SIZE;
    if (isLost && s.tx_sent === 0) return true;
    return this.#go(frame, size);
  }

  #go(frame: IoVector, size: number): boolean {
    const s = this.#state;
    const { length } = frame;
    const done = this.#port.send(frame, s.tx_sent);
    if (s.tx_sent === 0 && done > 0) this.#limits.count(length - this.#port.headerSize);
    s.tx_sent = done < size ? done : 0;
    s.tx_length = size;
    return done >= size;
  }

  /** Sends zeros for what is left of a frame that is gone. @returns false if it must wait */
  #finishAbandoned(): boolean {
    const s = this.#state;
    const zeros = this.#zeros ??= new Uint8Array(MAX_FRAME);
    const length = s.tx_length - this.#port.frameSize(0);
    this.#frame.clear();
    if (s.tx_sent > 0 && length >= 0 && length <= zeros.length) {
      this.#frame.push(Number(addressOf(zeros)), length);
      if (!this.#go(this.#frame, s.tx_length)) return false;
    }
    this.forget();
    return true;
  }
}
