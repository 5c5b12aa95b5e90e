/**
 * vhost-vsock: a socket device (virtio 1.2, 5.10), whose connections the host's kernel carries.
 *
 * The guest's sockets of the family AF_VSOCK reach those of the host by it. Connections are the kernel's,
 * of this process's device: they go on over a stop, and end where another VMM goes on with the guest,
 * which tells the guest so.
 *
 * @module
 */
import { VhostVsock } from "../../ffi/vhost.ts";
import { type Struct, struct, u8, type View } from "../../ffi/struct.ts";
import type { DeviceContext, Properties } from "../device.ts";
import { readLittleEndian } from "../little_endian.ts";
import type { Chain } from "./chain.ts";
import { VhostRings, withoutLacking } from "./vhost_rings.ts";
import type { Virtio } from "./virtio.ts";
import { defineVirtioDevice, type VirtioBackend } from "./virtio_device.ts";

const NAME = "vhost-vsock-device";
const DEVICE_ID = 19;
const Queue = { RX: 0, TX: 1, EVENT: 2 } as const;
/** Entries of each queue, as QEMU's has. */
const QUEUE_SIZE = 128;
/** VIRTIO_VSOCK_F_SEQPACKET */
const SEQPACKET = 1n << 1n;
/** VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: all connections have ended, and the guest's number may be another. */
const TRANSPORT_RESET = 0;
/** Those below are the host, and what has none (the kernel also refuses the last). */
const FIRST_CID = 3;
const MOST_CID = 0xffff_ffff;

const fields = {
  /** Whether the guest is still to hear that its connections have ended. */
  reset_pending: u8,
};
const state: Struct<typeof fields> = struct("vhost-vsock", fields);

/** The device on one thread. */
class VsockDevice implements VirtioBackend {
  readonly #state: View<typeof fields>;
  readonly #virtio: Virtio;
  readonly #context: DeviceContext;
  readonly #cid: bigint;
  readonly #rings: VhostRings | undefined;

  constructor(
    state: View<typeof fields>,
    virtio: Virtio,
    context: DeviceContext,
    properties: Properties,
  ) {
    this.#state = state;
    this.#virtio = virtio;
    this.#context = context;
    this.#cid = BigInt(properties["guest-cid"] ?? 0);
    const { vsock } = context;
    this.#rings = vsock && new VhostRings({
      get device() {
        return vsock.device ?? new VhostVsock(-1);
      },
      ...{ virtio, context, words: vsock.words, calls: vsock.calls },
      queues: [Queue.RX, Queue.TX],
      features: SEQPACKET,
      always: 0n,
      what: "vhost vsock",
      instead: "the guest has no sockets until it resets the device",
      keepsOwner: true,
      begin: () => vsock.device!.setRunning(true),
      end: () => vsock.device!.setRunning(false),
      changed: () => {},
    });
  }

  handleQueue(index: number): void {
    this.#rings?.look(this.#context.vsock?.device !== undefined);
    if (index !== Queue.EVENT) return;
    this.#virtio.queues[index].serve((chain) => this.#tell(chain));
  }

  halt(): void {
    this.#rings?.halt();
  }

  rest(): void {
    this.#rings?.rest();
  }

  /** The kernel has the guest's number for this VMM now: what was connected is so no more. */
  connected(): void {
    this.#state.reset_pending = 1;
    for (const doorbell of this.#context.doorbells) doorbell.ring();
  }

  readConfig(offset: number, size: number): number {
    const bytes = new Uint8Array(new BigUint64Array([this.#cid]).buffer);
    return readLittleEndian(bytes, offset, size);
  }

  reset(): void {
    this.#state.reset_pending = 0;
  }

  /** @returns bytes written to it; undefined while there is nothing to tell */
  #tell({ writable }: Chain): number | undefined {
    if (!this.#state.reset_pending) return undefined;
    this.#state.reset_pending = 0;
    return writable.copyIn(new Uint8Array(new Uint32Array([TRANSPORT_RESET]).buffer));
  }
}

/** The socket device. */
export const vhostVsock = defineVirtioDevice({
  name: NAME,
  help: "Sockets between the guest and the host (AF_VSOCK)",
  deviceId: DEVICE_ID,
  version: 1,
  state,
  properties: {
    "guest-cid": { type: "uint64", help: "the guest's number, 3 or more, no other guest's" },
  },
  check({ "guest-cid": cid }) {
    if (cid === undefined || Number(cid) < FIRST_CID) {
      throw new RangeError("guest-cid property must be greater than 2");
    }
    if (Number(cid) > MOST_CID) throw new RangeError("guest-cid property must be a 32-bit number");
  },
  features: () => SEQPACKET,
  offered: (wanted, { vsock }) => withoutLacking(wanted, vsock?.features ?? 0n, SEQPACKET),
  queueSizes: () => [QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE],
  create: (state, virtio, context, properties) =>
    new VsockDevice(state, virtio, context, properties),
});
