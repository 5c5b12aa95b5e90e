/**
 * The machine as trees: address spaces (`info mtree`), devices (`info qtree`), RAM blocks.
 *
 * @module
 */
import type { AddressRange } from "../../devices/device.ts";
import type { DeviceInstance } from "../bus/device_set.ts";
import type { Machine } from "../machine/machine.ts";
import {
  ELCR,
  IOAPIC,
  LOCAL_APIC,
  PCIE_ID,
  PICS,
  PIT,
  type Place,
  SPEAKER,
} from "../machine/microvm.ts";
import type {
  AddressSpaceInfo,
  BusInfo,
  DeviceInfo,
  MemoryRegionInfo,
  RamBlockInfo,
} from "../monitor/control.ts";
import { ROOT_PORT } from "../machine/pci.ts";
import type { VirtualMachine } from "../virtual_machine.ts";
import { functionsBehind } from "./pci_view.ts";
import { virtioTree, withPorts } from "./virtio_tree.ts";

const MAX_ADDRESS = 0xffff_ffff_ffff_ffffn;
const PAGE = 4096;

/** Whether the chips are KVM's, which have names of their own, or the accelerator's in this process. */
function hasKvmChips(machine: Machine): boolean {
  return machine.accelerator.name === "kvm";
}

/** A chip's place by the name that QEMU has for it under the accelerator. */
function chip(machine: Machine, place: Place): Place {
  return hasKvmChips(machine) ? place : { ...place, name: place.name.replace(/^kvm-/, "") };
}

/** The names of the chips' drivers. */
function chipDrivers(machine: Machine): { ioapic: string; pic: string; pit: string } {
  return hasKvmChips(machine)
    ? { ioapic: "kvm-ioapic", pic: "kvm-i8259", pit: "kvm-pit" }
    : { ioapic: "ioapic", pic: "isa-i8259", pit: "isa-pit" };
}

/** `info irq`: the chips count no interrupts, as in the recordings of QEMU with KVM. */
export function interruptStatistics(machine: Machine): string {
  const { ioapic, pic } = chipDrivers(machine);
  return `IRQ statistics for ${ioapic}:\nIRQ statistics for ${pic}:\n`;
}

/** The spaces `memory` and `I/O`. */
export function addressSpaces(machine: Machine): AddressSpaceInfo[] {
  const claims = [...machine.devices.ranges().values()].flat();
  const ports = [
    ...[...PICS, ELCR, ...(machine.hardware.hasPit ? [PIT, SPEAKER] : [])].map((place) =>
      chip(machine, place)
    ),
    ...claims.filter((range) => range.space === "pio"),
  ];
  const memory = [
    ...[IOAPIC, LOCAL_APIC].map((place) => chip(machine, place)),
    ...claims.filter((range) => range.space === "mmio"),
  ];
  const ram = machine.memory.regions.map((region): MemoryRegionInfo => ({
    name: region.name,
    start: BigInt(region.gpa),
    end: BigInt(region.gpa + region.size - 1),
    priority: 0,
    kind: region.readonly ? "rom" : "ram",
  }));
  return [
    { name: "memory", root: container("system", MAX_ADDRESS, [...ram, ...memory.map(io)]) },
    { name: "I/O", root: container("io", 0xffffn, ports.map(io)) },
  ];
}

function container(name: string, end: bigint, children: MemoryRegionInfo[]): MemoryRegionInfo {
  children.sort((a, b) => a.start < b.start ? -1 : 1);
  return { name, start: 0n, end, priority: 0, kind: "container", children };
}

function io({ name, base, size }: Place): MemoryRegionInfo {
  return { name, start: BigInt(base), end: BigInt(base + size - 1), priority: 0, kind: "i/o" };
}

