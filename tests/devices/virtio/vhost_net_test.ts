/** A network card whose queues the kernel serves: what the kernel is told, when, and what if it fails. */
import assert from "node:assert/strict";
import { noLimits, ThrottleGroup } from "../../../devices/block/throttle.ts";
import { type NetPort, openPort } from "../../../devices/net/port.ts";
import { DescriptorSlot } from "../../../devices/descriptor_slot.ts";
import { virtioNet } from "../../../devices/virtio/net.ts";
import { NetFeature, Queue } from "../../../devices/virtio/net_state.ts";
import { VHOST_WORDS } from "../../../devices/virtio/vhost_rings.ts";
import { Feature, InterruptCause, Status } from "../../../devices/virtio/virtio_state.ts";
import { Errno } from "../../../ffi/errno.ts";
import { drainEvent, Epoll, makeEventfd, signalEventfd } from "../../../ffi/event.ts";
import { type OwnedFd, readFd, writeFd } from "../../../ffi/fd.ts";
import { socketPair } from "../../../ffi/socket.ts";
import { FIRST_DOORBELL, type RigMode } from "../fake_context.ts";
import { DESC, DEVICE, DRIVER, RAM, RAM_SIZE, type TestDriver } from "./drivers.ts";
import { FakeVhost } from "./fake_vhost.ts";
import { PciRig } from "./pci_rig.ts";
import { bit, VirtioRig } from "./rig.ts";

/** What a kernel has: rings of virtio 1 with all but packed ones, and mergeable buffers. */
const HAS = [
  Feature.INDIRECT_DESC,
  Feature.EVENT_IDX,
  Feature.VERSION_1,
  Feature.RING_RESET,
  NetFeature.MRG_RXBUF,
].reduce((bits, feature) => bits | bit(feature), 0n);
const HEADER = 12;
const FRAMES = RAM + 0xe_0000;
const ROOM = RAM + 0x8_0000;

interface Options {
  readonly mode?: RigMode;
  readonly pairs?: number;
  readonly headerSize?: number;
  readonly kernel?: FakeVhost;
  readonly features?: bigint;
  /** Whether it is a PCI function. */
  readonly pci?: boolean;
}

/** A card with a socket in a tap's place, and a kernel that says what it is told. */
class Card implements Disposable {
  readonly rig: VirtioRig;
  readonly kernels: FakeVhost[];
  readonly peers: OwnedFd[] = [];
  readonly taps: OwnedFd[] = [];
  readonly calls: OwnedFd[] = [];
  readonly drivers: TestDriver[] = [];
  readonly throttle = new ThrottleGroup();

  constructor(
    { mode = "kept", pairs = 1, headerSize = HEADER, kernel, features = 0n, pci = false }: Options =
      {},
  ) {
    this.kernels = Array.from({ length: pairs }, () => kernel ?? new FakeVhost(HAS));
    const ports = this.kernels.map((kernel) => this.#port(kernel, headerSize));
    const { throttle } = this;
    const port: NetPort = Object.assign(ports[0], { more: ports.slice(1), throttle });
    const properties = {
      "vnet-hdr": headerSize > 0,
      ...{ mq: pairs > 1, "queue-pairs": pairs, packed: true },
    };
    this.rig = pci
      ? new PciRig(virtioNet, mode, properties, undefined, port)
      : new VirtioRig(virtioNet, mode, properties, undefined, port);
    this.rig.negotiate(features | (pairs > 1 ? bit(NetFeature.MQ) | bit(NetFeature.CTRL_VQ) : 0n));
    this.setUp(pairs);
  }

  /** Sets up the queues of so many pairs. */
  setUp(pairs = 1): void {
    this.drivers.splice(0);
    for (let i = 0; i < 2 * pairs + (pairs > 1 ? 1 : 0); i++) this.drivers.push(this.rig.setUp(i));
  }

  #port(kernel: FakeVhost, headerSize: number): NetPort {
    const [ours, peer] = socketPair("seqpacket", { nonblocking: true });
    this.taps.push(ours);
    this.peers.push(peer);
    const calls = [makeEventfd(), makeEventfd()] as const;
    this.calls.push(...calls);
    const slot = DescriptorSlot.allocate();
    slot.fd = ours.fd;
    const port = openPort({ kind: "tap", slot: slot.buffer, wake: -1, headerSize });
    const vhost = {
      ...{ device: kernel.device, features: kernel.features },
      calls: [calls[0].fd, calls[1].fd] as const,
      words: new SharedArrayBuffer(VHOST_WORDS),
    };
    return Object.assign(port, { vhost, setUsed: () => {} });
  }

