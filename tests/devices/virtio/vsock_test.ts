/** The socket device, whose rings the kernel serves while this VMM has the guest's number. */
import assert from "node:assert/strict";
import type { Properties } from "../../../devices/device.ts";
import { DescriptorSlot } from "../../../devices/descriptor_slot.ts";
import { VHOST_WORDS, VhostRings } from "../../../devices/virtio/vhost_rings.ts";
import { Feature, InterruptCause } from "../../../devices/virtio/virtio_state.ts";
import { vhostVsock } from "../../../devices/virtio/vsock.ts";
import { openVsockPort } from "../../../devices/virtio/vsock_port.ts";
import { Errno } from "../../../ffi/errno.ts";
import { Epoll, makeEventfd, signalEventfd } from "../../../ffi/event.ts";
import { FIRST_DOORBELL, type RigMode } from "../fake_context.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { FakeVhost } from "./fake_vhost.ts";
import { bit, VirtioRig } from "./rig.ts";

const HAS = bit(Feature.VERSION_1) | bit(Feature.EVENT_IDX) | bit(1);
const CID = 0x1234_5678;
const EVENT = 2;
const ROOM = RAM + 0x8_0000;

/** A device, its driver, and the kernel. */
class Sockets implements Disposable {
  readonly kernel = new FakeVhost(HAS);
  readonly rig: VirtioRig;
  readonly #calls = [makeEventfd(), makeEventfd()] as const;
  /** Whether this VMM has the guest's number. */
  isClaimed = true;
  events!: TestDriver;

