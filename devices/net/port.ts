/**
 * The half of a network backend that a device sends to and receives from, on any thread.
 *
 * Nothing of a frame is ever kept here: what has come in part stays in the kernel until all of it has
 * come, and how much of one has gone is told to the device, which keeps it with its state. So a
 * successor goes on in the middle of a frame.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import { signalEventfd } from "../../ffi/event.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { addressOf } from "../../ffi/memory.ts";
import { bytesWaiting, peek, peekLength } from "../../ffi/socket_queue.ts";
import { setTapOffload, setTapQueue } from "../../ffi/tap.ts";
import { VhostDevice } from "../../ffi/vhost.ts";
import { ThrottleGroup } from "../block/throttle.ts";
import { DescriptorSlot } from "../descriptor_slot.ts";

/** The longest frame that anybody sends (QEMU's NET_BUFSIZE). */
export const MAX_FRAME = 4096 + 65_536;

/** A vhost device of a queue of a tap. */
export interface VhostPortDescription {
  readonly fd: number;
  /** Feature bits that the kernel has. */
  readonly features: bigint;
  /** Eventfds: the driver wants to know of frames that have come, or have gone. */
  readonly calls: readonly [received: number, sent: number];
  /** What all threads share about it, zeros at first. */
  readonly words: SharedArrayBuffer;
}

/** The same on this thread. */
export interface VhostPort extends Omit<VhostPortDescription, "fd"> {
  readonly device: VhostDevice;
}

/** A backend as plain data, to be opened on any thread. */
export interface NetPortDescription {
  readonly kind: "tap" | "stream" | "dgram";
  /** The backend's {@linkcode DescriptorSlot}. */
  readonly slot: SharedArrayBuffer;
  /** The eventfd that tells the main thread that the connection has ended. */
  readonly wake: number;
  /** Bytes of a struct virtio_net_hdr before each frame: none, or those of virtio 1. */
  readonly headerSize: number;
  /** Those of its further queues. */
  readonly more?: readonly SharedArrayBuffer[];
  /** The vhost device of each queue, the first one's first. */
  readonly vhost?: readonly VhostPortDescription[];
  /** Where datagrams go: a struct sockaddr. */
  readonly destination?: Uint8Array<ArrayBuffer>;
  /** Whether the connection has come from a predecessor, which may have sent part of a frame. */
  readonly isInherited?: boolean;
  /** The memory of the {@linkcode ThrottleGroup} that its frames count in. */
  readonly throttle?: SharedArrayBuffer;
}

/** A backend on this thread. All calls return at once. */
export interface NetPort {
  /** The descriptor to wait for; undefined while there is no connection. */
  readonly fd: number | undefined;
  /** Another number when the descriptor is another one. */
  readonly connection: number;
  /** Bytes of a struct virtio_net_hdr before each frame, both ways. */
  readonly headerSize: number;
  /** Whether a frame of which a predecessor has sent part goes on where it was. */
  readonly isInherited?: boolean;
  /** The group that its frames count in, those of its further queues as well. */
  readonly throttle?: ThrottleGroup;
  /**
   * Looks for a frame, and leaves it.
   *
   * @returns its bytes; undefined where that is only known when it is received; -EAGAIN if there is none;
   *   -ENOTCONN at the end of a connection
   */
  next(): number | undefined;
  /**
   * Receives a frame.
   *
   * @param into room for {@linkcode MAX_FRAME} bytes and the header
   * @returns the frame's bytes; -EAGAIN if there is none; -ENOTCONN at the end of a connection
   */
  receive(into: IoVector): number;
  /** Gives a connection up that has ended. Nobody on this thread waits for its descriptor any more. */
  drop(): void;
  /**
   * Sends a frame, or what is left of it.
   *
   * @param frame all of the frame
   * @param done how much of it has gone, as the last call has returned it
   * @returns all, if all has gone or is lost; less, if the rest must wait: {@linkcode frameSize} says
   *   how much all is
   */
  send(frame: IoVector, done: number): number;
  /** What `send` returns at the end of a frame of so many bytes. */
  frameSize(length: number): number;
  /** Says what the guest takes unfinished, of `TapOffload`, where frames have headers. */
  setOffload(offload: number): void;
  /** Its further queues. */
  readonly more?: readonly NetPort[];
  /** What can have the kernel serve a card's queues with this one. */
  readonly vhost?: VhostPort;
  /** Takes this queue, of several, into use or out of it: no frames come by it then. */
  setUsed?(isUsed: boolean): void;
}

/** Opens a backend on this thread. */
export function openPort(description: NetPortDescription): NetPort {
  const { throttle } = description;
  return Object.assign(
    openKind(description),
    throttle && { throttle: new ThrottleGroup(throttle) },
  );
}

function openKind(description: NetPortDescription): NetPort {
  const slot = new DescriptorSlot(description.slot);
  const ended = () => {
    slot.fd = undefined;
    signalEventfd(description.wake);
  };
  switch (description.kind) {
    case "tap": {
      const { headerSize, more, vhost = [] } = description;
      const [first, ...others] = vhost.map(({ fd, ...rest }): VhostPort => ({
        ...rest,
        device: new VhostDevice(fd),
      }));
      const queues = more?.map((one, i) =>
        new TapPort(new DescriptorSlot(one), headerSize, others[i])
      );
      return new TapPort(slot, headerSize, first, queues);
    }
    case "dgram":
      return new DgramPort(slot, description.destination);
    case "stream":
      return new StreamPort(slot, ended, description.isInherited);
  }
}

