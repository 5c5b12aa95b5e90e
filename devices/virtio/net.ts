/**
 * virtio-net: a network card (virtio 1.2, 5.1), with as many pairs of queues as its backend has.
 *
 * @module
 */
import { Epoll } from "../../ffi/event.ts";
import { TapOffload } from "../../ffi/tap.ts";
import type { DescriptorWatch, DeviceContext, Properties, PropertyDeclaration } from "../device.ts";
import type { NetPort } from "../net/port.ts";
import { guestOffloads, NetControl } from "./net_control.ts";
import { NetLimits } from "./net_limits.ts";
import { NetReceiver } from "./net_receiver.ts";
import { NetSender } from "./net_sender.ts";
import { FurtherPair, NetFeature, type NetState, netState, Queue } from "./net_state.ts";
import { offeredByCard, vhostPair } from "./vhost_net.ts";
import type { VhostRings } from "./vhost_rings.ts";
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

/** Timers by number: how long a driver is waited for, then the limits of the two directions. */
const PATIENCE = 0;
const LIMITS = 1;

const bit = (feature: number) => 1n << BigInt(feature);

/** A pair of queues, and what is at the other end of it. */
interface Pair {
  readonly port: NetPort;
  readonly receiver: NetReceiver;
  readonly sender: NetSender;
  /** The connection that is watched. */
  connection?: number;
  watch?: DescriptorWatch;
  /** The kernel, where it can serve the queues. */
  readonly vhost?: VhostRings;
}

/** A network card at work on one thread. */
class NetDevice implements VirtioBackend {
  readonly #state: NetState;
  readonly #virtio: Virtio;
  readonly #context: DeviceContext;
  readonly #mac: Uint8Array;
  readonly #mtu: number;
  /** How many pairs of queues there are. */
  readonly #count: number;
  /** Those that have a backend: all, or none. */
  readonly #pairs: readonly Pair[];
  readonly #control: NetControl;
  /** What the backend was told that the driver takes unfinished. */
  #offload: number | undefined;
  /** How many of its queues the backend was told to use. */
  #told: number | undefined;

