/**
 * A network card's queues served by the kernel: vhost-net, between the rings and a tap.
 *
 * @module
 */
import { NO_BACKEND, VHOST_NET_HEADER } from "../../ffi/vhost.ts";
import type { DeviceContext } from "../device.ts";
import type { NetPort, VhostPort } from "../net/port.ts";
import { NetFeature, Queue } from "./net_state.ts";
import { VhostRings, withoutLacking } from "./vhost_rings.ts";
import type { Virtio } from "./virtio.ts";

/** Features of cards that the kernel has to know of, where the driver has accepted them. */
const KNOWN = 1n << BigInt(NetFeature.MRG_RXBUF);

/** What of a card's features is offered, where the kernel can serve its queues. */
export function offeredByCard(wanted: bigint, vhost: VhostPort | undefined): bigint {
  return vhost ? withoutLacking(wanted, vhost.features, KNOWN) : wanted;
}

/**
 * A pair of queues that the kernel can serve.
 *
 * @param pair its number
 * @param changed told when the kernel has begun, or ended
 * @returns undefined if it cannot: the backend is no tap, or without vhost
 */
export function vhostPair(
  virtio: Virtio,
  context: DeviceContext,
  port: NetPort,
  pair: number,
  changed: (isServed: boolean) => void,
): VhostRings | undefined {
  const { vhost } = port;
  if (!vhost) return undefined;
  const { device, calls, words } = vhost;
  const setBackend = (rings: readonly number[], fd: number) => {
    for (const ring of rings) device.setNetBackend(ring, fd);
  };
  return new VhostRings({
    ...{ device, virtio, context, words, calls, changed },
    queues: [Queue.RX, Queue.TX].map((queue) => 2 * pair + queue),
    features: KNOWN,
    always: port.headerSize === 0 ? VHOST_NET_HEADER : 0n,
    what: "vhost net",
    instead: "falling back on userspace virtio",
    begin: (rings) => setBackend(rings, port.fd ?? NO_BACKEND),
    end: (rings) => setBackend(rings, NO_BACKEND),
  });
}