  /** What the kernel was told since. */
  told(pair = 0): string[] {
    return this.kernels[pair].take();
  }

  /** The kernel, or whoever halts it, signals a call eventfd; the I/O thread looks at those that are. */
  call(index?: number): void {
    if (index !== undefined) signalEventfd(this.calls[index].fd);
    for (const { fd } of this.calls) {
      // Level-triggered: told of it for as long as it is there.
      if (!drainEvent(fd)) continue;
      signalEventfd(fd);
      this.rig.context.watched.get(fd)!.ready(Epoll.IN);
    }
    this.rig.work();
  }

  /** Whether the I/O thread hears the doorbells of the first pair. */
  get hears(): boolean {
    const left = [Queue.RX, Queue.TX].map((queue) =>
      this.rig.context.left.has(FIRST_DOORBELL + queue)
    );
    assert.equal(left[0], left[1]);
    return !left[0];
  }

  /** The driver sends a frame by the first pair. */
  transmit(seed: number): void {
    this.rig.ram.put(FRAMES, new Uint8Array(HEADER + 60).fill(seed, HEADER));
    this.drivers[Queue.TX].add([{ gpa: FRAMES, length: HEADER + 60 }]);
    this.rig.notify(Queue.TX);
  }

  /** The first byte of the frame that has come out, if one has. */
  sent(): number | undefined {
    const buffer = new Uint8Array(200);
    try {
      return readFd(this.peers[0].fd, buffer) > HEADER ? buffer[HEADER] : undefined;
    } catch (error) {
      assert.equal((error as { code?: string }).code, "EAGAIN");
    }
  }

  [Symbol.dispose](): void {
    for (const fd of [...this.peers, ...this.taps, ...this.calls]) fd.close();
  }
}

/** What a kernel is told to serve a card from the beginning. */
function beginning(card: Card, features: bigint, bases = [0, 0], isOwned = false): string[] {
  const [{ gpa, size, address }] = card.rig.ram.ranges;
  const hex = (value: number | bigint) => `0x${value.toString(16)}`;
  const at = (area: number, queue: number) => area - RAM + 0x1_0000 * queue + address;
  return [
    ...isOwned ? [] : ["SET_OWNER"],
    `SET_FEATURES ${hex(features)}`,
    `SET_MEM_TABLE ${hex(gpa)}+${hex(size)}=${hex(address)}`,
    ...[Queue.RX, Queue.TX].flatMap((queue) => [
      `SET_VRING_NUM ${queue} 8`,
      `SET_VRING_BASE ${queue} ${bases[queue]}`,
      `SET_VRING_ADDR ${queue} ${at(DESC, queue)} ${at(DRIVER, queue)} ${at(DEVICE, queue)}`,
      `SET_VRING_KICK ${queue} ${FIRST_DOORBELL + queue}`,
      `SET_VRING_CALL ${queue} ${card.calls[queue].fd}`,
    ]),
    ...[Queue.RX, Queue.TX].map((queue) => `NET_SET_BACKEND ${queue} ${card.taps[0].fd}`),
  ];
}

const ENDING = [
  ...["NET_SET_BACKEND 0 -1", "NET_SET_BACKEND 1 -1"],
  ...["GET_VRING_BASE 0", "GET_VRING_BASE 1"],
];

Deno.test("a card offers what its kernel has, and all the rest of its own", () => {
  const without = HAS & ~bit(Feature.EVENT_IDX) & ~bit(NetFeature.MRG_RXBUF);
  for (const has of [HAS, without, HAS | bit(Feature.RING_PACKED)]) {
    using card = new Card({ kernel: new FakeVhost(has) });
    const offered = card.rig.offered();
    for (const feature of [Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.RING_PACKED]) {
      assert.equal(offered & bit(feature), has & bit(feature));
    }
    assert.equal(offered & bit(NetFeature.MRG_RXBUF), has & bit(NetFeature.MRG_RXBUF));
    for (const feature of [NetFeature.CSUM, NetFeature.STATUS, NetFeature.GUEST_TSO4]) {
      assert.notEqual(offered & bit(feature), 0n);
    }
  }
});

