/** A network card with several pairs of queues, with sockets as its backend's queues. */
import assert from "node:assert/strict";
import { type NetPort, openPort } from "../../../devices/net/port.ts";
import { DescriptorSlot } from "../../../devices/descriptor_slot.ts";
import { virtioNet } from "../../../devices/virtio/net.ts";
import { FurtherPair, NetFeature, netState } from "../../../devices/virtio/net_state.ts";
import { Feature } from "../../../devices/virtio/virtio_state.ts";
import { type OwnedFd, readFd, writeFd } from "../../../ffi/fd.ts";
import { socketPair } from "../../../ffi/socket.ts";
import type { RigMode } from "../fake_context.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { bit, VirtioRig } from "./rig.ts";

const PAIRS = 3;
const HEADER = 12;
const ROOM = RAM + 0x8_0000;
const FRAMES = RAM + 0xe_0000;
const ACK = FRAMES + 0x1000;
/** Class and command of VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET (virtio 1.2, 5.1.6.5.5). */
const SET_PAIRS = [4, 0];

/** A card with three pairs, and the other ends of its backend's queues. */
class Card implements Disposable {
  readonly rig: VirtioRig;
  readonly peers: OwnedFd[] = [];
  /** What each queue of the backend was told last. */
  readonly used: (boolean | undefined)[] = Array(PAIRS).fill(undefined);
  readonly drivers = new Map<number, TestDriver>();
  readonly #ours: OwnedFd[] = [];

  constructor(mode: RigMode = "kept", packed = false, features = bit(NetFeature.MQ), mq = true) {
    const slots = Array.from({ length: PAIRS }, () => {
      const [ours, peer] = socketPair("seqpacket", { nonblocking: true });
      this.#ours.push(ours);
      this.peers.push(peer);
      const slot = DescriptorSlot.allocate();
      slot.fd = ours.fd;
      return slot.buffer;
    });
    const [slot, ...more] = slots;
    const port: NetPort = openPort({ kind: "tap", slot, more, wake: -1, headerSize: HEADER });
    for (const [i, one] of port.more!.entries()) {
      one.setUsed = (isUsed) => this.used[i + 1] = isUsed;
    }
    const properties = {
      ...{ packed, mac: "52:54:00:01:02:03", "vnet-hdr": true },
      ...{ mq, "queue-pairs": mq ? PAIRS : 1 },
    };
    this.rig = new VirtioRig(virtioNet, mode, properties, undefined, port);
    const control = bit(NetFeature.CTRL_VQ);
    this.rig.negotiate(features | control | (packed ? bit(Feature.RING_PACKED) : 0n));
  }

  /** Sets queues up, and starts the card. */
  start(...queues: number[]): void {
    for (const index of queues) this.drivers.set(index, this.rig.setUp(index));
    this.rig.start();
  }

  /** Gives a receive queue a buffer. */
  give(queue: number): void {
    this.drivers.get(queue)!.add([{ gpa: ROOM + 0x1000 * queue, length: 200, writable: true }]);
    this.rig.notify(queue);
  }

  /** A frame of a number comes by a queue of the backend's. */
  arrive(number: number, seed: number): void {
    const frame = new Uint8Array(HEADER + 60).fill(seed, HEADER);
    assert.equal(writeFd(this.peers[number].fd, frame), frame.length);
    this.rig.context.rung.add(2 * number);
    this.rig.work();
  }

  /** What came to a receive queue: the first byte of each frame. */
  received(queue: number): number[] {
    return this.drivers.get(queue)!.take().map(() =>
      this.rig.ram.get(ROOM + 0x1000 * queue + HEADER, 1)[0]
    );
  }

  /** The driver sends a frame by a queue. */
  transmit(queue: number, seed: number): void {
    this.rig.ram.put(FRAMES, new Uint8Array(HEADER + 60).fill(seed, HEADER));
    this.drivers.get(queue)!.add([{ gpa: FRAMES, length: HEADER + 60 }]);
    this.rig.notify(queue);
    assert.equal(this.drivers.get(queue)!.take().length, 1);
  }

  /** By which of the backend's queues a frame went, and its first byte. */
  sent(): [queue: number, byte: number][] {
    const buffer = new Uint8Array(200);
    return this.peers.flatMap(({ fd }, i): [number, number][] => {
      try {
        return readFd(fd, buffer) > HEADER ? [[i, buffer[HEADER]]] : [];
      } catch (error) {
        assert.equal((error as { code?: string }).code, "EAGAIN");
        return [];
      }
    });
  }

