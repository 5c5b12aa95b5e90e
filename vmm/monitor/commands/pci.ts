/**
 * Commands about PCI: `query-pci`, `info pci`.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command, HmpCommand } from "../context.ts";
import type { PciFunctionInfo, PciRegionInfo } from "../control.ts";
import { defineHmp } from "../hmp_command.ts";

const schemas = () => import("../schema/pci.ts");

/** What QEMU calls classes, by base class and subclass. */
const classNames = new Map([
  [0x0100, "SCSI controller"],
  [0x0200, "Ethernet controller"],
  [0x0600, "Host bridge"],
]);

/** QMP's words for a function. */
function describe({ slot, id, config, regions }: PciFunctionInfo) {
  const desc = classNames.get(config.class);
  return {
    bus: 0,
    slot,
    function: 0,
    class_info: { ...desc !== undefined && { desc }, class: config.class },
    id: {
      device: config.deviceId,
      vendor: config.vendorId,
      subsystem: config.subsystemId,
      "subsystem-vendor": config.subsystemVendorId,
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

function functionText({ slot, id, config, regions }: PciFunctionInfo): string {
  const number = String(slot).padStart(3);
  const hex = (value: number) => value.toString(16).padStart(4, "0");
  const name = classNames.get(config.class) ?? `Class ${String(config.class).padStart(4, "0")}`;
  const lines = [
    `  Bus  0, device ${number}, function 0:`,
    `    ${name}: PCI device ${hex(config.vendorId)}:${hex(config.deviceId)}`,
    `      PCI subsystem ${hex(config.subsystemVendorId)}:${hex(config.subsystemId)}`,
    ...config.interruptPin === 0
      ? []
      : [`      IRQ ${config.interruptLine}, pin ${String.fromCharCode(64 + config.interruptPin)}`],
    ...regions.map(regionText),
    `      id "${id}"`,
  ];
  return lines.map((line) => `${line}\n`).join("");
}

/** Where it is not decoded, QEMU's all ones, and what adding its size makes of them. */
function regionText({ bar, address = -1, size, wide }: PciRegionInfo): string {
  const hex = (value: number) =>
    `0x${BigInt.asUintN(64, BigInt(value)).toString(16).padStart(8, "0")}`;
  const kind = wide ? "64 bit prefetchable" : "32 bit";
  return `      BAR${bar}: ${kind} memory at ${hex(address)} [${hex(address + size - 1)}].`;
}
