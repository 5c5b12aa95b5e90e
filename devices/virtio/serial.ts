/**
 * virtio-serial: consoles and ports of characters for the guest (virtio 1.2, 5.3). The device is a bus;
 * what is plugged into it are `virtconsole` and `virtserialport` (`serial_port.ts`).
 *
 * @module
 */
import { struct } from "../../ffi/struct.ts";
import type { CharacterSink, Doorbell } from "../device.ts";
import type { Chain } from "./chain.ts";
import type { PortState } from "./serial_state.ts";
import type { Virtio } from "./virtio.ts";
import { defineVirtioDevice } from "./virtio_device.ts";

/** VIRTIO_CONSOLE_F_*: feature bits (5.3.3). */
const F_MULTIPORT = 1;
const F_EMERG_WRITE = 2;

/** Events of control messages (5.3.6.2). */
export const ControlEvent = {
  DEVICE_READY: 0,
  DEVICE_ADD: 1,
  DEVICE_REMOVE: 2,
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  RESIZE: 5,
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;

/** What a port still has to tell the driver, in the order in which it is told. */
export const Pending = { ADD: 1, CONSOLE: 2, NAME: 4, OPEN: 8 } as const;

/** Offsets in the configuration space (5.3.4). */
const MAX_PORTS_OFFSET = 4;
const EMERG_WRITE_OFFSET = 8;

/** Queues of the control messages, to the driver and from it. */
const CONTROL_RX = 2;
const CONTROL_TX = 3;
/** u32 id, u16 event, u16 value */
const MESSAGE_SIZE = 8;
/** How much is written to the host at a time. */
const CHUNK = 4096;
/** QEMU's names for a port's name are not longer. */
const MAX_NAME = 255;

/** A port as its bus knows it, on one thread. */
export interface SerialPort {
  /** Its number on the bus. */
  readonly nr: number;
  readonly name: string;
  readonly isConsole: boolean;
  readonly state: PortState;
  /** Where its output goes. */
  readonly sink: CharacterSink | undefined;
}

/** The queue to the driver of a port (5.3.2); that from the driver is the next one. */
function rxQueue(nr: number): number {
  return nr === 0 ? 0 : 2 * nr + 2;
}

/** A virtio-serial device on one thread. */
export class SerialBus {
  readonly #virtio: Virtio;
  readonly #doorbells: readonly Doorbell[];
  readonly #ports = new Map<number, SerialPort>();
  readonly #portChanged: () => void;
  readonly #chunk = new Uint8Array(CHUNK);
  readonly #message = new Uint8Array(MESSAGE_SIZE + MAX_NAME);

  /**
   * @param virtio the device
   * @param doorbells one for each queue
   * @param portChanged called when the guest has opened a port, or has it open no more
   */
  constructor(virtio: Virtio, doorbells: readonly Doorbell[], portChanged: () => void) {
    this.#virtio = virtio;
    this.#doorbells = doorbells;
    this.#portChanged = portChanged;
  }

  /** Adds a port, when the devices are made. */
  plug(port: SerialPort): void {
    this.#ports.set(port.nr, port);
  }

  /** Puts all ports back to how a driver finds them. */
  reset(): void {
    for (const port of this.#ports.values()) {
      Object.assign(port.state, { pending: 0, ready: 0, sent: 0 });
      this.#setOpen(port, false);
    }
  }

  /** The guest has a port open, or no more. */
  #setOpen({ state }: SerialPort, isOpen: boolean): void {
    if ((state.guest_connected !== 0) === isOpen) return;
    state.guest_connected = isOpen ? 1 : 0;
    this.#portChanged();
  }

  /** There is work in a queue. */
  handleQueue(index: number): void {
    if (index === CONTROL_RX) return this.#sendPending();
    if (index === CONTROL_TX) {
      return this.#virtio.queues[index].serve((chain) => this.#control(chain));
    }
    const port = this.#ports.get(index < 2 ? 0 : (index >> 1) - 1);
    if (index % 2 === 0) return port?.sink?.acceptInput();
    this.#virtio.queues[index].serve((chain) => port ? this.#transmit(port, chain) : 0);
  }

  /** How many bytes of input the driver has room for; it tells when that changes from none. */
  inputRoom(port: SerialPort): number {
    let room = 0;
    this.#virtio.work(() => {
      const { ring } = this.#virtio.queues[rxQueue(port.nr)];
      if (!ring || !this.#isOpen(port)) return;
      const chain = this.#virtio.chain;
      if (!ring.pop(chain) && !(ring.listen() && ring.pop(chain))) return;
      room = Math.min(CHUNK, chain.writable.length);
      ring.unpop(chain);
      // A buffer of no room is none.
      if (room === 0) this.#giveBack(port);
    });
    return room;
  }

  /** Input for the driver, not more than there is room for. */
  input(port: SerialPort, data: Uint8Array): void {
    this.#virtio.work(() => {
      const queue = this.#virtio.queues[rxQueue(port.nr)];
      const chain = this.#virtio.chain;
      if (!queue.ring?.pop(chain)) return;
      queue.ring.push(chain, Math.max(0, chain.writable.copyIn(Uint8Array.from(data))));
      queue.flush(queue.ring);
    });
  }

  /** The host takes a port's output again. */
  writable(port: SerialPort): void {
    this.#doorbells[rxQueue(port.nr) + 1].ring();
  }

  /** Somebody is at the host's end of a port now, or nobody any more. */
  peerChanged(port: SerialPort, isThere: boolean): void {
    this.#virtio.locked(() => {
      if ((port.state.host_connected !== 0) === isThere) return;
      port.state.host_connected = isThere ? 1 : 0;
      // A driver that does not know the port yet is told when it does.
      if (port.state.ready) port.state.pending |= Pending.OPEN;
    });
    this.#doorbells[CONTROL_RX].ring();
  }

  /** Writes one byte at once, without a queue (5.3.5). */
  emergencyWrite(value: number): void {
    this.#ports.get(0)?.sink?.write(Uint8Array.of(value));
  }

  /** Whether the driver takes what comes for a port: without control messages it always does. */
  #isOpen({ state, nr }: SerialPort): boolean {
    return this.#virtio.hasFeature(F_MULTIPORT) ? state.guest_connected !== 0 : nr === 0;
  }

  #giveBack(port: SerialPort): void {
    const queue = this.#virtio.queues[rxQueue(port.nr)];
    const chain = this.#virtio.chain;
    if (!queue.ring?.pop(chain)) return;
    queue.ring.push(chain, 0);
    queue.flush(queue.ring);
  }

  /** Writes a request to the host; what of it the host has taken is remembered. */
  #transmit({ state, sink }: SerialPort, { readable }: Chain): number | undefined {
    readable.skip(state.sent);
    while (sink && readable.length > 0) {
      const length = readable.copyOut(this.#chunk);
      if (length < 0) break;
      const taken = sink.write(this.#chunk.subarray(0, length));
      readable.skip(taken);
      state.sent += taken;
      if (taken < length) return undefined;
    }
    state.sent = 0;
    return 0;
  }

  /** A message from the driver. */
  #control({ readable }: Chain): number {
    const bytes = new Uint8Array(MESSAGE_SIZE);
    if (readable.copyOut(bytes) !== MESSAGE_SIZE) return 0;
    const data = new DataView(bytes.buffer);
    const id = data.getUint32(0, true);
    const isPositive = data.getUint16(6, true) !== 0;
    const event = data.getUint16(4, true);
    if (event === ControlEvent.DEVICE_READY) this.#deviceReady(isPositive);
    else this.#portEvent(this.#ports.get(id), event, isPositive);
    this.#sendPending();
    return 0;
  }

  #deviceReady(isPositive: boolean): void {
    if (!isPositive) {
      return this.#virtio.parts.warn("virtio-serial-bus: Guest failure in adding device");
    }
    for (const { state } of this.#ports.values()) state.pending |= Pending.ADD;
  }

  #portEvent(port: SerialPort | undefined, event: number, isPositive: boolean): void {
    if (!port) return;
    const { state, nr, name, isConsole } = port;
    if (event === ControlEvent.PORT_OPEN) {
      this.#setOpen(port, isPositive);
      port.sink?.acceptInput();
    } else if (event === ControlEvent.PORT_READY && !isPositive) {
      this.#virtio.parts.warn(`virtio-serial-bus: Guest failure in adding port ${nr}`);
    } else if (event === ControlEvent.PORT_READY) {
      state.ready = 1;
      if (isConsole) state.pending |= Pending.CONSOLE;
      if (name !== "") state.pending |= Pending.NAME;
      if (state.host_connected) state.pending |= Pending.OPEN;
    }
  }

  /** Tells the driver what it has room for; the rest when there is more. */
  #sendPending(): void {
    const queue = this.#virtio.queues[CONTROL_RX];
    const { ring } = queue;
    if (!ring) return;
    for (const port of this.#ports.values()) {
      for (const pending of Object.values(Pending)) {
        if ((port.state.pending & pending) === 0) continue;
        const chain = this.#virtio.chain;
        if (!ring.pop(chain) && !(ring.listen() && ring.pop(chain))) return queue.flush(ring);
        ring.push(chain, Math.max(0, chain.writable.copyIn(this.#tell(port, pending))));
        port.state.pending &= ~pending;
      }
    }
    queue.flush(ring);
  }

  #tell({ nr, name, state }: SerialPort, pending: number): Uint8Array<ArrayBuffer> {
    const [event, value] = pending === Pending.ADD
      ? [ControlEvent.DEVICE_ADD, 1]
      : pending === Pending.CONSOLE
      ? [ControlEvent.CONSOLE_PORT, 1]
      : pending === Pending.NAME
      ? [ControlEvent.PORT_NAME, 1]
      : [ControlEvent.PORT_OPEN, state.host_connected];
    const data = new DataView(this.#message.buffer);
    data.setUint32(0, nr, true);
    data.setUint16(4, event, true);
    data.setUint16(6, value, true);
    if (pending !== Pending.NAME) return this.#message.subarray(0, MESSAGE_SIZE);
    // The name is all of the rest, without a NUL.
    const { written } = new TextEncoder().encodeInto(name, this.#message.subarray(MESSAGE_SIZE));
    return this.#message.subarray(0, MESSAGE_SIZE + written);
  }
}

/** @throws {Error} in QEMU's words if a bus cannot have so many ports */
export function checkMaxPorts(max: number): void {
  if (max < 1 || max > 31) throw new Error(`maximum ports supported: 31, not ${max}`);
}

/** The bus of consoles and ports. */
export const virtioSerial = defineVirtioDevice({
  name: "virtio-serial-device",
  help: "Bus of virtio consoles and serial ports",
  deviceId: 3,
  pciClass: 0x07_8000,
  // As QEMU has it: more than a driver wants for so many queues.
  pciVectors: 2,
  version: 1,
  state: struct("virtio-serial", {}),
  properties: {
    max_ports: { type: "uint32", default: 31, help: "how many ports there can be, 1 to 31" },
    "emergency-write": { type: "bool", default: true, help: "offer output without a queue" },
  },
  check: ({ max_ports: max }) => checkMaxPorts(Number(max)),
  features: (properties) =>
    (Number(properties.max_ports) > 1 ? 1n << BigInt(F_MULTIPORT) : 0n) |
    (properties["emergency-write"] ? 1n << BigInt(F_EMERG_WRITE) : 0n),
  queueSizes: ({ max_ports: max }) =>
    Array.from({ length: 2 * (Number(max) + 1) }, (_, i) => i >> 1 === 1 ? 32 : 128),
  create(_state, virtio, context, properties) {
    const changed = () => context.request({ kind: "port-change" });
    const bus = new SerialBus(virtio, context.doorbells, changed);
    const config = new DataView(new ArrayBuffer(12));
    config.setUint32(MAX_PORTS_OFFSET, Number(properties.max_ports), true);
    return {
      provides: bus,
      handleQueue: (index) => bus.handleQueue(index),
      reset: () => bus.reset(),
      readConfig(offset, size) {
        if (offset + size > config.byteLength) return 0;
        return size === 1
          ? config.getUint8(offset)
          : size === 2
          ? config.getUint16(offset, true)
          : config.getUint32(offset, true);
      },
      writeConfig(offset, _size, value) {
        const isOffered = properties["emergency-write"];
        if (isOffered && offset === EMERG_WRITE_OFFSET) bus.emergencyWrite(value & 0xff);
      },
    };
  },
});

/** Whether a device of a type is a bus of consoles and ports. */
export function isSerialBus(type: string): boolean {
  return type === virtioSerial.name || type === virtioSerial.pci.name;
}