for (const mode of ["kept", "shared", "saved"] as const) {
  Deno.test(`the kernel serves a card from DRIVER_OK to its reset (${mode})`, () => {
    const features = bit(Feature.EVENT_IDX) | bit(NetFeature.MRG_RXBUF) | bit(NetFeature.CSUM);
    using card = new Card({ mode, features });
    assert.deepEqual(card.told(), []);
    card.rig.start();
    const kernel = bit(Feature.VERSION_1) | bit(Feature.EVENT_IDX) | bit(NetFeature.MRG_RXBUF);
    assert.deepEqual(card.told(), beginning(card, kernel));
    assert.equal(card.hears, false);
    // What nobody else tells it of: there may have been requests before.
    card.transmit(7);
    assert.equal(card.sent(), undefined, "the VMM serves as well");
    assert.deepEqual(card.told(), []);
    card.call(Queue.TX);
    assert.equal(card.rig.takeInterrupt(), InterruptCause.USED_BUFFER);
    assert(card.rig.ram.changes > 0, "a guest's code is not compared");
    card.rig.set(0x70, 0);
    assert.deepEqual(card.told(), ENDING);
    assert.equal(card.rig.get(0x60), 0);
    card.call();
    assert.equal(card.hears, true);
    // The next driver finds the kernel again.
    card.rig.negotiate(0n);
    card.setUp();
    card.rig.start();
    assert.deepEqual(card.told(), beginning(card, bit(Feature.VERSION_1), [0, 0], true));
    assert.equal(card.hears, false);
    assert.deepEqual(card.rig.context.warnings, []);
  });
}

Deno.test("the kernel makes up the header that a tap has not", () => {
  using card = new Card({ headerSize: 0 });
  card.rig.start();
  assert.equal(
    card.told()[1],
    `SET_FEATURES 0x${(bit(Feature.VERSION_1) | 1n << 27n).toString(16)}`,
  );
});

Deno.test("a thread that rests has taken the queues back, and given the kernel's device up", () => {
  using card = new Card();
  card.rig.start();
  card.told();
  const [kernel] = card.kernels;
  kernel.bases.push(5, 3);
  for (const [queue, used] of [[Queue.RX, 5], [Queue.TX, 2]]) {
    card.rig.ram.data.setUint16(DEVICE - RAM + 0x1_0000 * queue + 2, used, true);
  }
  // It has called, and the I/O thread has not come to that.
  signalEventfd(card.calls[Queue.RX].fd);
  card.rig.device.rest!();
  assert.deepEqual(card.told(), [...ENDING, "RESET_OWNER"]);
  assert.equal(card.rig.takeInterrupt(), InterruptCause.USED_BUFFER);
  assert.equal(card.hears, true);
  // Once more there is nothing to be done, and no interrupt.
  card.rig.device.rest!();
  assert.deepEqual(card.told(), []);
  assert.equal(card.rig.takeInterrupt(), 0);
  // A successor, or this VMM where the update has failed, goes on from there.
  using successor = new Card({ kernel });
  successor.rig.ram.bytes.set(card.rig.ram.bytes);
  successor.rig.load(card.rig.bytes);
  for (const queue of [Queue.RX, Queue.TX]) successor.rig.context.rung.add(queue);
  successor.rig.work();
  assert.deepEqual(successor.told(), beginning(successor, bit(Feature.VERSION_1), [5, 3]));
  successor.rig.device.rest!();
  assert.equal(successor.told().at(-1), "RESET_OWNER");
  for (const queue of [Queue.RX, Queue.TX]) card.rig.context.rung.add(queue);
  card.rig.work();
  assert.deepEqual(card.told(), beginning(card, bit(Feature.VERSION_1), [5, 3]));
});

const STEPS = ["SET_OWNER", "SET_FEATURES", "SET_MEM_TABLE", "SET_VRING_NUM", "SET_VRING_BASE"]
  .concat("SET_VRING_ADDR", "SET_VRING_KICK", "SET_VRING_CALL", "NET_SET_BACKEND");
