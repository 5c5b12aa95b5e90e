/** Limits on a network card, with a virtual clock and sockets as its backends. */
import assert from "node:assert/strict";
import { noLimits, ThrottleGroup, type ThrottleLimits } from "../../../devices/block/throttle.ts";
import { openPort } from "../../../devices/net/port.ts";
import { DescriptorSlot } from "../../../devices/descriptor_slot.ts";
import { virtioNet } from "../../../devices/virtio/net.ts";
import { Queue } from "../../../devices/virtio/net_state.ts";
import { Feature } from "../../../devices/virtio/virtio_state.ts";
import { Epoll } from "../../../ffi/event.ts";
import { type OwnedFd, readFd, writeFd } from "../../../ffi/fd.ts";
import { socketPair } from "../../../ffi/socket.ts";
import type { RigMode } from "../fake_context.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { bit, VirtioRig } from "./rig.ts";

const HEADER = 12;
const FRAME = 1000;
const ROOM = RAM + 0x8_0000;
const FRAMES = RAM + 0xe_0000;
const MS = 1_000_000n;

/** What a queue's entry in the levels of a group is. */
const levelOf = (group: ThrottleGroup, bucket: number) => group.levels[1 + 2 * bucket];
const IOPS_WRITE = 5;
const BPS_READ = 1;

/** A card over a tap or a stream whose frames count in a group, and the other end. */
class Card implements Disposable {
  readonly group = new ThrottleGroup();
  readonly rig: VirtioRig;
  readonly peer: OwnedFd;
  readonly rx: TestDriver;
  readonly tx: TestDriver;
  readonly #ours: OwnedFd;
  readonly #isStream: boolean;
  #count = 0;