  constructor(state: NetState, virtio: Virtio, context: DeviceContext, properties: Properties) {
    this.#state = state;
    this.#virtio = virtio;
    this.#context = context;
    this.#mac = parseMac(String(properties.mac));
    this.#mtu = Number(properties.host_mtu);
    this.#count = Number(properties["queue-pairs"]);
    this.#control = new NetControl(state, virtio, this.#count);
    const { netdev } = context;
    const ports = netdev ? [netdev, ...netdev.more ?? []].slice(0, this.#count) : [];
    const limits = [Queue.RX, Queue.TX].map((queue) =>
      new NetLimits(netdev?.throttle, queue === Queue.TX, context, context.timers[LIMITS + queue])
    );
    this.#pairs = ports.map((port, i): Pair => {
      const own = i === 0 ? state : new FurtherPair(state, i);
      const [rx, tx] = [2 * i + Queue.RX, 2 * i + Queue.TX];
      const vhost = vhostPair(virtio, context, port, i, (isServed) => {
        // What comes by a tap is the kernel's then.
        this.#pairs[i].watch?.set(isServed ? 0 : Epoll.IN | Epoll.ET);
      });
      return {
        port,
        vhost,
        receiver: new NetReceiver(own, virtio, port, limits[Queue.RX], context, rx),
        sender: new NetSender(own, virtio, port, limits[Queue.TX], tx),
      };
    });
  }

  /** How many pairs the driver uses. */
  get #used(): number {
    if (!this.#virtio.hasFeature(NetFeature.MQ)) return 1;
    return Math.min(1 + this.#state.more_pairs, this.#count);
  }

  /** The control queue follows those that a driver could use (5.1.2). */
  get #controlIndex(): number {
    return 2 * (this.#virtio.hasFeature(NetFeature.MQ) ? this.#count : 1);
  }

  handleQueue(index: number): void {
    const number = index >> 1;
    const pair = this.#pairs.at(number);
    this.#tell();
    if (index === this.#controlIndex) {
      this.#virtio.queues[index].serve((chain) => this.#control.answer(chain));
    } else if (index > this.#controlIndex || pair?.vhost?.isServed) return;
    else if (index % 2 === Queue.TX) this.#send(index, pair);
    else if (number < this.#used) this.#receive(pair);
    this.#tell();
  }

  /** The kernel has no queue any more, and begins again when a doorbell rings. */
  halt(): void {
    for (const { vhost } of this.#pairs) vhost?.halt();
  }

  rest(): void {
    for (const { vhost } of this.#pairs) vhost?.rest();
  }

  readConfig(offset: number, size: number): number {
    const view = new DataView(new ArrayBuffer(CONFIG_SIZE));
    this.#state.mac.forEach((byte, i) => view.setUint8(i, byte));
    view.setUint16(6, this.#state.link_down ? 0 : LINK_UP, true);
    view.setUint16(8, this.#count, true);
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
    s.rx_hasty =
      s.offloads_set =
      s.offloads =
      s.more_pairs =
      s.more_hasty =
        0;
    if (s.tx_sent !== 0) s.tx_abandoned = 1;
  }

  timer(index: number): void {
    if (index === PATIENCE) this.#hurry();
    else this.#ring(index === LIMITS + Queue.RX ? Queue.RX : Queue.TX);
  }

  /** What waits may go on by now. */
  limitsChanged(): void {
    this.#virtio.halt();
    for (const queue of [Queue.RX, Queue.TX]) this.#ring(queue);
  }

  /** The driver has given no more room: frames that fit are better than none. */
  #hurry(): void {
    this.#state.rx_hasty = 1;
    this.#state.more_hasty = 0xffff;
    this.#ring(Queue.RX);
  }

  connected(): void {
    this.#ring(Queue.RX);
  }

  setLink(isUp: boolean): void {
    this.#state.link_down = isUp ? 0 : 1;
    // What the kernel is in the middle of may still go; while the cable is out, the VMM serves.
    this.#virtio.halt();
    this.#virtio.configChanged();
    for (const queue of [Queue.RX, Queue.TX]) this.#ring(queue);
  }

  /** On another connection than the predecessor's nobody waits for the rest of a frame. */
  restored(): void {
    const first = this.#pairs.at(0);
    if (!first?.port.isInherited) first?.sender.forget();
  }

  /** Rings for that queue of each pair in use. */
  #ring(queue: typeof Queue.RX | typeof Queue.TX): void {
    for (let i = 0; i < this.#used; i++) this.#context.doorbells[2 * i + queue].ring();
  }

  /** Sees to it that the backend is as the driver wants it, and whoever shall serve does. */
  #tell(): void {
    this.#tellOffload();
    this.#tellQueues();
    this.#look();
    // What has limits, the kernel would not keep to.
    const mayServe = !this.#state.link_down && !this.#context.netdev?.throttle?.active;
    for (const [i, { vhost, port }] of this.#pairs.entries()) {
      vhost?.look(mayServe && i < this.#used && port.fd !== undefined);
    }
  }

  /** Watches the connections that there are now. */
  #look(): void {
    for (const [i, pair] of this.#pairs.entries()) {
      const { port } = pair;
      if (port.connection === pair.connection) continue;
      pair.connection = port.connection;
      pair.watch = port.fd === undefined ? undefined : this.#context.watcher?.watch(
        port.fd,
        pair.vhost?.isServed ? 0 : Epoll.IN | Epoll.ET,
        () => this.#ready(2 * i, pair),
      );
    }
  }

  #ready(index: number, pair: Pair): void {
    this.#virtio.work(() => {
      if (pair.vhost?.isServed) return;
      this.#send(index + Queue.TX, pair);
      if (index < 2 * this.#used) this.#receive(pair);
    });
  }

  #receive(pair: Pair | undefined): void {
    if (!pair || pair.receiver.run()) return;
    // Nobody may wait for a descriptor that is closed: it may be another's soon.
    pair.watch?.set(0);
    pair.watch = undefined;
    pair.sender.forget();
    pair.port.drop();
  }

  #send(index: number, pair: Pair | undefined): void {
    if (!pair) {
      this.#virtio.queues[index].serve(() => 0);
      return;
    }
    const isWaiting = pair.sender.run();
    pair.watch?.set(Epoll.IN | Epoll.ET | (isWaiting ? Epoll.OUT : 0));
  }

  /** By a queue that the driver does not use nothing may come. */
  #tellQueues(): void {
    const used = this.#used;
    if (used === this.#told) return;
    this.#told = used;
    const more = this.#context.netdev?.more ?? [];
    for (const [i, port] of more.entries()) port.setUsed?.(i + 1 < used);
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
    this.#pairs.at(0)?.port.setOffload(offload);
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
  timers: LIMITS + 2,
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
    mq: { type: "bool", default: false, help: "offer as many pairs of queues as the netdev has" },
    "queue-pairs": {
      type: "uint16",
      default: 1,
      internal: true,
      help: "how many pairs of queues there are",
    },
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
      bit(NetFeature.MAC) | (properties.host_mtu ? bit(NetFeature.MTU) : 0n) |
        (properties.ctrl_vq && Number(properties["queue-pairs"]) > 1 ? bit(NetFeature.MQ) : 0n),
    ),
  offered: (wanted, { netdev }) => offeredByCard(wanted, netdev?.vhost),
  check: ({ mac }) => void parseMac(String(mac)),
  queueSizes: (properties) => [
    ...Array.from({ length: Number(properties["queue-pairs"]) }, () => [
      queueSize(properties, "rx_queue_size"),
      queueSize(properties, "tx_queue_size"),
    ]).flat(),
    ...(properties.ctrl_vq ? [CONTROL_SIZE] : []),
  ],
  create: (state, virtio, context, properties) => new NetDevice(state, virtio, context, properties),
});
