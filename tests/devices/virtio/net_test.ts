/** The network card, with real sockets as its backends. */
import assert from "node:assert/strict";
import { MAX_FRAME, openPort } from "../../../devices/net/port.ts";
import { DescriptorSlot } from "../../../devices/descriptor_slot.ts";
import { virtioNet } from "../../../devices/virtio/net.ts";
import { NetFeature, Queue } from "../../../devices/virtio/net_state.ts";
import { Feature, InterruptCause, Status } from "../../../devices/virtio/virtio_state.ts";
import { Errno } from "../../../ffi/errno.ts";
import { Epoll, makeEventfd } from "../../../ffi/event.ts";
import { type OwnedFd, readFd, writeFd } from "../../../ffi/fd.ts";
import { socketPair, type SocketType } from "../../../ffi/socket.ts";
import type { RigMode } from "../fake_context.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { bit, VirtioRig } from "./rig.ts";

const MAC = [0x52, 0x54, 0, 1, 2, 3];
/** Where receive buffers are, and frames to be sent. */
const ROOM = RAM + 0x8_0000;
const FRAMES = RAM + 0xe_0000;

/** How a card is connected: with or without a header before each frame, as a tap or a stream. */
type Kind = "tap" | "plain tap" | "stream";

/** A card, its driver, and the other end of its backend. */
class Card implements Disposable {
  readonly rig: VirtioRig;
  readonly peer: OwnedFd;
  readonly #ours: OwnedFd;
  readonly #wake = makeEventfd();
  readonly #kind: Kind;
  readonly slot = DescriptorSlot.allocate();
  rx!: TestDriver;
  tx!: TestDriver;
  control!: TestDriver;

