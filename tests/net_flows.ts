/**
 * The other end of a guest's network with several pairs of queues: frames of UDP, each flow with numbers of
 * its own, to the guest program `virtio_net` with the word `mq`, which sends each back.
 *
 * @module
 */
import assert from "node:assert/strict";
import { readFd, writeFd } from "../ffi/fd.ts";

/** As many as the guest tells apart. A host spreads flows over queues by their ports. */
const FLOWS = 64;
const ETHERNET = 14;
const HEAD = ETHERNET + 20 + 8;
/** How many frames are under way at most. */
const WINDOW = 24;

/** A frame of a flow: the bytes after its number follow from number and place. */
function flowFrame(flow: number, number: number): Uint8Array<ArrayBuffer> {
  const length = HEAD + 4 + number * 7 % 1300;
  const frame = Uint8Array.from({ length }, (_, at) => number + at);
  frame.set([0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0x08, 0]);
  const view = new DataView(frame.buffer);
  const ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
  frame.set(ip, ETHERNET);
  view.setUint16(ETHERNET + 2, length - ETHERNET);
  view.setUint16(ETHERNET + 20, 0x4000 + flow);
  view.setUint16(ETHERNET + 22, 0x88b5);
  view.setUint16(ETHERNET + 24, length - ETHERNET - 20);
  view.setUint16(ETHERNET + 26, 0);
  view.setUint32(HEAD, number, true);
  return frame;
}

/** Frames of many flows through a packet socket, which does not block. */
export class FlowPeer {
  /** Frames that have come back. */
  returned = 0;
  #sent = 0;
  #waiting: Uint8Array<ArrayBuffer> | undefined;
  readonly #expected: number[] = Array(FLOWS).fill(0);
  readonly #buffer = new Uint8Array(1 << 16);

  /** @param fd where frames go */
  constructor(public fd: number) {}

  /** How many frames are under way. */
  get underWay(): number {
    return this.#sent - this.returned;
  }

  /** The same with another socket; nothing may be under way on the one before. */
  moveTo(fd: number): void {
    assert.equal(this.underWay, 0);
    this.fd = fd;
  }

  /** Sends what may be under way, unless it shall not, and takes what has come. */
  pump(sends = true): void {
    for (let n; (n = readFd(this.fd, this.#buffer)) > 0;) this.#check(this.#buffer.slice(0, n));
    while (this.#waiting || (sends && this.underWay < WINDOW)) {
      this.#waiting ??= this.#next();
      if (writeFd(this.fd, this.#waiting) <= 0) return;
      this.#waiting = undefined;
    }
  }

  #next(): Uint8Array<ArrayBuffer> {
    const frame = flowFrame(this.#sent % FLOWS, Math.floor(this.#sent / FLOWS));
    this.#sent++;
    return frame;
  }

  #check(frame: Uint8Array<ArrayBuffer>): void {
    const view = new DataView(frame.buffer);
    // A host's own frames are none of ours.
    if (frame.length < HEAD + 4 || view.getUint16(ETHERNET + 22) !== 0x88b5) return;
    const flow = view.getUint16(ETHERNET + 20) - 0x4000;
    assert.deepEqual(frame, flowFrame(flow, this.#expected[flow]), `flow ${flow}`);
    this.#expected[flow]++;
    this.returned++;
  }
}
