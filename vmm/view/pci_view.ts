/**
 * The PCI bus as the monitor shows it: what the functions' configuration spaces say.
 *
 * @module
 */
import { memoryWindow, prefetchableWindow } from "../../devices/pci/bridge.ts";
import { BridgeRegister, Command, Register } from "../../devices/pci/config_space.ts";
import { BarNumber, Range } from "../../devices/virtio/pci_function.ts";
import type { DeviceInstance } from "../bus/device_set.ts";
import type { Machine } from "../machine/machine.ts";
import { PCIE_ID } from "../machine/microvm.ts";
import { ROOT_PORT, slotOf } from "../machine/pci.ts";
import type { PciBridgeInfo, PciFunctionInfo, PciRegionInfo } from "../monitor/control.ts";

/** The number of every function's range that is its configuration space. */
const CONFIG = 0;
/** The numbers of a port's range and register for its interrupt message. */
const PORT_MESSAGES = [{ bar: 0, range: 1, wide: false }];
/** The memories of a virtio function, by their registers' numbers. */
const memories = [
  { bar: BarNumber.MSIX, range: Range.MSIX, wide: false },
  { bar: BarNumber.REGISTERS, range: Range.REGISTERS, wide: true },
];
/** The bits of a base address register that are not of the address. */
const FLAGS = 0xf;

/** Reads configuration space. */
type Read = (offset: number, size: number) => number;

/** The functions on the root bus, by their slots, with those behind them; none if there is no bus. */
export function pciFunctions(machine: Machine): PciFunctionInfo[] {
  const { devices } = machine.devices;
  return devices.filter(({ properties }) => properties["config-base"] !== undefined)
    .map((device) => describe(machine, device, 0))
    .sort((a, b) => a.slot - b.slot);
}

/** The functions on a device's bus. */
export function functionsBehind(machine: Machine, id: string): DeviceInstance[] {
  const { devices, description } = machine.devices;
  const ids = description.devices.filter(({ parent }) => parent === id).map(({ id }) => id);
  return devices.filter((device) => device.type.bus === "PCI" && ids.includes(device.id));
}

function describe(machine: Machine, device: DeviceInstance, bus: number): PciFunctionInfo {
  const read: Read = (offset, size) =>
    machine.devices.with(device.id, (one) => one.read(CONFIG, offset, size));
  const base = device.properties["config-base"];
  return {
    bus,
    // Behind a port there is device 0 only.
    slot: base === undefined ? 0 : slotOf(Number(base)),
    id: device.id === PCIE_ID ? "" : device.id,
    config: {
      vendorId: read(Register.VENDOR_ID, 2),
      deviceId: read(Register.DEVICE_ID, 2),
      class: read(Register.CLASS + 1, 2),
      subsystemVendorId: read(Register.SUBSYSTEM_VENDOR_ID, 2),
      subsystemId: read(Register.SUBSYSTEM_ID, 2),
      interruptLine: read(Register.INTERRUPT_LINE, 1),
      interruptPin: read(Register.INTERRUPT_PIN, 1),
    },
    regions: regionsOf(device, read),
    ...device.type.name === ROOT_PORT && { bridge: describeBridge(machine, device.id, read) },
  };
}

function describeBridge(machine: Machine, id: string, read: Read): PciBridgeInfo {
  const secondary = read(BridgeRegister.SECONDARY_BUS, 1);
  return {
    primary: read(BridgeRegister.PRIMARY_BUS, 1),
    secondary,
    subordinate: read(BridgeRegister.SUBORDINATE_BUS, 1),
    memory: memoryWindow({ read }),
    prefetchable: prefetchableWindow({ read }),
    functions: functionsBehind(machine, id).map((device) => describe(machine, device, secondary)),
  };
}

function regionsOf({ type, properties }: DeviceInstance, read: Read): PciRegionInfo[] {
  const ranges = type.ranges(properties);
  const isDecoded = (read(Register.COMMAND, 2) & Command.MEMORY) !== 0;
  const all = type.name === ROOT_PORT ? PORT_MESSAGES : memories;
  return all.filter(({ range }) => range < ranges.length).map(({ bar, range, wide }) => {
    const at = Register.BAR0 + 4 * bar;
    const low = read(at, 4);
    const address = low - (low & FLAGS) + (wide ? read(at + 4, 4) * 2 ** 32 : 0);
    const isThere = isDecoded && address !== 0;
    return { bar, size: ranges[range].size, wide, ...isThere && { address } };
  });
}