/** The system bus with the interrupt controllers and timer, and the ISA bus. */
export function deviceTree(machine: Machine): BusInfo {
  const ranges = machine.devices.ranges();
  const describe = (device: DeviceInstance) => describeDevice(device, ranges.get(device.id) ?? []);
  const { devices } = machine.devices;
  const drivers = chipDrivers(machine);
  const isa: BusInfo = {
    name: "isa.0",
    type: "ISA",
    devices: [
      ...(machine.hardware.hasPit
        ? [{ driver: drivers.pit, id: "", properties: [number("iobase", PIT.base)] }]
        : []),
      {
        driver: drivers.pic,
        id: "",
        properties: [number("iobase", PICS[1].base), flag("master", false)],
      },
      {
        driver: drivers.pic,
        id: "",
        properties: [number("iobase", PICS[0].base), flag("master", true)],
      },
      ...devices.filter(({ type }) => !type.bus).map(describe),
    ],
  };
  return {
    name: "main-system-bus",
    type: "System",
    devices: [
      // A transport's registers are the transport's own.
      ...virtioTree(machine, (device) => ({ ...describe(device), mmio: [] })),
      {
        driver: drivers.ioapic,
        id: "",
        properties: [number("gsi_base", 0)],
        mmio: [{ start: BigInt(IOAPIC.base), size: BigInt(IOAPIC.size) }],
      },
      ...devices.filter(({ type }) => type.bus === "main-system-bus").map((device) =>
        device.id === PCIE_ID
          ? { ...describe(device), buses: [rootBus(machine, describe)] }
          : describe(device)
      ),
      { driver: "isabus-bridge", id: "", properties: [], buses: [isa] },
      { driver: "kvmclock", id: "", properties: [] },
    ],
  };
}

function rootBus(machine: Machine, describe: (device: DeviceInstance) => DeviceInfo): BusInfo {
  const functions = machine.devices.devices.filter(({ type, properties }) =>
    type.bus === "PCI" && properties["config-base"] !== undefined
  );
  return {
    name: PCIE_ID,
    type: "PCIE",
    devices: functions.map((device) =>
      device.type.name === ROOT_PORT
        ? { ...describe(device), buses: [busBehind(machine, device, describe)] }
        : withPorts(machine, device, describe)
    ),
  };
}

function busBehind(
  machine: Machine,
  { id }: DeviceInstance,
  describe: (device: DeviceInstance) => DeviceInfo,
): BusInfo {
  const functions = functionsBehind(machine, id);
  const devices = functions.map((device) => withPorts(machine, device, describe));
  return { name: id, type: "PCIE", devices };
}

function describeDevice(
  { type, id, properties }: DeviceInstance,
  ranges: readonly AddressRange[],
): DeviceInfo {
  return {
    driver: type.name,
    id,
    properties: Object.entries(properties).filter(([name]) => !type.properties[name].internal)
      .map(([name, value]) =>
        typeof value === "number"
          ? number(name, value)
          : typeof value === "boolean"
          ? flag(name, value)
          : [name, `"${value}"`] as const
      ),
    mmio: ranges.filter((range) => range.space === "mmio").map((range) => ({
      start: BigInt(range.base),
      size: BigInt(range.size),
    })),
  };
}

function number(name: string, value: number): readonly [string, string] {
  return [name, `${value} (0x${value.toString(16)})`];
}

function flag(name: string, value: boolean): readonly [string, string] {
  return [name, String(value)];
}

/** Host mappings of guest memory, one after another in the order in which they were made. */
export function ramBlocks(vm: VirtualMachine): RamBlockInfo[] {
  let offset = 0;
  return [...vm.backends.values()].map(({ config, mapping }) => {
    const block: RamBlockInfo = {
      name: config.id,
      pageSize: config.hugetlb ? config.hugetlbsize ?? 2 << 20 : PAGE,
      offset: BigInt(offset),
      used: BigInt(config.size),
      total: BigInt(config.size),
      hostAddress: BigInt(mapping.address),
      readOnly: config.readonly,
    };
    offset += config.size;
    return block;
  });
}
