/**
 * Network cards and the backends that they are connected to.
 *
 * @module
 */
import { type NetdevConfig, queuesOf } from "../../devices/net/config.ts";
import type { VsockPortDescription } from "../../devices/virtio/vsock_port.ts";
import type { NetPortDescription } from "../../devices/net/port.ts";
import type { DeviceRequest } from "../bus/device_set.ts";
import { findDeviceType } from "../bus/device_set.ts";

/** QEMU's first address; each further card has the next one. */
const FIRST_MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/** Gives an address to network cards that have none, and queues as their backends have. */
export function addressCards(
  requests: readonly DeviceRequest[],
  netdevs: readonly NetdevConfig[],
): DeviceRequest[] {
  let cards = 0;
  return requests.map((request) => {
    if (!Object.hasOwn(findDeviceType(request.type).properties, "netdev")) return request;
    const mac = request.properties.mac ?? macOf(cards);
    cards++;
    const netdev = netdevs.find(({ id }) => id === request.properties.netdev);
    const pairs = netdev && request.properties.mq === true && { "queue-pairs": queuesOf(netdev) };
    return { ...request, properties: { ...request.properties, ...pairs, mac } };
  });
}

/**
 * Connects a device to its network backend, if it has one.
 *
 * @param port finds a backend; throws if there is none
 */
export function connectNetwork(
  request: DeviceRequest,
  port: (id: string) => NetPortDescription,
): DeviceRequest {
  const { properties } = request;
  if (typeof properties.netdev !== "string") return request;
  const netdev = port(properties.netdev);
  return { ...request, netdev, properties: { ...properties, "vnet-hdr": netdev.headerSize > 0 } };
}

/**
 * Connects a socket device to the kernel, if it is one.
 *
 * @param port opens the kernel's half, for a guest's number
 */
export function connectSockets(
  request: DeviceRequest,
  port: (id: string, cid: number) => VsockPortDescription,
): DeviceRequest {
  const { type, id, properties } = request;
  if (!Object.hasOwn(findDeviceType(type).properties, "guest-cid")) return request;
  return { ...request, vsock: port(id, Number(properties["guest-cid"])) };
}

function macOf(index: number): string {
  const last = FIRST_MAC[5] + index;
  return [...FIRST_MAC.slice(0, 5), last & 0xff]
    .map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
