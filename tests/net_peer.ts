/**
 * The other end of a guest's network: it sends numbered frames to the guest program `virtio_net`, which
 * sends each back, and sees to it that none is lost, none comes twice, and all come in order.
 *
 * @module
 */
import assert from "node:assert/strict";
import { readFd, writeFd } from "../ffi/fd.ts";

/** Bytes of an Ethernet header, and of the number after it. */
const HEAD = 14 + 4;
/** How many frames are under way at most. */
const WINDOW = 24;
/** Bytes of a length before each frame of a stream. */
const LENGTH_SIZE = 4;

/** A frame with a number: the bytes after it follow from number and place. */
export function numberedFrame(number: number, length: number): Uint8Array<ArrayBuffer> {
  const frame = Uint8Array.from({ length }, (_, at) => number + at);
  frame.fill(0xff, 0, 6);
  frame.set([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0x88, 0xb5], 6);
  new DataView(frame.buffer).setUint32(14, number, true);
  return frame;
}

/** Frames through a descriptor, which does not block. */
export class NetPeer {
  /** Frames that have come back. */
  returned = 0;
  #sent = 0;
  #rest: Uint8Array<ArrayBuffer> = new Uint8Array();
  #read: number[] | Uint8Array = new Uint8Array();
  readonly #buffer = new Uint8Array(1 << 17);

  /**
   * @param fd where frames go
   * @param isStream whether each frame has its length before it; otherwise each is one read, one write
   * @param lengthOf how long a frame is, by its number
   */
  constructor(
    public fd: number,
    readonly isStream: boolean,
    readonly lengthOf: (number: number) => number = (number) => HEAD + number * 7 % 1400,
  ) {}

  /** How many frames are under way. */
  get underWay(): number {
    return this.#sent - this.returned;
  }

  /** The same with another connection; nothing may be under way on the one before. */
  moveTo(fd: number): void {
    assert.equal(this.underWay, 0);
    this.fd = fd;
    this.#rest = this.#read = new Uint8Array();
  }

  /** Sends what may be under way, unless it shall not, and takes what has come. */
  pump(sends = true): void {
    this.#receive();
    if (!this.#flush()) return;
    while (sends && this.underWay < WINDOW) {
      const frame = numberedFrame(this.#sent, this.lengthOf(this.#sent));
      this.#rest = this.isStream ? withLength(frame) : frame;
      this.#sent++;
      if (!this.#flush()) return;
    }
  }

  #flush(): boolean {
    while (this.#rest.length > 0) {
      const n = writeFd(this.fd, this.#rest);
      if (n <= 0) return false;
      this.#rest = this.#rest.slice(n);
    }
    return true;
  }

  #receive(): void {
    for (let n; (n = readFd(this.fd, this.#buffer)) > 0;) {
      if (!this.isStream) this.#check(this.#buffer.subarray(0, n));
      else this.#parse(n);
    }
  }

  #parse(n: number): void {
    const joined = new Uint8Array(this.#read.length + n);
    joined.set(this.#read);
    joined.set(this.#buffer.subarray(0, n), this.#read.length);
    const view = new DataView(joined.buffer);
    let at = 0;
    while (joined.length - at >= LENGTH_SIZE) {
      const end = at + LENGTH_SIZE + view.getUint32(at);
      if (end > joined.length) break;
      this.#check(joined.subarray(at + LENGTH_SIZE, end));
      at = end;
    }
    this.#read = joined.slice(at);
  }

  #check(frame: Uint8Array): void {
    // A host's own frames on a tap are none of ours.
    if (frame[12] !== 0x88 || frame[13] !== 0xb5) return;
    const wanted = numberedFrame(this.returned, this.lengthOf(this.returned));
    assert.deepEqual(Uint8Array.from(frame), wanted, `frame ${this.returned}`);
    this.returned++;
  }
}

function withLength(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(LENGTH_SIZE + frame.length);
  new DataView(whole.buffer).setUint32(0, frame.length);
  whole.set(frame, LENGTH_SIZE);
  return whole;
}
