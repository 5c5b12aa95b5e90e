/**
 * Parts of a network, and drives, that nothing is connected to: whoever said so may have meant something
 * else.
 *
 * @module
 */
import type { DeviceConfig, MachineConfig } from "../config.ts";
import { findDeviceType } from "../bus/device_set.ts";

const isCard = ({ driver }: DeviceConfig) =>
  Object.hasOwn(findDeviceType(driver).properties, "netdev");

/** What monitors call a network card: its id, or its model and how many of it are before. */
export function cardName(card: DeviceConfig, { devices }: Pick<MachineConfig, "devices">): string {
  const before = devices.slice(0, devices.indexOf(card))
    .filter(({ driver }) => driver === card.driver);
  return card.id ?? `${card.driver}.${before.length}`;
}

/** One line for each, in QEMU's words where it has some. */
export function orphanWarnings(config: MachineConfig): string[] {
  const { blockdevs, devices, drives, netdevs } = config;
  const used = (property: "drive" | "netdev", id: string) =>
    devices.some(({ properties }) => properties[property] === id);
  const isPart = (id: string) => blockdevs.some((node) => "file" in node && node.file === id);
  return [
    ...drives.filter(({ id, nodeName }) =>
      nodeName !== undefined && !used("drive", id) && !isPart(id)
    )
      .map(({ id }) =>
        `warning: Orphaned drive without device: id=${id},if=none; say if=virtio, or -device` +
        ` virtio-blk-device,drive=${id}`
      ),
    ...netdevs.filter(({ id }) => !used("netdev", id))
      .map(({ id }) => `warning: netdev ${id} has no peer`),
    ...devices.filter((device) => isCard(device) && device.properties.netdev === undefined)
      .map((card) => `warning: nic ${cardName(card, config)} has no peer`),
  ];
}