for (const name of STEPS) {
  Deno.test(`the VMM serves the queues itself where the kernel fails at ${name}`, () => {
    using card = new Card();
    card.kernels[0].failing = { name, errno: Errno.EBUSY };
    card.rig.start();
    assert.match(
      card.rig.context.warnings.join(),
      /^virtio-net-device: unable to start vhost net: falling back on userspace virtio: VHOST_\w+ 1000100: Device or resource busy$/,
    );
    assert.equal(card.hears, true);
    card.transmit(9);
    assert.equal(card.sent(), 9);
    card.told();
    // It is not tried again at every frame, but when the driver or the VMM is another.
    card.transmit(10);
    assert.deepEqual(card.told(), []);
    card.kernels[0].failing = undefined;
    card.rig.device.rest!();
    card.told();
    card.transmit(11);
    assert.deepEqual(card.told().at(-1), `NET_SET_BACKEND 1 ${card.taps[0].fd}`);
    assert.equal(card.rig.context.warnings.length, 1);
  });
}

Deno.test("a kernel that lacks what the driver has accepted serves nothing", () => {
  using card = new Card({ features: bit(Feature.EVENT_IDX), kernel: new FakeVhost(HAS) });
  const other = new FakeVhost(HAS & ~bit(Feature.EVENT_IDX));
  using successor = new Card({ kernel: other });
  successor.rig.ram.bytes.set(card.rig.ram.bytes);
  card.rig.set(0x70, card.rig.get(0x70) | Status.DRIVER_OK);
  successor.rig.load(card.rig.bytes);
  successor.rig.context.rung.add(Queue.TX);
  successor.rig.work();
  assert.deepEqual(other.take(), ["SET_OWNER"]);
  assert.equal(successor.rig.context.warnings.length, 1);
  assert.match(successor.rig.context.warnings[0], /VHOST_SET_FEATURES: Operation not supported$/);
});

Deno.test("a kernel that does not say how far it is has all that is unanswered done again", () => {
  using card = new Card();
  card.rig.start();
  card.kernels[0].failing = { name: "GET_VRING_BASE", errno: Errno.EPERM };
  card.rig.ram.data.setUint16(DEVICE - RAM + 0x1_0000 * Queue.TX + 2, 4, true);
  card.rig.device.rest!();
  card.kernels[0].failing = undefined;
  card.told();
  card.rig.context.rung.add(Queue.TX);
  card.rig.work();
  assert.deepEqual(card.told(), beginning(card, bit(Feature.VERSION_1), [0, 4]));
  assert.deepEqual(card.rig.context.warnings.map((text) => text.replace(/\d{4,}/, "FD")), [
    "virtio-net-device: vhost VQ 0 ring restore failed: VHOST_GET_VRING_BASE FD: Operation not permitted",
    "virtio-net-device: vhost VQ 1 ring restore failed: VHOST_GET_VRING_BASE FD: Operation not permitted",
  ]);
});

Deno.test("a ring that is none is not shown to the kernel: the device needs a reset", () => {
  using card = new Card();
  card.rig.set(0x30, Queue.TX);
  card.rig.set(0x44, 0);
  card.rig.set(0x80, RAM + RAM_SIZE);
  card.rig.set(0x44, 1);
  card.rig.start();
  assert.deepEqual(card.told(), []);
  assert.notEqual(card.rig.get(0x70) & Status.NEEDS_RESET, 0);
});

Deno.test("a cable that is out is the VMM's, until it is in again", () => {
  using card = new Card();
  card.rig.start();
  card.told();
  card.rig.call((device) => device.setLink!(false));
  assert.deepEqual(card.told(), ENDING);
  card.call();
  assert.equal(card.hears, true);
  card.transmit(1);
  assert.equal(card.sent(), undefined);
  assert.deepEqual(card.told(), []);
  card.rig.call((device) => device.setLink!(true));
  card.rig.work();
  // What was sent meanwhile is lost, as by a cable that is out.
  assert.deepEqual(card.told(), beginning(card, bit(Feature.VERSION_1), [0, 1], true));
});

Deno.test("a queue that is reset by itself is taken from the kernel, which goes on with the other", () => {
  using card = new Card({ features: bit(Feature.RING_RESET) });
  card.rig.start();
  card.told();
  card.rig.set(0x30, Queue.TX);
  card.rig.set(0xc0, 1);
  assert.deepEqual(card.told(), ENDING);
  card.call();
  const calls = card.told();
  assert.equal(calls.at(-1), `NET_SET_BACKEND 0 ${card.taps[0].fd}`);
  assert(!calls.some((call) => call.startsWith("SET_VRING_NUM 1")));
});