  command(queue: number, ...bytes: number[]): number {
    this.rig.ram.put(FRAMES, Uint8Array.from(bytes));
    this.rig.ram.put(ACK, Uint8Array.of(0xee));
    this.drivers.get(queue)!.add([
      { gpa: FRAMES, length: bytes.length },
      { gpa: ACK, length: 1, writable: true },
    ]);
    this.rig.notify(queue);
    assert.equal(this.drivers.get(queue)!.take().length, 1);
    return this.rig.ram.get(ACK, 1)[0];
  }

  [Symbol.dispose](): void {
    for (const fd of [...this.#ours, ...this.peers]) fd.close();
  }
}

function queuesTest(name: string, run: (how: [RigMode, boolean]) => void): void {
  for (const mode of ["kept", "shared", "saved"] as const) {
    for (const packed of [false, true]) {
      Deno.test(`${name} (${mode}, ${packed ? "packed" : "split"})`, () => run([mode, packed]));
    }
  }
}

Deno.test("a card offers as many pairs as its backend has queues, if it is told to", () => {
  using card = new Card();
  assert.notEqual(card.rig.offered() & bit(NetFeature.MQ), 0n);
  assert.equal(card.rig.read(0x100 + 8, 2), PAIRS);
  using other = new Card("kept", false, 0n, false);
  assert.equal(other.rig.offered() & bit(NetFeature.MQ), 0n);
  assert.equal(other.rig.read(0x100 + 8, 2), 1);
  other.start(0, 1, 2);
  // Whose frames would be nobody's.
  assert.deepEqual(other.used, [undefined, false, false]);
});

queuesTest("each pair in use has a queue of the backend's, and the others get nothing", (how) => {
  using card = new Card(...how);
  const control = 2 * PAIRS;
  card.start(0, 1, 2, 3, 4, 5, control);
  assert.deepEqual(card.used, [undefined, false, false]);
  for (const queue of [0, 2, 4]) card.give(queue);
  card.arrive(0, 7);
  card.arrive(1, 8);
  assert.deepEqual([0, 2, 4].map((queue) => card.received(queue)), [[7], [], []]);
  assert.equal(card.command(control, ...SET_PAIRS, 2, 0), 0);
  assert.deepEqual(card.used, [undefined, true, false]);
  // What came meanwhile is there.
  card.rig.notify(2);
  card.arrive(2, 9);
  assert.deepEqual([0, 2, 4].map((queue) => card.received(queue)), [[], [8], []]);
  card.transmit(1, 30);
  card.transmit(3, 31);
  assert.deepEqual(card.sent(), [[0, 30], [1, 31]]);
  assert.equal(card.command(control, ...SET_PAIRS, 3, 0), 0);
  card.rig.notify(4);
  assert.deepEqual(card.received(4), [9]);
  assert.deepEqual(card.used, [undefined, true, true]);
  for (const wrong of [[0, 0], [4, 0], [0, 1], [1], [1, 0, 0]]) {
    assert.equal(card.command(control, ...SET_PAIRS, ...wrong), 1, wrong.join());
  }
  assert.equal(card.command(control, 4, 1, 1, 0), 1);
  assert.deepEqual(card.used, [undefined, true, true]);
  // A reset leaves one.
  card.rig.negotiate(bit(NetFeature.MQ) | bit(NetFeature.CTRL_VQ));
  card.rig.ram.clear();
  card.start(0);
  card.rig.notify(0);
  assert.deepEqual(card.used, [undefined, false, false]);
});

queuesTest("a driver that knows one pair finds the control queue behind it", (how) => {
  using card = new Card(...how, 0n);
  card.start(0, 1, 2, 3);
  assert.equal(card.command(2, 0, 0, 1), 0);
  assert.equal(card.command(2, ...SET_PAIRS, 1, 0), 1);
  // Nothing is there to look at further queues for.
  card.drivers.get(3)!.add([{ gpa: FRAMES, length: 72 }]);
  card.rig.notify(3);
  assert.equal(card.drivers.get(3)!.take().length, 0);
  card.give(0);
  card.arrive(0, 5);
  assert.deepEqual(card.received(0), [5]);
  card.transmit(1, 6);
  assert.deepEqual(card.sent(), [[0, 6]]);
});

Deno.test("each pair was waited for by itself", () => {
  const { view } = netState.alloc({ more_hasty: 0xffff });
  const [first, second] = [new FurtherPair(view, 1), new FurtherPair(view, 15)];
  assert.deepEqual([first.rx_hasty, second.rx_hasty], [1, 1]);
  second.rx_hasty = 0;
  assert.deepEqual([first.rx_hasty, second.rx_hasty, view.more_hasty], [1, 0, 0x7fff]);
  first.rx_hasty = 0;
  first.rx_hasty = 1;
  assert.equal(view.more_hasty, 0x7fff);
  view.link_down = 1;
  assert.equal(first.link_down, 1);
});
