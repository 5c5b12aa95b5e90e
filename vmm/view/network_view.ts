/**
 * Network cards and backends as the monitor shows them, and finds them by name.
 *
 * @module
 */
import type { DeviceInstance } from "../bus/device_set.ts";
import { userDeviceId } from "../machine/disks.ts";
import { cardName } from "../machine/orphans.ts";
import type { NetClientInfo } from "../monitor/control.ts";
import { deviceNotFound, QmpError } from "../monitor/errors.ts";
import type { VirtualMachine } from "../virtual_machine.ts";

/** What is connected: each card, with its backend below it, then the backends that no card has. */
export function netClients(vm: VirtualMachine): NetClientInfo[] {
  const cards = cardsOf(vm);
  const peers = new Set(cards.map(({ properties }) => properties.netdev));
  const alone = [...vm.netdevs.backends.keys()].filter((id) => !peers.has(id));
  return [
    ...cards.map((card): NetClientInfo => {
      const { type, properties: { mac, netdev } } = card;
      const info = `index=0,type=nic,model=${type.name},macaddr=${mac}`;
      return {
        name: nameOf(vm, card),
        info,
        ...(typeof netdev === "string" && { peer: backendInfo(vm, netdev) }),
      };
    }),
    ...alone.map((id) => backendInfo(vm, id)),
  ];
}

function backendInfo(vm: VirtualMachine, id: string): NetClientInfo {
  const { config: { type, throttleGroup }, info } = vm.netdevs.backends.get(id)!;
  const limits = throttleGroup === undefined ? "" : `,throttle-group=${throttleGroup}`;
  return { name: id, info: `index=0,type=${type},${info}${limits}` };
}

function cardsOf(vm: VirtualMachine): DeviceInstance[] {
  return vm.machine.devices.devices.filter(({ type }) => Object.hasOwn(type.properties, "netdev"));
}

function nameOf({ config }: VirtualMachine, { id }: DeviceInstance): string {
  const card = config.devices.find((device) => userDeviceId(device, config.devices) === id);
  return card ? cardName(card, config) : id;
}

/**
 * Plugs a cable in or pulls it out.
 *
 * @param name of a card, or of its backend
 * @throws {QmpError} in QEMU's words if there is neither
 */
export function setLink(vm: VirtualMachine, name: string, isUp: boolean): void {
  const card = cardsOf(vm).find((one) =>
    nameOf(vm, one) === name || one.properties.netdev === name
  );
  if (!card) throw deviceNotFound(name);
  vm.machine.devices.with(card.id, (device) => device.setLink?.(isUp));
}

/**
 * Closes a backend.
 *
 * @throws {QmpError} if there is none, in QEMU's words, or a card has it, which stays as long as the machine
 */
export function removeNetdev(vm: VirtualMachine, id: string): void {
  if (!vm.netdevs.backends.has(id)) throw deviceNotFound(id);
  const card = cardsOf(vm).find(({ properties }) => properties.netdev === id);
  if (card) {
    throw new QmpError(
      `Netdev '${id}' is in use by '${nameOf(vm, card)}', and a card cannot be removed while the` +
        ` guest runs: set_link ${id} off pulls its cable`,
    );
  }
  vm.netdevs.remove(id);
}