  constructor(mode: RigMode = "kept", features = bit(1)) {
    this.rig = new VirtioRig(vhostVsock, mode, {
      ...{ packed: true, "guest-cid": CID },
    });
    const words = new SharedArrayBuffer(VHOST_WORDS);
    VhostRings.setOwned(words);
    this.kernel.isOwned = true;
    const claimed = () => this.isClaimed ? this.kernel.device : undefined;
    this.rig.context.vsock = {
      ...{ words, features: HAS, calls: [this.#calls[0].fd, this.#calls[1].fd] },
      get device() {
        return claimed();
      },
    };
    // The rig's device was made without.
    this.rig.load(this.rig.bytes.slice());
    this.rig.negotiate(features);
    for (const queue of [0, 1, EVENT]) this.events = this.rig.setUp(queue);
  }

  /** What the kernel was told since: names alone. */
  told(): string[] {
    return this.kernel.take().filter((call) => !call.startsWith("SET_VRING"));
  }

  /** The driver makes room for an event. */
  give(): void {
    this.rig.ram.put(ROOM, new Uint8Array(4).fill(0xee));
    this.events.add([{ gpa: ROOM, length: 4, writable: true }]);
    this.rig.notify(EVENT);
  }

  /** The kernel calls. */
  call(ring: 0 | 1): void {
    signalEventfd(this.#calls[ring].fd);
    this.rig.context.watched.get(this.#calls[ring].fd)!.ready(Epoll.IN);
  }

  [Symbol.dispose](): void {
    for (const call of this.#calls) call.close();
  }
}

Deno.test("a socket device shows the guest's number, and what the kernel can", () => {
  using sockets = new Sockets();
  const { rig } = sockets;
  assert.equal(rig.get(0x08), 19);
  assert.equal(rig.get(0x100), CID);
  assert.equal(rig.get(0x104), 0);
  assert.equal(rig.read(0x101, 1), 0x56);
  const offered = rig.offered();
  assert.equal(offered & bit(1), bit(1));
  assert.equal(offered & bit(Feature.EVENT_IDX), bit(Feature.EVENT_IDX));
  for (const feature of [Feature.RING_PACKED, Feature.INDIRECT_DESC, Feature.RING_RESET]) {
    assert.equal(offered & bit(feature), 0n);
  }
});

Deno.test("a guest's number is checked in QEMU's words", () => {
  const check = (properties: Properties) => () => vhostVsock.check!(properties);
  const wrong: Properties[] = [{}, { "guest-cid": 0 }, { "guest-cid": 2 }];
  for (const properties of wrong) {
    assert.throws(check(properties), { message: "guest-cid property must be greater than 2" });
  }
  assert.throws(check({ "guest-cid": 2 ** 32 }), {
    message: "guest-cid property must be a 32-bit number",
  });
  check({ "guest-cid": 3 })();
});

for (const mode of ["kept", "shared", "saved"] as const) {
  Deno.test(`the kernel serves sockets, over rests, as one owner (${mode})`, () => {
    using sockets = new Sockets(mode);
    const { rig } = sockets;
    rig.start();
    const begins = [
      `SET_FEATURES 0x${(bit(Feature.VERSION_1) | bit(1)).toString(16)}`,
      sockets.kernel.device &&
      `SET_MEM_TABLE 0x100000+0x100000=0x${rig.ram.ranges[0].address.toString(16)}`,
      "VSOCK_SET_RUNNING 1",
    ];
    assert.deepEqual(sockets.told(), begins);
    assert(rig.context.left.has(FIRST_DOORBELL) && rig.context.left.has(FIRST_DOORBELL + 1));
    assert.equal(rig.context.left.has(FIRST_DOORBELL + EVENT), false);
    sockets.call(0);
    assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
    rig.call((device) => device.rest!());
    assert.deepEqual(sockets.told(), [
      ...["VSOCK_SET_RUNNING 0", "GET_VRING_BASE 0", "GET_VRING_BASE 1"],
    ]);
    rig.context.rung.add(0);
    rig.work();
    assert.deepEqual(sockets.told(), begins);
    rig.set(0x70, 0);
    assert.equal(sockets.told()[0], "VSOCK_SET_RUNNING 0");
    assert.deepEqual(rig.context.warnings, []);
  });

  Deno.test(`a guest that comes hears that its connections have ended, once (${mode})`, () => {
    using sockets = new Sockets(mode);
    const { rig } = sockets;
    sockets.isClaimed = false;
    rig.start();
    sockets.give();
    assert.deepEqual(sockets.told(), [], "the number is another VMM's still");
    assert.deepEqual(sockets.events.take(), []);
    sockets.isClaimed = true;
    rig.call((device) => device.connected!());
    rig.work();
    assert.equal(sockets.told().at(-1), "VSOCK_SET_RUNNING 1");
    assert.deepEqual(sockets.events.take().map(({ written }) => written), [4]);
    assert.deepEqual([...rig.ram.get(ROOM, 4)], [0, 0, 0, 0]);
    sockets.give();
    assert.deepEqual(sockets.events.take(), []);
  });

  Deno.test(`a guest without room for the event hears of it when it has some (${mode})`, () => {
    using sockets = new Sockets(mode);
    sockets.rig.start();
    sockets.rig.call((device) => device.connected!());
    sockets.rig.work();
    sockets.give();
    assert.equal(sockets.events.take().length, 1);
    // A driver that begins anew has no connections.
    sockets.rig.call((device) => device.connected!());
    sockets.rig.negotiate(0n);
    sockets.rig.ram.clear();
    sockets.events = sockets.rig.setUp(EVENT);
    sockets.rig.start();
    sockets.give();
    assert.deepEqual(sockets.events.take(), []);
  });
}

Deno.test("the user hears of a kernel that does not serve sockets, and the guest is not harmed", () => {
  using sockets = new Sockets();
  sockets.kernel.failing = { name: "VSOCK_SET_RUNNING", errno: Errno.EFAULT };
  sockets.rig.start();
  sockets.give();
  assert.deepEqual(sockets.rig.context.warnings, [
    "vhost-vsock-device: unable to start vhost vsock: the guest has no sockets until it resets the" +
    " device: VHOST_VSOCK_SET_RUNNING 1000100: Bad address",
  ]);
  assert.equal(sockets.rig.context.left.size, 0);
});

Deno.test("a port has a device while its slot has a descriptor", () => {
  const slot = DescriptorSlot.allocate();
  const words = new SharedArrayBuffer(VHOST_WORDS);
  const port = openVsockPort({ slot: slot.buffer, features: 0n, calls: [1, 2], words });
  const fd = () => port.device?.fd;
  assert.equal(fd(), undefined);
  slot.fd = 77;
  assert.equal(fd(), 77);
});
