/**
 * Frames for the guest: from the backend straight into the buffers that the driver has given.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import { IoVector, MAX_PIECES } from "../../ffi/iovec.ts";
import { addressOf } from "../../ffi/memory.ts";
import type { DeviceContext, Timer } from "../device.ts";
import { MAX_FRAME, type NetPort } from "../net/port.ts";
import { Chain, MalformedRing } from "./chain.ts";
import { HEADER_SIZE, NetFeature, NUM_BUFFERS, type PairState } from "./net_state.ts";
import type { NetLimits } from "./net_limits.ts";
import type { VirtQueue } from "./ring.ts";
import type { Virtio } from "./virtio.ts";

/** Room for what does not fit into the buffers. */
const OVERFLOW = HEADER_SIZE + MAX_FRAME;
/** A vector has room for this many pieces, the overflow and the length that a stream sends before. */
const MOST_PIECES = MAX_PIECES - 2;

/** How long a driver may take that has given more room before. */
const PATIENCE_NS = 200_000_000n;

/** What becomes of one frame. */
type Outcome = "received" | "no frame" | "no buffers" | "ended";

/** The receiving half of a network device, on the I/O thread. */
export class NetReceiver {
  readonly #state: PairState;
  readonly #virtio: Virtio;
  readonly #port: NetPort;
  readonly #limits: NetLimits;
  readonly #clock: Pick<DeviceContext, "monotonicNs">;
  readonly #timer: Timer;
  /** The queue's number. */
  readonly #index: number;
  /** Buffers that are taken for one frame; made as they are needed. */
  readonly #chains: Chain[] = [];
  readonly #into = new IoVector(MAX_PIECES - 1);
  readonly #header = new IoVector();
  readonly #overflow = new Uint8Array(OVERFLOW);
  readonly #overflowAddress = Number(addressOf(this.#overflow));
  readonly #headerBytes = new Uint8Array(HEADER_SIZE);
  /** The ring that the next two are about. */
  #ring: VirtQueue | undefined;
  /** How much room is made ready for a frame: as much as the last ones took. */
  #wanted = 0;
  /** The most room that the driver has ever given. */
  #most = 0;
  /** Whether the buffers taken for a frame are in so many pieces that no further one can be added. */
  #isFull = false;

