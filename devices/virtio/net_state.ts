/**
 * What a virtio network device keeps, and what its driver knows by number (virtio 1.2, 5.1).
 *
 * @module
 */
import { bytes, type Struct, struct, u16, u32, u8, type View } from "../../ffi/struct.ts";

const fields = {
  /** Its address, as the driver has set it. */
  mac: bytes(6),
  /** Whether the cable is out. */
  link_down: u8,
  /** Whether it was waited long enough for room for a long frame. */
  rx_hasty: u8,
  /** Whether the driver has said what it takes unfinished, other than by features. */
  offloads_set: u8,
  /** What it has said: feature bits. */
  offloads: u32,
  /** How much of a frame has gone, in the backend's count; 0 between frames. */
  tx_sent: u32,
  /** How much all of it is. */
  tx_length: u32,
  /** Whether the rest of it is gone: the peer gets zeros, for it counts bytes. */
  tx_abandoned: u8,
  // In older versions the end of the structure, which is zeros.
  /** How many pairs of queues the driver uses beside the first. */
  more_pairs: u8,
  /** What `rx_hasty` is of the first pair, of the others: a bit for each, that of the second is 1. */
  more_hasty: u16,
};

/** See {@linkcode NetState}. */
export const netState: Struct<typeof fields> = struct("virtio-net", fields);
/** The state of a network device. */
export type NetState = View<typeof fields>;

/** Queues by number, where there is one pair; those of the others follow the first pair. */
export const Queue = { RX: 0, TX: 1, CTRL: 2 } as const;

/** What a pair of queues keeps. */
export type PairState = Pick<
  NetState,
  "link_down" | "rx_hasty" | "tx_sent" | "tx_length" | "tx_abandoned"
>;

/** Of a pair beside the first, which a tap's queue is for: its frames go whole or not at all. */
export class FurtherPair implements PairState {
  readonly #state: NetState;
  readonly #bit: number;
  tx_sent = 0;
  tx_length = 0;
  tx_abandoned = 0;

  /**
   * @param state the device's
   * @param pair its number, from 1 on
   */
  constructor(state: NetState, pair: number) {
    this.#state = state;
    this.#bit = 1 << pair;
  }

  get link_down(): number {
    return this.#state.link_down;
  }

  get rx_hasty(): number {
    return Number((this.#state.more_hasty & this.#bit) !== 0);
  }

  set rx_hasty(value: number) {
    const { more_hasty: all } = this.#state;
    this.#state.more_hasty = value ? all | this.#bit : all & ~this.#bit;
  }
}

/** Feature bits (5.1.3). */
export const NetFeature = {
  CSUM: 0,
  GUEST_CSUM: 1,
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  GUEST_TSO4: 7,
  GUEST_TSO6: 8,
  GUEST_ECN: 9,
  HOST_TSO4: 11,
  HOST_TSO6: 12,
  HOST_ECN: 13,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  CTRL_RX_EXTRA: 20,
  MQ: 22,
  CTRL_MAC_ADDR: 23,
} as const;

/** Bytes of struct virtio_net_hdr of virtio 1, before every frame (5.1.6). */
export const HEADER_SIZE = 12;
/** Where it says how many buffers a frame takes. */
export const NUM_BUFFERS = 10;
