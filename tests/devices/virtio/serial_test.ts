import assert from "node:assert/strict";
import {
  ControlEvent,
  SerialBus,
  type SerialPort,
  virtioSerial,
} from "../../../devices/virtio/serial.ts";
import { portState } from "../../../devices/virtio/serial_state.ts";
import { Feature, InterruptCause } from "../../../devices/virtio/virtio_state.ts";
import { FakeSink } from "../fake_context.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { bit, VirtioRig } from "./rig.ts";

const MULTIPORT = bit(1);
const BUFFERS = RAM + 0xc_0000;
const encoder = new TextEncoder();

/** A device with a console and a port, and a driver of both. */
class SerialRig extends VirtioRig {
  readonly sinks = [new FakeSink(), new FakeSink()];
  readonly bus: SerialBus;
  readonly ports: SerialPort[];
  readonly queues: TestDriver[];
  #at = BUFFERS;

  constructor(packed: boolean, multiport = true) {
    super(virtioSerial, "kept", { packed });
    assert(this.device.provides instanceof SerialBus);
    this.bus = this.device.provides;
    this.ports = ["", "org.qemu.guest_agent.0"].map((name, nr) => ({
      nr,
      name,
      isConsole: nr === 0,
      state: portState.alloc().view,
      sink: this.sinks[nr],
    }));
    for (const port of this.ports) this.bus.plug(port);
    this.negotiate((packed ? bit(Feature.RING_PACKED) : 0n) | (multiport ? MULTIPORT : 0n));
    this.queues = Array.from({ length: multiport ? 6 : 2 }, (_, index) => this.setUp(index));
    this.start();
  }