/** What all backends have in common. */
abstract class SlotPort {
  /** @param slot where the main thread says which descriptor it is */
  constructor(protected readonly slot: DescriptorSlot) {}

  get fd(): number | undefined {
    return this.slot.fd;
  }

  get connection(): number {
    return this.slot.count;
  }

  frameSize(length: number): number {
    return length;
  }

  /** Only an interface takes frames that are not finished. */
  setOffload(_offload: number): void {}

  /** Only a connection ends: an interface that is gone does not come back. */
  drop(): void {}
}

/** An interface of the host's. */
class TapPort extends SlotPort implements NetPort {
  constructor(
    slot: DescriptorSlot,
    readonly headerSize: number,
    readonly vhost?: VhostPort,
    readonly more?: readonly NetPort[],
  ) {
    super(slot);
  }

  next(): undefined {}

  receive(into: IoVector): number {
    const { fd } = this;
    return fd === undefined ? -Errno.EAGAIN : into.readFrom(fd);
  }

  send(frame: IoVector): number {
    const { fd } = this;
    const result = fd === undefined ? 0 : frame.writeTo(fd);
    return result === -Errno.EAGAIN ? 0 : frame.length;
  }

  override setOffload(offload: number): void {
    const { fd } = this;
    if (fd !== undefined && this.headerSize > 0) setTapOffload(fd, offload);
  }

  setUsed(isUsed: boolean): void {
    const { fd } = this;
    if (fd !== undefined) setTapQueue(fd, isUsed);
  }
}

/** A socket with a frame in each datagram. */
class DgramPort extends SlotPort implements NetPort {
  readonly headerSize = 0;
  readonly #destination?: Uint8Array<ArrayBuffer>;

  constructor(slot: DescriptorSlot, destination?: Uint8Array<ArrayBuffer>) {
    super(slot);
    this.#destination = destination;
  }

  next(): number {
    const { fd } = this;
    return fd === undefined ? -Errno.EAGAIN : peekLength(fd);
  }

  receive(into: IoVector): number {
    const { fd } = this;
    return fd === undefined ? -Errno.EAGAIN : into.readFrom(fd);
  }

  send(frame: IoVector): number {
    const { fd } = this;
    const result = fd === undefined ? 0 : frame.sendTo(fd, this.#destination);
    // A socket that is connected is writable again some time; of another nobody would be told.
    return result === -Errno.EAGAIN && !this.#destination ? 0 : frame.length;
  }
}

/** Bytes of a frame's length, big-endian, before the frame. */
const LENGTH_SIZE = 4;

/** A connection over which frames go, each after its length. */
class StreamPort extends SlotPort implements NetPort {
  readonly headerSize = 0;
  readonly #ended: () => void;
  readonly #length = new DataView(new ArrayBuffer(LENGTH_SIZE));
  readonly #lengthBytes = new Uint8Array(this.#length.buffer);
  readonly #lengthAddress = Number(addressOf(this.#lengthBytes));
  readonly #vector = new IoVector();

  constructor(slot: DescriptorSlot, ended: () => void, readonly isInherited = false) {
    super(slot);
    this.#ended = ended;
  }

  next(): number {
    const { fd } = this;
    if (fd === undefined) return -Errno.EAGAIN;
    const peeked = peek(fd, this.#lengthBytes);
    if (peeked === -Errno.EAGAIN) return peeked;
    const length = this.#length.getUint32(0);
    if (peeked <= 0 || (peeked === LENGTH_SIZE && length > MAX_FRAME)) return -Errno.ENOTCONN;
    // Until all of a frame has come, it stays where a successor finds it as well.
    const isThere = peeked === LENGTH_SIZE && bytesWaiting(fd) >= LENGTH_SIZE + length;
    return isThere ? length : -Errno.EAGAIN;
  }

  receive(into: IoVector): number {
    const length = this.next();
    if (length < 0) return length;
    return Math.max(0, this.#frame(into, length).readFrom(this.fd!) - LENGTH_SIZE);
  }

  send(frame: IoVector, done: number): number {
    const { fd } = this;
    const all = this.frameSize(frame.length);
    if (fd === undefined) return all;
    this.#length.setUint32(0, frame.length);
    const vector = this.#frame(frame, frame.length);
    vector.skip(done);
    const sent = vector.sendTo(fd);
    if (sent >= 0) return done + sent;
    // That the connection has ended is found by who reads from it.
    return sent === -Errno.EAGAIN ? done : all;
  }

  override frameSize(length: number): number {
    return LENGTH_SIZE + length;
  }

  override drop(): void {
    if (this.slot.fd !== undefined) this.#ended();
  }

  /** The length, and a frame of so many bytes. */
  #frame(frame: IoVector, length: number): IoVector {
    const vector = this.#vector;
    vector.clear();
    vector.push(this.#lengthAddress, LENGTH_SIZE);
    vector.append(frame, length);
    return vector;
  }
}