  constructor(mode: RigMode, packed: boolean, isStream: boolean, limits: Partial<ThrottleLimits>) {
    this.#isStream = isStream;
    const type = isStream ? "stream" : "seqpacket";
    [this.#ours, this.peer] = socketPair(type, { nonblocking: true });
    const slot = DescriptorSlot.allocate();
    slot.fd = this.#ours.fd;
    const port = openPort({
      ...{ kind: isStream ? "stream" : "tap", slot: slot.buffer, wake: -1 },
      ...{ headerSize: isStream ? 0 : HEADER, throttle: this.group.shared },
    });
    this.group.limits = { ...noLimits, ...limits };
    const properties = { packed, "vnet-hdr": !isStream };
    this.rig = new VirtioRig(virtioNet, mode, properties, undefined, port);
    this.rig.negotiate(packed ? bit(Feature.RING_PACKED) : 0n);
    this.rx = this.rig.setUp(Queue.RX, 64);
    this.tx = this.rig.setUp(Queue.TX, 64);
    this.rig.start();
    for (let i = 0; i < 64; i++) {
      this.rx.add([{ gpa: ROOM + 0x800 * i, length: 0x800, writable: true }]);
    }
  }

  /** The driver offers frames, each with its number in its first byte. */
  offer(count: number): void {
    for (let i = 0; i < count; i++) {
      const gpa = FRAMES + 0x400 * i;
      this.rig.ram.put(gpa, new Uint8Array(HEADER + FRAME).fill(this.#count++, HEADER));
      this.tx.add([{ gpa, length: HEADER + FRAME }]);
    }
    this.rig.notify(Queue.TX);
  }

  /** The numbers of the frames that have come out. */
  sent(): number[] {
    const size = (this.#isStream ? 4 : HEADER) + FRAME;
    // Of a stream as many bytes as a frame has, of others the next frame.
    const buffer = new Uint8Array(size);
    const numbers: number[] = [];
    while (readFd(this.peer.fd, buffer) === size) numbers.push(buffer[size - 1]);
    return numbers;
  }

  /** Frames come from outside. */
  arrive(count: number): void {
    for (let i = 0; i < count; i++) {
      const prefix = this.#isStream ? [0, 0, FRAME >> 8, FRAME & 0xff] : Array(HEADER).fill(0);
      const frame = Uint8Array.from([...prefix, ...Array(FRAME).fill(this.#count++)]);
      assert.equal(writeFd(this.peer.fd, frame), frame.length);
    }
    this.rig.context.rung.add(Queue.RX);
    this.rig.work();
  }

  /** How many frames the driver has got. */
  received(): number {
    return this.rx.take().length;
  }

  /** Lets time pass, and the card work. */
  pass(ms: number): void {
    for (let i = 0; i < ms; i++) {
      this.rig.pass(MS);
      this.rig.work();
    }
  }

  get events(): number {
    return this.rig.context.watched.get(this.#ours.fd)!.events;
  }

  [Symbol.dispose](): void {
    this.#ours.close();
    this.peer.close();
  }
}

const once = (average: number) => ({ average, max: 0, burstLength: 1 });

// In another VMM, the thread that works on queues looks at all of them when it begins.
for (const mode of ["kept", "shared"] as const) {
  for (const packed of [false, true]) {
    for (const isStream of [false, true]) {
      const how = [mode, packed ? "packed" : "split", isStream ? "stream" : "tap"].join(", ");
      const card = (limits: Partial<ThrottleLimits>) => new Card(mode, packed, isStream, limits);

      Deno.test(`a card sends as many frames as its limits allow, in order (${how})`, () => {
        using one = card({ "iops-write": once(10) });
        one.offer(30);
        // A tenth of a second's worth fits, and what is begun then.
        const sent = one.sent();
        assert.deepEqual(sent, [0, 1]);
        // It is the clock that it waits for, and not the backend.
        assert.equal(one.events, Epoll.IN | Epoll.ET);
        one.pass(1000);
        sent.push(...one.sent());
        assert.equal(sent.length, 12);
        // What comes is another matter.
        one.arrive(20);
        assert.equal(one.received(), 20);
        one.pass(1800);
        sent.push(...one.sent());
        assert.deepEqual(sent, Array.from({ length: 30 }, (_, i) => i));
        assert.equal(one.tx.take().length, 30);
      });

      Deno.test(`a card receives as many bytes as its limits allow, and none is lost (${how})`, () => {
        using one = card({ "bps-read": once(10 * FRAME) });
        one.arrive(30);
        assert.equal(one.received(), 2);
        one.pass(1000);
        assert.equal(one.received(), 10);
        one.offer(20);
        assert.equal(one.sent().length, 20);
        one.pass(1800);
        assert.equal(one.received(), 18);
        assert.ok(levelOf(one.group, BPS_READ) <= 2 * FRAME);
      });

      Deno.test(`limits that are changed hold at once, bursts as well (${how})`, () => {
        using one = card({ "iops-total": once(1) });
        one.offer(30);
        one.arrive(30);
        assert.equal(one.sent().length + one.received(), 1);
        const burst = { average: 5, max: 10, burstLength: 2 };
        one.group.limits = { ...noLimits, "iops-write": burst };
        one.rig.call((device) => device.limitsChanged!());
        one.rig.work();
        assert.equal(one.received(), 30);
        // At the burst's rate, until it is over.
        const sent = one.sent().length;
        one.pass(1000);
        assert.equal(sent + one.sent().length, 2 + 10);
      });
    }
  }
}

Deno.test("a frame counts once that the backend takes later, or in parts", () => {
  for (const isStream of [false, true]) {
    using one = new Card("kept", false, isStream, { "iops-write": once(1e6) });
    while (!(one.events & Epoll.OUT)) {
      one.offer(32);
      if (!(one.events & Epoll.OUT)) assert.equal(one.tx.take().length, 32);
    }
    const offered = () => levelOf(one.group, IOPS_WRITE);
    const counted = offered();
    for (let i = 0; i < 5; i++) one.rig.notify(Queue.TX);
    assert.equal(offered(), counted);
    const sent = one.sent().length;
    assert.ok(counted - sent <= 1 && counted >= sent, `${counted} counted, ${sent} sent`);
  }
});

Deno.test("what comes while the cable is out does not count", () => {
  using one = new Card("kept", false, false, { "iops-total": once(10) });
  one.rig.call((device) => device.setLink!(false));
  one.arrive(5);
  one.offer(5);
  assert.equal(levelOf(one.group, 3), 0);
  one.rig.call((device) => device.setLink!(true));
  one.arrive(1);
  assert.equal(one.received(), 1);
  assert.equal(levelOf(one.group, 3), 1);
});