  /** Gives the device room to write in. */
  offer(queue: number, length: number): void {
    this.queues[queue].add([{ gpa: this.#place(length), length, writable: true }]);
    this.notify(queue);
  }

  /** Sends bytes. */
  send(queue: number, bytes: Uint8Array): void {
    const gpa = this.#place(bytes.length);
    this.ram.put(gpa, bytes);
    this.queues[queue].add([{ gpa, length: bytes.length }]);
    this.notify(queue);
  }

  /** Sends a control message. */
  tell(id: number, event: number, value: number): void {
    const bytes = new Uint8Array(8);
    const data = new DataView(bytes.buffer);
    data.setUint32(0, id, true);
    data.setUint16(4, event, true);
    data.setUint16(6, value, true);
    this.send(3, bytes);
  }

  /** The control messages that came: id, event, value, and the rest as text. */
  told(): (number | string)[][] {
    return this.queues[2].take().map(({ written }, i) => {
      const bytes = this.ram.get(BUFFERS + 0x100 * i, written);
      const data = new DataView(bytes.buffer);
      return [
        data.getUint32(0, true),
        data.getUint16(4, true),
        data.getUint16(6, true),
        new TextDecoder().decode(bytes.subarray(8)),
      ];
    });
  }

  /** The next buffers are where the first ones were. */
  rewind(): void {
    this.#at = BUFFERS;
  }

  #place(length: number): number {
    const at = this.#at;
    this.#at += Math.max(0x100, length);
    return at;
  }
}

for (const packed of [false, true]) {
  const name = packed ? "packed" : "split";

  Deno.test(`a driver is told of ports as it has room for messages, ${name}`, () => {
    const rig = new SerialRig(packed);
    rig.bus.peerChanged(rig.ports[1], true);
    rig.tell(0, ControlEvent.DEVICE_READY, 1);
    rig.rewind();
    rig.offer(2, 64);
    assert.deepEqual(rig.told(), [[0, ControlEvent.DEVICE_ADD, 1, ""]]);
    rig.rewind();
    rig.offer(2, 64);
    assert.deepEqual(rig.told(), [[1, ControlEvent.DEVICE_ADD, 1, ""]]);
    rig.tell(0, ControlEvent.PORT_READY, 1);
    rig.tell(1, ControlEvent.PORT_READY, 1);
    rig.tell(7, ControlEvent.PORT_READY, 1);
    rig.rewind();
    for (let i = 0; i < 6; i++) rig.offer(2, 64);
    assert.deepEqual(rig.told(), [
      [0, ControlEvent.CONSOLE_PORT, 1, ""],
      [1, ControlEvent.PORT_NAME, 1, "org.qemu.guest_agent.0"],
      [1, ControlEvent.PORT_OPEN, 1, ""],
    ]);
  });

  Deno.test(`a driver is told when the host's end of a port opens and closes, ${name}`, () => {
    const rig = new SerialRig(packed);
    rig.bus.peerChanged(rig.ports[0], true);
    rig.work();
    rig.bus.peerChanged(rig.ports[0], false);
    rig.tell(0, ControlEvent.PORT_READY, 1);
    rig.rewind();
    for (let i = 0; i < 4; i++) rig.offer(2, 64);
    assert.deepEqual(rig.told().map(([, event]) => event), [ControlEvent.CONSOLE_PORT]);
    for (const isThere of [true, true, false]) {
      rig.bus.peerChanged(rig.ports[0], isThere);
      rig.work();
    }
    assert.equal(rig.queues[2].take().length, 2);
  });

  Deno.test(`output that the host does not take yet is neither lost nor repeated, ${name}`, () => {
    const rig = new SerialRig(packed);
    const [sink] = rig.sinks;
    sink.budget = 5;
    rig.send(1, encoder.encode("hello "));
    rig.send(1, encoder.encode("world"));
    assert.equal(sink.text, "hello");
    assert.deepEqual(rig.queues[1].take(), []);
    sink.budget = 3;
    rig.bus.writable(rig.ports[0]);
    rig.work();
    assert.equal(sink.text, "hello wo");
    assert.equal(rig.queues[1].take().length, 1);
    sink.budget = Infinity;
    rig.bus.writable(rig.ports[0]);
    rig.work();
    assert.equal(sink.text, "hello world");
    assert.equal(rig.queues[1].take().length, 1);
  });

  Deno.test(`input waits until the port is open and there is room for it, ${name}`, () => {
    const rig = new SerialRig(packed);
    const [, port] = rig.ports;
    const data = encoder.encode("agent");
    rig.offer(4, 3);
    assert.equal(rig.bus.inputRoom(port), 0, "nobody has opened it");
    rig.tell(1, ControlEvent.PORT_OPEN, 1);
    assert(rig.sinks[1].accepts > 0, "reading may go on");
    rig.takeInterrupt();
    assert.equal(rig.bus.inputRoom(port), 3);
    rig.bus.input(port, data.subarray(0, 3));
    assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
    assert.equal(rig.bus.inputRoom(port), 0);
    const before = rig.sinks[1].accepts;
    rig.offer(4, 100);
    assert(rig.sinks[1].accepts > before);
    assert.equal(rig.bus.inputRoom(port), 100);
    rig.bus.input(port, data.subarray(3));
    assert.deepEqual(rig.queues[4].take().map(({ written }) => written), [3, 2]);
    rig.tell(1, ControlEvent.PORT_OPEN, 0);
    rig.offer(4, 100);
    assert.equal(rig.bus.inputRoom(port), 0);
  });
}

Deno.test("that a port opens or closes is told to the host, once", () => {
  const rig = new SerialRig(false);
  const told = () => rig.context.requests.splice(0).map(({ kind }) => kind);
  for (const value of [1, 1, 0, 0]) rig.tell(1, ControlEvent.PORT_OPEN, value);
  assert.deepEqual(told(), ["port-change", "port-change"]);
  rig.tell(1, ControlEvent.PORT_OPEN, 1);
  rig.call((device) => device.reset());
  assert.equal(rig.ports[1].state.guest_connected, 0);
  rig.call((device) => device.reset());
  assert.deepEqual(told(), ["port-change", "port-change"]);
});

Deno.test("without control messages port 0 is open, and the others are not there", () => {
  const rig = new SerialRig(false, false);
  rig.offer(0, 8);
  assert.deepEqual(rig.ports.map((port) => rig.bus.inputRoom(port)), [8, 0]);
  rig.send(1, encoder.encode("x"));
  assert.equal(rig.sinks[0].text, "x");
});

Deno.test("the configuration tells how many ports there can be, and takes emergency output", () => {
  const rig = new SerialRig(false);
  assert.equal(rig.get(0x104), 31);
  rig.set(0x108, 0x121);
  assert.equal(rig.sinks[0].text, "!");
  assert.equal(rig.read(0x10c, 4), 0);
});

Deno.test("what the driver cannot make is told, and nothing else happens", () => {
  const rig = new SerialRig(false);
  rig.tell(0, ControlEvent.DEVICE_READY, 0);
  rig.tell(1, ControlEvent.PORT_READY, 0);
  rig.send(3, Uint8Array.of(1, 2, 3));
  rig.rewind();
  rig.offer(2, 64);
  assert.deepEqual(rig.told(), []);
  assert.deepEqual(rig.context.warnings, [
    "virtio-serial-bus: Guest failure in adding device",
    "virtio-serial-bus: Guest failure in adding port 1",
  ]);
});
