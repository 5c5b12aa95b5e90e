/**
 * The memory balloon as the monitor shows it.
 *
 * @module
 */
import type { Balloon } from "../../devices/device.ts";
import { balloonOf } from "../balloon_events.ts";
import { QmpError } from "../monitor/errors.ts";
import type { VirtualMachine } from "../virtual_machine.ts";

/** Does something with the balloon. @throws {QmpError} in QEMU's words if there is none */
function withBalloon<T>({ machine }: VirtualMachine, action: (balloon: Balloon) => T): T {
  const id = balloonOf(machine.devices);
  if (id !== undefined) return machine.devices.with(id, ({ balloon }) => action(balloon!));
  throw new QmpError("No balloon device has been activated", "DeviceNotActive");
}

/** How much memory the guest has, without what it has given back. @throws {QmpError} */
export function guestMemory(vm: VirtualMachine): number {
  return withBalloon(vm, ({ actual }) => Math.max(0, vm.machine.memory.size - actual));
}

/** Asks the guest to give memory back until it has so much. @throws {QmpError} */
export function setBalloon(vm: VirtualMachine, bytes: number): void {
  const { size } = vm.machine.memory;
  withBalloon(vm, (balloon) => balloon.setTarget(size - Math.min(bytes, size)));
}
