/**
 * Network cards and the backends that they are connected to.
 *
 * @module
 */
import type { NetPortDescription } from "../../devices/net/port.ts";
import type { DeviceRequest } from "../bus/device_set.ts";
import { findDeviceType } from "../bus/device_set.ts";

/** QEMU's first address; each further card has the next one. */
const FIRST_MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/**
 * Connects network cards to their backends, and gives an address to those that have none.
 *
 * @param requests all devices
 * @param port finds a backend; throws if there is none
 */
export function connectNetwork(
  requests: readonly DeviceRequest[],
  port: (id: string) => NetPortDescription,
): DeviceRequest[] {
  let cards = 0;
  return requests.map((request) => {
    if (!Object.hasOwn(findDeviceType(request.type).properties, "netdev")) return request;
    const { properties } = request;
    const mac = properties.mac ?? macOf(cards);
    cards++;
    if (typeof properties.netdev !== "string") {
      return { ...request, properties: { ...properties, mac } };
    }
    const netdev = port(properties.netdev);
    return {
      ...request,
      netdev,
      properties: { ...properties, mac, "vnet-hdr": netdev.headerSize > 0 },
    };
  });
}

function macOf(index: number): string {
  const last = FIRST_MAC[5] + index;
  return [...FIRST_MAC.slice(0, 5), last & 0xff]
    .map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