Deno.test("the kernel serves those pairs that the driver uses", () => {
  using card = new Card({ pairs: 3 });
  const control = 6;
  const use = (pairs: number) => {
    card.rig.ram.put(FRAMES, Uint8Array.of(4, 0, pairs, 0));
    card.drivers[control].add([
      { gpa: FRAMES, length: 4 },
      { gpa: ROOM, length: 1, writable: true },
    ]);
    card.rig.notify(control);
    assert.equal(card.drivers[control].take().length, 1);
  };
  const backends = () =>
    card.kernels.map((_, pair) =>
      card.told(pair).filter((call) => call.startsWith("NET_SET_BACKEND"))
    );
  const tap = (pair: number) =>
    [0, 1].map((ring) => `NET_SET_BACKEND ${ring} ${card.taps[pair].fd}`);
  const none = ["NET_SET_BACKEND 0 -1", "NET_SET_BACKEND 1 -1"];
  card.rig.start();
  assert.deepEqual(backends(), [tap(0), [], []]);
  use(3);
  assert.deepEqual(backends(), [[], tap(1), tap(2)]);
  use(2);
  assert.deepEqual(backends(), [[], [], none]);
  card.rig.device.rest!();
  assert.deepEqual(backends(), [none, none, []]);
});

Deno.test("frames that come while the VMM serves are received by it", () => {
  using card = new Card();
  card.kernels[0].failing = { name: "SET_OWNER", errno: Errno.EBUSY };
  card.rig.start();
  card.drivers[Queue.RX].add([{ gpa: ROOM, length: 200, writable: true }]);
  card.rig.notify(Queue.RX);
  writeFd(card.peers[0].fd, new Uint8Array(HEADER + 60).fill(3));
  card.rig.context.watched.get(card.taps[0].fd)!.ready(Epoll.IN);
  assert.equal(card.drivers[Queue.RX].take().length, 1);
});

Deno.test("a tap is not watched while the kernel takes what comes, and again afterwards", () => {
  using card = new Card();
  card.rig.start();
  assert.equal(card.rig.context.watched.has(card.taps[0].fd), false);
  card.rig.device.rest!();
  card.kernels[0].failing = { name: "SET_OWNER", errno: Errno.EBUSY };
  card.rig.context.rung.add(Queue.RX);
  card.rig.work();
  const watch = card.rig.context.watched.get(card.taps[0].fd);
  assert.equal(watch?.events, Epoll.IN | Epoll.ET);
});

Deno.test("the kernel serves a PCI function while that is a master, and calls by its messages", () => {
  using card = new Card({ pci: true });
  const rig = card.rig as PciRig;
  rig.setVector(2, 0x42);
  rig.configure(rig.capability(0x11) + 2, 0x8000, 2);
  rig.set(0x30, Queue.TX);
  rig.poke(0x1a, 2, 2);
  rig.start();
  assert.deepEqual(card.told(), beginning(card, bit(Feature.VERSION_1)));
  card.call(Queue.TX);
  assert.deepEqual(rig.context.messages.map(([, data]) => data), [0x42]);
  rig.configure(4, 2, 2);
  assert.deepEqual(card.told(), ENDING);
  card.call();
  assert.deepEqual(card.told(), []);
  rig.configure(4, 6, 2);
  rig.work();
  assert.deepEqual(card.told(), beginning(card, bit(Feature.VERSION_1), [0, 0], true));
});

Deno.test("a card with limits is the VMM's, until it has none", () => {
  using card = new Card();
  card.rig.start();
  card.told();
  const limit = (average: number) => {
    card.throttle.limits = { ...noLimits, "bps-total": { average, max: 0, burstLength: 1 } };
    card.rig.call((device) => device.limitsChanged!());
  };
  limit(1e9);
  assert.deepEqual(card.told(), ENDING);
  card.call();
  card.transmit(5);
  assert.equal(card.sent(), 5);
  assert.deepEqual(card.told(), []);
  limit(0);
  card.rig.work();
  assert.deepEqual(card.told(), beginning(card, bit(Feature.VERSION_1), [0, 1], true));
});
