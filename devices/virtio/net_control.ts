/**
 * The control queue of a network device (virtio 1.2, 5.1.6.5).
 *
 * Filters are the driver's wish to get less (5.1.6.5.1, "best-effort"): what a backend brings is for
 * this guest alone, and the guest's kernel looks at addresses itself, so all of it is passed on.
 *
 * @module
 */
import { type Chain, MalformedRing } from "./chain.ts";
import { NetFeature, type NetState } from "./net_state.ts";
import type { Virtio } from "./virtio.ts";

const OK = 0;
const ERROR = 1;

/** VIRTIO_NET_CTRL_*: classes of commands. */
const Class = { RX: 0, MAC: 1, VLAN: 2, MQ: 4, GUEST_OFFLOADS: 5 } as const;
/** VIRTIO_NET_CTRL_RX_NOBCAST, the last of its class. */
const LAST_RX = 5;
const MAC_TABLE_SET = 0;
const MAC_ADDR_SET = 1;
const VLAN_DEL = 1;
const VLANS = 4096;
const MAC_SIZE = 6;

/** Class and command, then the most that a command says: two tables of addresses. */
const MOST = 2 + 2 * (4 + 64 * MAC_SIZE);

/** What the driver may take unfinished. */
const OFFLOADS = [
  NetFeature.GUEST_CSUM,
  NetFeature.GUEST_TSO4,
  NetFeature.GUEST_TSO6,
  NetFeature.GUEST_ECN,
];

/** What the driver takes unfinished now, as feature bits. */
export function guestOffloads(virtio: Virtio, state: NetState): number {
  const accepted = OFFLOADS.reduce(
    (bits, feature) => bits | (virtio.hasFeature(feature) ? 1 << feature : 0),
    0,
  );
  return state.offloads_set ? accepted & state.offloads : accepted;
}

/** Carries commands out, on the I/O thread. */
export class NetControl {
  readonly #state: NetState;
  readonly #virtio: Virtio;
  readonly #pairs: number;
  readonly #buffer = new Uint8Array(MOST);

  /**
   * @param state the device's own state
   * @param virtio the device
   * @param pairs how many pairs of queues there are
   */
  constructor(state: NetState, virtio: Virtio, pairs: number) {
    this.#state = state;
    this.#pairs = pairs;
    this.#virtio = virtio;
  }

  /** Answers a command. @returns bytes written @throws {MalformedRing} */
  answer({ readable, writable }: Chain): number {
    if (readable.length < 2 || writable.length < 1) {
      throw new MalformedRing("virtio-net ctrl missing headers");
    }
    const length = readable.copyOut(this.#buffer);
    const isDone = length === readable.length && this.#carryOut(this.#buffer.subarray(0, length));
    writable.copyIn(Uint8Array.of(isDone ? OK : ERROR));
    return 1;
  }

  #carryOut(bytes: Uint8Array<ArrayBuffer>): boolean {
    const [kind, command] = bytes;
    const data = new DataView(bytes.buffer, bytes.byteOffset + 2, bytes.length - 2);
    switch (kind) {
      case Class.RX:
        return command <= LAST_RX && data.byteLength === 1;
      case Class.MAC:
        if (command === MAC_ADDR_SET) return this.#setMac(bytes.subarray(2));
        return command === MAC_TABLE_SET && areTables(data);
      case Class.VLAN:
        return command <= VLAN_DEL && data.byteLength === 2 && data.getUint16(0, true) < VLANS;
      case Class.MQ:
        return command === 0 && data.byteLength === 2 && this.#setPairs(data.getUint16(0, true));
      case Class.GUEST_OFFLOADS:
        return command === 0 && data.byteLength === 8 && this.#setOffloads(data);
    }
    return false;
  }

  #setPairs(count: number): boolean {
    if (!this.#virtio.hasFeature(NetFeature.MQ) || count < 1 || count > this.#pairs) return false;
    this.#state.more_pairs = count - 1;
    return true;
  }

  #setMac(mac: Uint8Array): boolean {
    if (mac.length !== MAC_SIZE) return false;
    this.#state.mac.set(mac);
    return true;
  }

  #setOffloads(data: DataView): boolean {
    const wanted = data.getUint32(0, true);
    const known = OFFLOADS.reduce(
      (bits, feature) => bits | (this.#virtio.hasFeature(feature) ? 1 << feature : 0),
      0,
    );
    if (!this.#virtio.hasFeature(NetFeature.CTRL_GUEST_OFFLOADS)) return false;
    if ((wanted & ~known) !== 0 || data.getUint32(4, true) !== 0) return false;
    this.#state.offloads_set = 1;
    this.#state.offloads = wanted;
    return true;
  }
}

/** Whether the data are two tables of addresses, each after its length. */
function areTables(data: DataView): boolean {
  let at = 0;
  for (let table = 0; table < 2; table++) {
    if (at + 4 > data.byteLength) return false;
    at += 4 + MAC_SIZE * data.getUint32(at, true);
  }
  return at === data.byteLength;
}