  constructor(
    kind: Kind,
    mode: RigMode = "kept",
    packed = false,
    properties = {},
    isInherited = true,
  ) {
    this.#kind = kind;
    // A tap is read and written frame by frame, as such a socket is.
    const type: SocketType = kind === "stream" ? "stream" : "seqpacket";
    [this.#ours, this.peer] = socketPair(type, { nonblocking: true });
    this.slot.fd = this.#ours.fd;
    const port = openPort({
      kind: kind === "stream" ? "stream" : "tap",
      slot: this.slot.buffer,
      wake: this.#wake.fd,
      headerSize: kind === "tap" ? 12 : 0,
      isInherited,
    });
    const all = { packed, mac: "52:54:00:01:02:03", "vnet-hdr": kind === "tap", ...properties };
    this.rig = new VirtioRig(virtioNet, mode, all, undefined, port);
    this.#packed = packed;
  }

  readonly #packed: boolean;

  /** Sets the queues up. */
  start(features: bigint, size = 64): void {
    this.rig.negotiate(features | (this.#packed ? bit(Feature.RING_PACKED) : 0n));
    [this.rx, this.tx] = [Queue.RX, Queue.TX].map((index) => this.rig.setUp(index, size));
    if (features & bit(NetFeature.CTRL_VQ)) this.control = this.rig.setUp(Queue.CTRL, size);
    this.rig.start();
  }

  /** Gives the card receive buffers of these sizes, and tells it. */
  give(...sizes: number[]): number[] {
    let at = ROOM;
    const ids = sizes.map((length) => {
      const { id } = this.rx.add([{ gpa: at, length, writable: true }]);
      this.#buffers.set(id, at);
      at += length;
      return id;
    });
    this.rig.notify(Queue.RX);
    return ids;
  }

  readonly #buffers = new Map<number, number>();

  /** The frames that the driver has got, each with its header. */
  received(): { header: number[]; frame: Uint8Array; buffers: number }[] {
    const used = this.rx.take();
    const frames = [];
    while (used.length > 0) {
      const first = this.rig.ram.get(this.#buffers.get(used[0].id)!, 12);
      const buffers = first[10] | first[11] << 8;
      const parts = used.splice(0, buffers).map(({ id, written }) =>
        this.rig.ram.get(this.#buffers.get(id)!, written)
      );
      const whole = new Uint8Array(parts.flatMap((part) => [...part]));
      frames.push({ header: [...whole.subarray(0, 12)], frame: whole.slice(12), buffers });
    }
    return frames;
  }

  /** A frame comes from outside. */
  arrive(frame: Uint8Array, header: number[] = new Array(12).fill(0)): void {
    const bytes = this.#kind === "stream"
      ? [0, 0, frame.length >> 8, frame.length & 0xff, ...frame]
      : [...this.#kind === "tap" ? header : [], ...frame];
    assert.equal(writeFd(this.peer.fd, Uint8Array.from(bytes)), bytes.length);
    this.rig.context.rung.add(Queue.RX);
    this.rig.work();
  }

  /** The driver sends a frame, in two pieces, and lets the card work. */
  transmit(frame: Uint8Array, header: number[] = new Array(12).fill(0), gpa = FRAMES): number {
    this.rig.ram.put(gpa, Uint8Array.from([...header, ...frame]));
    const { id } = this.tx.add([{ gpa, length: 12 }, { gpa: gpa + 12, length: frame.length }]);
    this.rig.notify(Queue.TX);
    return id;
  }

  /** What has come out: a frame's bytes, without a tap's header. */
  sent(): Uint8Array | undefined {
    const buffer = new Uint8Array(MAX_FRAME + 16);
    try {
      const n = readFd(this.peer.fd, buffer);
      if (n <= 0) return undefined;
      return buffer.slice(this.#kind === "plain tap" ? 0 : this.#kind === "tap" ? 12 : 4, n);
    } catch (error) {
      if ((error as { code?: string }).code === "EAGAIN") return undefined;
      throw error;
    }
  }

  /** A command on the control queue; returns the answer. */
  command(...bytes: number[]): number {
    this.rig.ram.put(FRAMES, Uint8Array.from(bytes));
    const ack = FRAMES + 0x1000;
    this.rig.ram.put(ack, Uint8Array.of(0xee));
    this.control.add([{ gpa: FRAMES, length: bytes.length }, {
      gpa: ack,
      length: 1,
      writable: true,
    }]);
    this.rig.notify(Queue.CTRL);
    assert.equal(this.control.take().length, 1);
    return this.rig.ram.get(ack, 1)[0];
  }

  [Symbol.dispose](): void {
    this.#ours.close();
    this.peer.close();
    this.#wake.close();
  }
}

const frameOf = (length: number, seed = 1) =>
  Uint8Array.from({ length }, (_, i) => (i * 5 + seed) & 0xff);

/** Runs a test with every kind of backend, both kinds of ring, in every way in which devices run. */
function netTest(
  name: string,
  run: (card: Card, kind: Kind) => void,
  properties = {},
  kinds: readonly Kind[] = ["tap", "plain tap", "stream"],
): void {
  for (const kind of kinds) {
    for (const mode of ["kept", "shared", "saved"] as const) {
      for (const packed of [false, true]) {
        Deno.test(`${name} (${kind}, ${mode}, ${packed ? "packed" : "split"})`, () => {
          using card = new Card(kind, mode, packed, properties);
          run(card, kind);
        });
      }
    }
  }
}

netTest("frames come into single buffers, with a header", (card, kind) => {
  card.start(0n);
  card.give(1526, 1526, 1526);
  const header = kind === "tap" ? [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0xee, 0xee] : undefined;
  card.arrive(frameOf(60), header);
  card.arrive(frameOf(1514, 2));
  const [first, second, ...rest] = card.received();
  assert.deepEqual(rest, []);
  assert.deepEqual(first.frame, frameOf(60));
  assert.deepEqual(first.header, [...(header ?? new Array(10).fill(0)).slice(0, 10), 1, 0]);
  assert.deepEqual(second.frame, frameOf(1514, 2));
  assert.equal(card.rig.takeInterrupt(), InterruptCause.USED_BUFFER);
});

netTest("a long frame takes as many buffers as it needs, and says how many", (card) => {
  card.start(bit(NetFeature.MRG_RXBUF));
  card.give(...new Array(12).fill(1000));
  for (let i = 0; i < 2; i++) card.arrive(frameOf(4000, i));
  // There is room, but not for one as long as the last: the driver gets some time to make more.
  card.arrive(frameOf(100, 9));
  const frames = card.received();
  if (frames.length < 3) {
    card.rig.pass(199_000_000n);
    card.rig.work();
    assert.deepEqual(card.received(), []);
    card.rig.pass(1_000_000n);
    card.rig.work();
    frames.push(...card.received());
  }
  assert.deepEqual(frames.map(({ frame, buffers }) => [frame.length, buffers]), [
    [4000, 5],
    [4000, 5],
    [100, 1],
  ]);
  frames.slice(0, 2).forEach(({ frame }, i) => assert.deepEqual(frame, frameOf(4000, i)));
  assert.deepEqual(frames[2].frame, frameOf(100, 9));
});

netTest("a frame that no buffers can hold is lost, and the next one is not", (card) => {
  card.start(0n);
  card.give(100, 100);
  card.arrive(frameOf(500));
  card.arrive(frameOf(80, 3));
  assert.deepEqual(card.received().map(({ frame }) => frame), [frameOf(80, 3)]);
});

netTest(
  "a frame for which the driver's buffers are in too many pieces is lost, and the next one is not",
  (card) => {
    card.start(bit(NetFeature.MRG_RXBUF) | bit(Feature.INDIRECT_DESC), 128);
    const pieces = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ gpa: ROOM + 2 * i, length: 1, writable: true }));
    for (let i = 0; i < 2; i++) {
      // The tables of indirect descriptors have to be apart.
      card.rx.add(pieces(39));
      card.rx.add(pieces(600), true);
    }
    card.rig.notify(Queue.RX);
    card.arrive(frameOf(1400));
    card.arrive(frameOf(20, 3));
    card.rig.pass(200_000_000n);
    card.rig.work();
    assert.deepEqual(card.rx.take().map(({ written }) => written), [32]);
  },
  {},
  ["stream"],
);

Deno.test("a card with another connection than its predecessor's begins its frame anew", () => {
  for (const isInherited of [true, false]) {
    using card = new Card("stream", "kept", false, {}, isInherited);
    card.start(0n);
    for (let i = 0; i < 30; i++) card.transmit(new Uint8Array(40_000).fill(0xab));
    let [bytes, length] = [drain(card), 0];
    for (; bytes; bytes = drain(card)) length += bytes.length;
    assert.ok(length % 40_004 > 0);
    card.rig.call((device) => device.restored!());
    card.rig.context.rung.add(Queue.TX);
    card.rig.work();
    const next = drain(card)!.subarray(0, 4);
    const begin = [0, 0, 40_000 >> 8, 40_000 & 0xff];
    assert.deepEqual([...next], isInherited ? [0xab, 0xab, 0xab, 0xab] : begin);
  }
});

netTest("frames wait for buffers where they are, and none is lost", (card) => {
  card.start(bit(NetFeature.MRG_RXBUF));
  for (let i = 0; i < 5; i++) card.arrive(frameOf(60 + i, i));
  assert.deepEqual(card.received(), []);
  card.give(200, 200);
  assert.deepEqual(
    card.received().map(({ frame }) => frame),
    [frameOf(60), frameOf(61, 1)].map(
      (_, i) => frameOf(60 + i, i),
    ),
  );
  card.give(200, 200, 200);
  assert.deepEqual(card.received().map(({ frame }) => frame.length), [62, 63, 64]);
});

netTest("a thread that shall park begins no frame", (card) => {
  card.start(0n);
  card.give(200);
  card.rig.context.parking = true;
  card.arrive(frameOf(60));
  card.transmit(frameOf(60));
  assert.deepEqual([card.received(), card.sent()], [[], undefined]);
  card.rig.context.parking = false;
  card.rig.context.rung.add(Queue.RX).add(Queue.TX);
  card.rig.work();
  assert.equal(card.received().length, 1);
  assert.deepEqual(card.sent(), frameOf(60));
});

netTest("the driver's frames go out whole and in order", (card) => {
  card.start(0n);
  const lengths = [14, 60, 1514, 9000];
  lengths.forEach((length, i) => {
    const id = card.transmit(frameOf(length, i));
    assert.deepEqual(card.tx.take(), [{ id, written: 0 }]);
    assert.deepEqual(card.sent(), frameOf(length, i));
  });
});

netTest("what the backend takes no more waits in the ring, and goes in order", (card, kind) => {
  card.start(0n);
  // More than a socket holds.
  const count = 30;
  for (let i = 0; i < count; i++) card.transmit(frameOf(8000, i), undefined, FRAMES + 16 * i);
  let done = card.tx.take().length;
  assert.ok(done < count, "the socket holds everything");
  const received: number[] = [];
  let stream: number[] = [];
  // All frames lie in the same place, over one another: what counts is their number and length.
  for (let round = 0; done < count || received.length < count; round++) {
    assert.ok(round < 10_000, `${done} done, ${received.length} received`);
    for (let bytes = drain(card); bytes; bytes = drain(card)) {
      if (kind !== "stream") received.push(bytes.length - (kind === "tap" ? 12 : 0));
      else stream.push(...bytes);
    }
    while (stream.length >= 4 && stream.length >= 4 + lengthOf(stream)) {
      received.push(lengthOf(stream));
      stream = stream.slice(4 + lengthOf(stream));
    }
    card.rig.context.rung.add(Queue.TX);
    card.rig.work();
    done += card.tx.take().length;
  }
  assert.deepEqual(received, new Array(count).fill(8000));
  assert.deepEqual(stream, []);
});

const lengthOf = (stream: number[]) => stream[2] << 8 | stream[3];

/** What there is to be read at the other end. */
function drain(card: Card): Uint8Array | undefined {
  const buffer = new Uint8Array(MAX_FRAME);
  try {
    const n = readFd(card.peer.fd, buffer);
    return n > 0 ? buffer.slice(0, n) : undefined;
  } catch (error) {
    if ((error as { errno?: number }).errno === Errno.EAGAIN) return undefined;
    throw error;
  }
}

netTest(
  "a frame of which some has gone ends in zeros when the driver resets the card",
  (card) => {
    card.start(0n);
    for (let i = 0; i < 30; i++) {
      card.transmit(new Uint8Array(40_000).fill(0xab), undefined, FRAMES);
    }
    card.rig.ram.clear();
    card.start(0n);
    const stream: number[] = [];
    for (let round = 0; round < 200; round++) {
      for (let bytes = drain(card); bytes; bytes = drain(card)) stream.push(...bytes);
      card.rig.context.rung.add(Queue.TX);
      card.rig.work();
    }
    let frames = 0;
    let at = 0;
    for (; at < stream.length; at += 40_004) {
      assert.deepEqual(stream.slice(at, at + 4), [0, 0, 40_000 >> 8, 40_000 & 0xff]);
      frames++;
    }
    assert.equal(at, stream.length);
    assert.ok(frames > 1 && frames < 30);
    assert.equal(stream.at(-1), 0);
    card.transmit(frameOf(60, 7));
    assert.deepEqual(card.sent(), frameOf(60, 7));
  },
  {},
  ["stream"],
);

netTest("with the cable out nothing comes and nothing goes, and the driver is told", (card) => {
  const status = () => card.rig.get(0x100 + 4) >>> 16;
  card.start(bit(NetFeature.STATUS));
  card.give(200, 200);
  assert.equal(status(), 1);
  const generation = card.rig.get(0xfc);
  card.rig.call((device) => device.setLink!(false));
  card.rig.work();
  assert.equal(status(), 0);
  assert.notEqual(card.rig.get(0xfc), generation);
  assert.equal(card.rig.takeInterrupt(), InterruptCause.CONFIG_CHANGE);
  card.arrive(frameOf(60));
  card.transmit(frameOf(60));
  assert.deepEqual([card.received(), card.sent()], [[], undefined]);
  assert.equal(card.tx.take().length, 1);
  card.rig.call((device) => device.setLink!(true));
  card.rig.work();
  assert.equal(status(), 1);
  card.arrive(frameOf(61));
  assert.deepEqual(card.received().map(({ frame }) => frame), [frameOf(61)]);
});

netTest("the card has an address, an MTU, and one pair of queues", (card) => {
  card.start(0n);
  const config = Array.from({ length: 12 }, (_, i) => card.rig.read(0x100 + i, 1));
  assert.deepEqual(config, [...MAC, 1, 0, 1, 0, 9000 & 0xff, 9000 >> 8]);
}, { host_mtu: 9000 });

const control = bit(NetFeature.CTRL_VQ) | bit(NetFeature.CTRL_RX) | bit(NetFeature.CTRL_VLAN) |
  bit(NetFeature.CTRL_MAC_ADDR);

netTest("commands are answered, and those that make no sense refused", (card) => {
  card.start(control);
  const word = (value: number) => [value, 0, 0, 0];
  const cases: [number[], number][] = [
    [[0, 0, 1], 0],
    [[0, 5, 0], 0],
    [[0, 6, 0], 1],
    [[0, 0], 1],
    [[1, 0, ...word(1), ...MAC, ...word(0)], 0],
    [[1, 0, ...word(2), ...MAC, ...word(0)], 1],
    [[1, 0, 0xff, 0xff, 0xff, 0xff], 1],
    [[1, 2, ...MAC], 1],
    [[1, 1, ...MAC.slice(1)], 1],
    [[2, 0, 5, 0], 0],
    [[2, 1, 0xff, 0x0f], 0],
    [[2, 0, 0, 0x10], 1],
    [[5, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1],
    [[4, 0, 1, 0], 1],
    [[9, 9], 1],
    [[1, 0, ...new Array(2000).fill(0)], 1],
  ];
  for (const [bytes, answer] of cases) {
    assert.equal(card.command(...bytes), answer, bytes.slice(0, 16).join());
  }
});

netTest("the driver changes the address, until it resets the card", (card) => {
  card.start(control);
  assert.equal(card.command(1, 1, 2, 4, 6, 8, 10, 12), 0);
  const mac = () => Array.from({ length: 6 }, (_, i) => card.rig.read(0x100 + i, 1));
  assert.deepEqual(mac(), [2, 4, 6, 8, 10, 12]);
  card.rig.ram.clear();
  card.start(control);
  assert.deepEqual(mac(), MAC);
});

Deno.test("features that change frames are offered where frames have headers", () => {
  const changing = [0, 1, 2, 7, 8, 9, 11, 12, 13].reduce((bits, one) => bits | bit(one), 0n);
  using tap = new Card("tap");
  assert.equal(tap.rig.offered() & changing, changing);
  using plain = new Card("plain tap");
  assert.equal(plain.rig.offered() & changing, 0n);
  using less = new Card("tap", "kept", false, { guest_tso4: false, mrg_rxbuf: false });
  const off = bit(NetFeature.GUEST_TSO4) | bit(NetFeature.MRG_RXBUF);
  assert.equal(less.rig.offered() & off, 0n);
});

Deno.test("what the backend is told the guest takes follows the driver's features and commands", () => {
  using card = new Card("tap");
  const told: number[] = [];
  const port = card.rig.context.netdev!;
  port.setOffload = (offload) => void told.push(offload);
  const { CTRL_VQ, GUEST_CSUM, GUEST_TSO4, CTRL_GUEST_OFFLOADS } = NetFeature;
  card.start([CTRL_VQ, GUEST_CSUM, GUEST_TSO4, CTRL_GUEST_OFFLOADS].reduce(
    (bits, one) => bits | bit(one),
    0n,
  ));
  assert.equal(card.command(5, 0, 2, 0, 0, 0, 0, 0, 0, 0), 0);
  assert.equal(card.command(5, 0, 0, 1, 0, 0, 0, 0, 0, 0), 1);
  card.rig.ram.clear();
  card.start(0n);
  assert.deepEqual(told, [3, 1, 0]);
});

Deno.test("the connection's end is told once, and another one is used", () => {
  using card = new Card("stream");
  card.start(0n);
  card.give(200, 200);
  const [[fd, watch]] = card.rig.context.watched;
  assert.equal(fd, card.slot.fd);
  assert.equal(watch.events & Epoll.IN, Epoll.IN);
  card.peer.close();
  watch.ready(Epoll.IN);
  assert.equal(card.slot.fd, undefined);
  assert.equal(card.rig.context.watched.size, 0);
  card.transmit(frameOf(60));
  assert.equal(card.tx.take().length, 1);
  const [ours, theirs] = socketPair("stream", { nonblocking: true });
  using _ours = ours;
  using other = theirs;
  card.slot.fd = ours.fd;
  card.rig.call((device) => device.connected!());
  card.rig.work();
  writeFd(other.fd, Uint8Array.of(0, 0, 0, 2, 7, 8));
  card.rig.context.watched.get(ours.fd)!.ready(Epoll.IN);
  assert.deepEqual(card.received().map(({ frame }) => [...frame]), [[7, 8]]);
});

Deno.test("a card that waits for its backend is told when that takes more", () => {
  using card = new Card("stream");
  card.start(0n);
  for (let i = 0; i < 30; i++) card.transmit(frameOf(8000));
  const watch = card.rig.context.watched.get(card.slot.fd!)!;
  assert.equal(watch.events & Epoll.OUT, Epoll.OUT);
  while (
    card.tx.take().length > 0 || card.rig.context.watched.get(card.slot.fd!)!.events & Epoll.OUT
  ) {
    while (drain(card));
    watch.ready(Epoll.OUT);
  }
  assert.equal(watch.events & Epoll.OUT, 0);
});

Deno.test("a card without a network takes what is sent", () => {
  const rig = new VirtioRig(virtioNet, "kept", { mac: "52:54:00:01:02:03" });
  rig.negotiate(0n);
  rig.setUp(0);
  const tx = rig.setUp(1);
  rig.start();
  tx.add([{ gpa: FRAMES, length: 100 }]);
  rig.notify(1);
  assert.equal(tx.take().length, 1);
});

netTest("buffers without room for a header stop the card until it is reset", (card) => {
  for (const queue of [Queue.RX, Queue.TX]) {
    card.rig.ram.clear();
    card.start(0n);
    if (queue === Queue.RX) card.rx.add([{ gpa: ROOM, length: 11, writable: true }]);
    else card.tx.add([{ gpa: FRAMES, length: 11 }]);
    if (queue === Queue.RX) card.arrive(frameOf(60));
    card.rig.notify(queue);
    assert.notEqual(card.rig.get(0x70) & Status.NEEDS_RESET, 0, `queue ${queue}`);
  }
  card.rig.ram.clear();
  card.start(0n);
  assert.equal(card.rig.get(0x70) & Status.NEEDS_RESET, 0);
});

Deno.test("addresses and sizes that make no sense are refused", () => {
  const make = (properties: Record<string, string | number>) => () =>
    new VirtioRig(virtioNet, "kept", { mac: "52:54:00:01:02:03", ...properties });
  assert.throws(make({ mac: "52:54:00:01:02" }), {
    message: "Property 'virtio-net-device.mac' doesn't take value '52:54:00:01:02'",
  });
  assert.throws(make({ rx_queue_size: 300 }), {
    message: "Invalid rx_queue_size (= 300), must be a power of 2 between 256 and 1024.",
  });
});
