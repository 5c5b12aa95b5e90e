/**
 * virtio-net: a network card (virtio 1.2, 5.1), with one pair of queues.
 *
 * @module
 */
import { Epoll } from "../../ffi/event.ts";
import { TapOffload } from "../../ffi/tap.ts";
import type { DescriptorWatch, DeviceContext, Properties, PropertyDeclaration } from "../device.ts";
import type { NetPort } from "../net/port.ts";
import { guestOffloads, NetControl } from "./net_control.ts";
import { NetReceiver } from "./net_receiver.ts";
import { NetSender } from "./net_sender.ts";
import { NetFeature, type NetState, netState, Queue } from "./net_state.ts";
import type { Virtio } from "./virtio.ts";
import { defineVirtioDevice, type VirtioBackend } from "./virtio_device.ts";

/** The features that a property turns off, and whether the backend must have headers for them. */
const switches: readonly [property: string, feature: number, needsHeader: boolean][] = [
  ["csum", NetFeature.CSUM, true],
  ["guest_csum", NetFeature.GUEST_CSUM, true],
  ["ctrl_guest_offloads", NetFeature.CTRL_GUEST_OFFLOADS, true],
  ["guest_tso4", NetFeature.GUEST_TSO4, true],
  ["guest_tso6", NetFeature.GUEST_TSO6, true],
  ["guest_ecn", NetFeature.GUEST_ECN, true],
  ["host_tso4", NetFeature.HOST_TSO4, true],
  ["host_tso6", NetFeature.HOST_TSO6, true],
  ["host_ecn", NetFeature.HOST_ECN, true],
  ["mrg_rxbuf", NetFeature.MRG_RXBUF, false],
  ["status", NetFeature.STATUS, false],
  ["ctrl_vq", NetFeature.CTRL_VQ, false],
  ["ctrl_rx", NetFeature.CTRL_RX, false],
  ["ctrl_vlan", NetFeature.CTRL_VLAN, false],
  ["ctrl_rx_extra", NetFeature.CTRL_RX_EXTRA, false],
  ["ctrl_mac_addr", NetFeature.CTRL_MAC_ADDR, false],
];

/** What a tap is told of what the driver takes unfinished. */
const offloads: readonly [feature: number, offload: number][] = [
  [NetFeature.GUEST_CSUM, TapOffload.CSUM],
  [NetFeature.GUEST_TSO4, TapOffload.TSO4],
  [NetFeature.GUEST_TSO6, TapOffload.TSO6],
  [NetFeature.GUEST_ECN, TapOffload.TSO_ECN],
];

/** Bit of the status field: the cable is in. */
const LINK_UP = 1;
const NAME = "virtio-net-device";
const CONFIG_SIZE = 12;
const CONTROL_SIZE = 64;

const bit = (feature: number) => 1n << BigInt(feature);

/** A network card at work on one thread. */
class NetDevice implements VirtioBackend {
  readonly #state: NetState;
  readonly #virtio: Virtio;
  readonly #context: DeviceContext;
  readonly #mac: Uint8Array;
  readonly #mtu: number;
  readonly #port: NetPort | undefined;
  readonly #receiver: NetReceiver | undefined;
  readonly #sender: NetSender | undefined;
  readonly #control: NetControl;
  /** The connection that is watched. */
  #connection: number | undefined;
  #watch: DescriptorWatch | undefined;
  /** What the backend was told that the driver takes unfinished. */
  #offload: number | undefined;

  constructor(state: NetState, virtio: Virtio, context: DeviceContext, properties: Properties) {
    this.#state = state;
    this.#virtio = virtio;
    this.#context = context;
    this.#mac = parseMac(String(properties.mac));
    this.#mtu = Number(properties.host_mtu);
    this.#control = new NetControl(state, virtio);
    const port = context.netdev;
    if (!port) return;
    this.#port = port;
    this.#receiver = new NetReceiver(state, virtio, port, context);
    this.#sender = new NetSender(state, virtio, port);
  }

  handleQueue(index: number): void {
    this.#look();
    if (index === Queue.RX) this.#receive();
    else if (index === Queue.TX) this.#send();
    else this.#virtio.queues[Queue.CTRL].serve((chain) => this.#control.answer(chain));
    this.#tellOffload();
  }