  /**
   * @param state the pair's state
   * @param virtio the device
   * @param port where frames come from
   * @param limits how many, and how much of them
   * @param context the time, and a timer that is used for patience alone, the first
   * @param index the queue's number
   */
  constructor(
    state: PairState,
    virtio: Virtio,
    port: NetPort,
    limits: NetLimits,
    context: DeviceContext,
    index: number,
  ) {
    this.#limits = limits;
    this.#index = index;
    this.#state = state;
    this.#virtio = virtio;
    this.#port = port;
    this.#clock = context;
    [this.#timer] = context.timers;
  }

  /**
   * Receives until there is nothing, or no room for it.
   *
   * @returns false if the connection has ended
   * @throws {MalformedRing}
   */
  run(): boolean {
    const queue = this.#virtio.queues[this.#index];
    const { ring } = queue;
    const { parts } = this.#virtio;
    if (!ring) return true;
    if (ring !== this.#ring) {
      this.#ring = ring;
      this.#wanted = this.#most = 0;
    }
    // Others shall have their turn.
    for (let left = parts.queueSizes[this.#index]; !parts.isParking(); left--) {
      if (left === 0) {
        parts.doorbells[this.#index].ring();
        return true;
      }
      const isDown = this.#state.link_down;
      // What has to wait does so where it is.
      if (!isDown && this.#limits.waits()) return true;
      const outcome = isDown ? this.#discard() : this.#receive(ring);
      if (outcome === "ended") return false;
      if (outcome !== "received") return true;
      queue.flush(ring);
    }
    return true;
  }

  /** What comes while the cable is out is lost. */
  #discard(): Outcome {
    this.#into.clear();
    this.#into.push(this.#overflowAddress, OVERFLOW);
    const size = this.#port.receive(this.#into);
    return size >= 0 ? "received" : outcomeOf(size);
  }

  #receive(ring: VirtQueue): Outcome {
    const next = this.#port.next();
    if (next !== undefined && next < 0) return outcomeOf(next);
    ring.suppress();
    const isMergeable = this.#virtio.hasFeature(NetFeature.MRG_RXBUF);
    const wanted = !isMergeable ? 1 : next === undefined ? this.#guess() : HEADER_SIZE + next;
    const into = this.#into;
    into.clear();
    this.#isFull = false;
    let count = 0;
    let room = 0;
    const take = (wanted: number) => {
      while (room < wanted && this.#pop(ring, count)) room += this.#chains[count++].writable.length;
    };
    const putBack = (kept: number) => {
      while (count > kept) ring.unpop(this.#chains[--count]);
    };
    take(wanted);
    this.#most = Math.max(this.#most, room);
    if (room < wanted && !this.#isFull && !(next === undefined && this.#contents(room))) {
      const isThere = ring.listen();
      if (next === undefined && room > 0) this.#timer.arm(this.#clock.monotonicNs() + PATIENCE_NS);
      putBack(0);
      // Once more by the caller, who counts.
      return isThere ? "received" : "no buffers";
    }
    const own = HEADER_SIZE - this.#port.headerSize;
    into.skip(own);
    into.push(this.#overflowAddress, OVERFLOW);
    const result = this.#port.receive(into);
    // An empty datagram is no frame.
    if (result <= 0) {
      putBack(0);
      return outcomeOf(result);
    }
    this.#limits.count(result - this.#port.headerSize);
    const total = own + result;
    this.#wanted = Math.max(total, this.#wanted - (this.#wanted >> 3));
    const before = room;
    if (total > room && isMergeable) take(total);
    if (total > room) {
      putBack(0);
      return "received";
    }
    if (total > before) this.#copyOverflow(count, before, total - before);
    putBack(this.#needed(total));
    this.#writeHeader(count, own === 0);
    this.#push(ring, count, total);
    return "received";
  }

  /** How much room the next frame may take, of a driver that has given as much before. */
  #guess(): number {
    return Math.max(1, Math.min(this.#wanted, this.#most));
  }

  /** Whether the driver gives no more, after it was waited for: frames that fit are better than none. */
  #contents(room: number): boolean {
    if (!this.#state.rx_hasty || room === 0) return false;
    this.#state.rx_hasty = 0;
    this.#wanted = this.#most = room;
    return true;
  }

  /** Takes a buffer as number `index` of a frame's. */
  #pop(ring: VirtQueue, index: number): boolean {
    const chain = this.#chains[index] ??= new Chain();
    if (!ring.pop(chain)) return false;
    const { writable } = chain;
    if (index === 0 && writable.length < HEADER_SIZE) {
      throw new MalformedRing("virtio-net receive queue contains no in buffers");
    }
    if (writable.pieces > MOST_PIECES) {
      throw new MalformedRing("virtio-net: too many descriptors in a receive buffer");
    }
    if (this.#into.pieces + writable.pieces <= MOST_PIECES) {
      this.#into.append(writable);
      return true;
    }
    ring.unpop(chain);
    this.#isFull = true;
    return false;
  }

  /** Copies what did not fit into the first `before` bytes of the buffers to those taken since. */
  #copyOverflow(count: number, before: number, length: number): void {
    const rest = this.#into;
    rest.clear();
    for (let i = 0; i < count; i++) rest.append(this.#chains[i].writable);
    rest.skip(before);
    rest.copyIn(this.#overflow.subarray(0, length));
  }

  /** How many buffers a frame of so many bytes takes. */
  #needed(total: number): number {
    let rest = total;
    let count = 0;
    do rest -= this.#chains[count++].writable.length; while (rest > 0);
    return count;
  }

  /** @param isThere whether the backend has written all but the number of buffers */
  #writeHeader(buffers: number, isThere: boolean): void {
    const header = this.#header;
    header.clear();
    header.append(this.#chains[0].writable, HEADER_SIZE);
    const bytes = this.#headerBytes;
    bytes[NUM_BUFFERS] = buffers & 0xff;
    bytes[NUM_BUFFERS + 1] = buffers >> 8;
    if (isThere) header.skip(NUM_BUFFERS);
    header.copyIn(isThere ? bytes.subarray(NUM_BUFFERS) : bytes);
  }

  #push(ring: VirtQueue, count: number, total: number): void {
    let rest = total;
    for (let i = 0; i < count; i++) {
      const written = Math.min(rest, this.#chains[i].writable.length);
      ring.push(this.#chains[i], written);
      rest -= written;
    }
  }
}

/** What a call that failed means. Errors that no frame comes with are the host's, and pass. */
function outcomeOf(result: number): Outcome {
  return result === -Errno.ENOTCONN ? "ended" : "no frame";
}
