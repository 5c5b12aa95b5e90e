/**
 * Commands about PCI: `query-pci`, `info pci`.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command, HmpCommand } from "../context.ts";
import type { PciBridgeInfo, PciFunctionInfo, PciRegionInfo } from "../control.ts";
import { defineHmp } from "../hmp_command.ts";

const schemas = () => import("../schema/pci.ts");

/** What QEMU calls classes, by base class and subclass. */
const classNames = new Map([
  [0x0100, "SCSI controller"],
  [0x0200, "Ethernet controller"],
  [0x0600, "Host bridge"],
  [0x0604, "PCI bridge"],
]);

/** What QEMU makes of a window for ports that there is not. */
const NO_PORTS = { base: 0, limit: 0xfff };

/** A function in QMP's words. */
type Described = ReturnType<typeof describeFunction> & {
  pci_bridge?: ReturnType<typeof describeBridge> & { devices?: Described[] };
};

function describe(info: PciFunctionInfo): Described {
  const { bridge } = info;
  if (!bridge) return describeFunction(info);
  // Before a driver has given the bus a number, nothing behind it can be found.
  const devices = bridge.secondary !== 0 && { devices: bridge.functions.map(describe) };
  return { ...describeFunction(info), pci_bridge: { ...describeBridge(bridge), ...devices } };
}

function describeBridge({ primary, secondary, subordinate, memory, prefetchable }: PciBridgeInfo) {
  return {
    bus: {
      number: primary,
      ...{ secondary, subordinate, io_range: NO_PORTS, memory_range: memory },
      prefetchable_range: prefetchable,
    },
  };
}

function describeFunction({ bus, slot, id, config, regions, bridge }: PciFunctionInfo) {
  const desc = classNames.get(config.class);
  return {
    bus,
    slot,
    function: 0,
    class_info: { ...desc !== undefined && { desc }, class: config.class },
    id: {
      device: config.deviceId,
      vendor: config.vendorId,
      ...!bridge && {
        subsystem: config.subsystemId,
        "subsystem-vendor": config.subsystemVendorId,
      },
    },
    ...config.interruptPin !== 0 && { irq: config.interruptLine },
    irq_pin: config.interruptPin,
    qdev_id: id,
    regions: regions.map(({ bar, address = -1, size, wide }) => ({
      bar,
      type: "memory",
      address,
      size,
      prefetch: wide,
      mem_type_64: wide,
    })),
  };
}

/** The command. */
export const pciCommands: readonly Command[] = [
  defineCommand({
    name: "query-pci",
    help: "show the functions on the PCI bus",
    schema: async () => (await schemas()).queryPci,
    handler: ({ machine: { pciFunctions } }) =>
      pciFunctions.length === 0 ? [] : [{ bus: 0, devices: pciFunctions.map(describe) }],
  }),
];

/** The sub-command of `info`. */
export const infoPciCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "pci",
    help: "show PCI info",
    run: ({ machine }) => machine.pciFunctions.map(functionText).join(""),
  }),
];

function functionText({ bus, slot, id, config, regions, bridge }: PciFunctionInfo): string {
  const number = String(slot).padStart(3);
  const hex = (value: number) => value.toString(16).padStart(4, "0");
  const name = classNames.get(config.class) ?? `Class ${String(config.class).padStart(4, "0")}`;
  const lines = [
    `  Bus ${String(bus).padStart(2)}, device ${number}, function 0:`,
    `    ${name}: PCI device ${hex(config.vendorId)}:${hex(config.deviceId)}`,
    ...bridge
      ? []
      : [`      PCI subsystem ${hex(config.subsystemVendorId)}:${hex(config.subsystemId)}`],
    ...config.interruptPin === 0
      ? []
      : [`      IRQ ${config.interruptLine}, pin ${String.fromCharCode(64 + config.interruptPin)}`],
    ...bridge ? bridgeLines(bridge) : [],
    ...regions.map(regionText),
    `      id "${id}"`,
  ];
  const behind = bridge && bridge.secondary !== 0 ? bridge.functions : [];
  return [...lines.map((line) => `${line}\n`), ...behind.map(functionText)].join("");
}

function bridgeLines({ primary, secondary, subordinate, memory, prefetchable }: PciBridgeInfo) {
  const range = ({ base, limit }: { readonly base: number; readonly limit: number }, digits = 8) =>
    `[0x${base.toString(16).padStart(digits, "0")}, 0x${limit.toString(16).padStart(digits, "0")}]`;
  return [
    `BUS ${primary}.`,
    `secondary bus ${secondary}.`,
    `subordinate bus ${subordinate}.`,
    `IO range ${range(NO_PORTS, 4)}`,
    `memory range ${range(memory)}`,
    `prefetchable memory range ${range(prefetchable)}`,
  ].map((line) => `      ${line}`);
}

/** Where it is not decoded, QEMU's all ones, and what adding its size makes of them. */
function regionText({ bar, address = -1, size, wide }: PciRegionInfo): string {
  const hex = (value: number) =>
    `0x${BigInt.asUintN(64, BigInt(value)).toString(16).padStart(8, "0")}`;
  const kind = wide ? "64 bit prefetchable" : "32 bit";
  return `      BAR${bar}: ${kind} memory at ${hex(address)} [${hex(address + size - 1)}].`;
}