  readConfig(offset: number, size: number): number {
    const view = new DataView(new ArrayBuffer(CONFIG_SIZE));
    this.#state.mac.forEach((byte, i) => view.setUint8(i, byte));
    view.setUint16(6, this.#state.link_down ? 0 : LINK_UP, true);
    view.setUint16(8, 1, true);
    view.setUint16(10, this.#mtu, true);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      value = value * 256 + (offset + i < CONFIG_SIZE ? view.getUint8(offset + i) : 0);
    }
    return value;
  }

  /** A frame of which some has gone must end, for the peer; the cable stays as it is. */
  reset(): void {
    const s = this.#state;
    s.mac.set(this.#mac);
    s.rx_hasty = s.offloads_set = s.offloads = 0;
    if (s.tx_sent !== 0) s.tx_abandoned = 1;
  }

  /** The driver has given no more room: frames that fit are better than none. */
  timer(): void {
    this.#state.rx_hasty = 1;
    this.#context.doorbells[Queue.RX].ring();
  }

  connected(): void {
    this.#context.doorbells[Queue.RX].ring();
  }

  setLink(isUp: boolean): void {
    this.#state.link_down = isUp ? 0 : 1;
    this.#virtio.configChanged();
    for (const queue of [Queue.RX, Queue.TX]) this.#context.doorbells[queue].ring();
  }

  /** On another connection than the predecessor's nobody waits for the rest of a frame. */
  restored(): void {
    if (!this.#port?.isInherited) this.#sender?.forget();
  }

  /** Watches the connection that there is now. */
  #look(): void {
    const port = this.#port;
    if (!port || port.connection === this.#connection) return;
    this.#connection = port.connection;
    const { fd } = port;
    this.#watch = fd === undefined
      ? undefined
      : this.#context.watcher?.watch(fd, Epoll.IN | Epoll.ET, () => this.#ready());
  }

  #ready(): void {
    this.#virtio.work(() => {
      this.#send();
      this.#receive();
    });
  }

  #receive(): void {
    if (!this.#receiver || this.#receiver.run()) return;
    // Nobody may wait for a descriptor that is closed: it may be another's soon.
    this.#watch?.set(0);
    this.#watch = undefined;
    this.#sender!.forget();
    this.#port!.drop();
  }

  #send(): void {
    if (!this.#sender) {
      this.#virtio.queues[Queue.TX].serve(() => 0);
      return;
    }
    const isWaiting = this.#sender.run();
    this.#watch?.set(Epoll.IN | Epoll.ET | (isWaiting ? Epoll.OUT : 0));
  }

  /** The backend may be in other hands since, or the driver another. */
  #tellOffload(): void {
    const features = guestOffloads(this.#virtio, this.#state);
    const offload = offloads.reduce(
      (bits, [feature, one]) => bits | (features >>> feature & 1 ? one : 0),
      0,
    );
    if (offload === this.#offload) return;
    this.#offload = offload;
    this.#port?.setOffload(offload);
  }
}

/** Reads an address: six bytes in hexadecimal with colons. @throws {RangeError} */
export function parseMac(text: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new RangeError(`Property '${NAME}.mac' doesn't take value '${text}'`);
  }
  return Uint8Array.from(text.split(":"), (byte) => parseInt(byte, 16));
}

/** A queue's size: a power of two. @throws {RangeError} in QEMU's words */
function queueSize(properties: Properties, name: string): number {
  const size = Number(properties[name]);
  if (size >= 256 && size <= 1024 && (size & (size - 1)) === 0) return size;
  throw new RangeError(
    `Invalid ${name} (= ${size}), must be a power of 2 between 256 and 1024.`,
  );
}

/** The network card. */
export const virtioNet = defineVirtioDevice({
  name: NAME,
  help: "Network card",
  deviceId: 1,
  pciClass: 0x02_0000,
  version: 1,
  state: netState,
  timers: 1,
  properties: {
    mac: {
      type: "string",
      default: "52:54:00:12:34:56",
      help: "its address; the next card has the next",
    },
    netdev: { type: "netdev", help: "ID of a network backend" },
    host_mtu: { type: "uint16", default: 0, help: "tell the guest this MTU; 0 to tell none" },
    rx_queue_size: { type: "uint16", default: 256, help: "entries of the receiving queue" },
    tx_queue_size: { type: "uint16", default: 256, help: "entries of the sending queue" },
    ...Object.fromEntries(switches.map(([name]): [string, PropertyDeclaration] => [
      name,
      { type: "bool", default: true, help: `offer the feature ${name}` },
    ])),
    "vnet-hdr": {
      type: "bool",
      default: false,
      internal: true,
      help: "whether the backend's frames have headers",
    },
  },
  features: (properties) =>
    switches.reduce(
      (bits, [name, feature, needsHeader]) =>
        properties[name] && (!needsHeader || properties["vnet-hdr"]) ? bits | bit(feature) : bits,
      bit(NetFeature.MAC) | (properties.host_mtu ? bit(NetFeature.MTU) : 0n),
    ),
  check: ({ mac }) => void parseMac(String(mac)),
  queueSizes: (properties) => [
    queueSize(properties, "rx_queue_size"),
    queueSize(properties, "tx_queue_size"),
    ...(properties.ctrl_vq ? [CONTROL_SIZE] : []),
  ],
  create: (state, virtio, context, properties) => new NetDevice(state, virtio, context, properties),
});
