/**
 * `-machine`, `-accel` and `-cpu`.
 *
 * @module
 */
import { MACHINE_TYPE } from "../machine/microvm.ts";
import type { CpuConfig, MachineTypeConfig } from "../config.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { type Keyval, parseKeyvalHelp, parseOpts } from "./grammar.ts";
import { propertyHelp } from "./property_help.ts";
import { parseBool, parseEnum, readBool } from "./values.ts";

const ON_OFF_AUTO = ["on", "off", "auto"] as const;

/** Reads QEMU's OnOffAuto. */
const onOffAuto = (name: string, text: string, auto: boolean): boolean => {
  const value = parseEnum(name, text, ON_OFF_AUTO);
  return value === "auto" ? auto : value === "on";
};

/** One property of the machine. */
interface MachineProperty {
  readonly type: string;
  readonly help: string;
  /** What the value changes in the configuration. */
  read(name: string, text: string): Partial<MachineTypeConfig>;
}

/** A part of QEMU's microvm that does not exist here: it can be turned off, but not on. */
function absent(what: string): MachineProperty {
  return {
    type: "OnOffAuto",
    help: `${what} does not exist in this machine: off or auto`,
    read(name, text) {
      if (onOffAuto(name, text, false)) {
        throw new OptionError(`Parameter '${name}' does not accept value '${text}': no ${what}`);
      }
      return {};
    },
  };
}

const flag = (key: "auxRamShare" | "isaSerial" | "autoKernelCmdline" | "xPauseClock") => ({
  type: "bool",
  read: (name: string, text: string) => ({ [key]: parseBool(name, text) }),
});

const chip = (key: "pit" | "pic" | "rtc", auto: boolean) => ({
  type: "OnOffAuto",
  read: (name: string, text: string) => ({ [key]: onOffAuto(name, text, auto) }),
});

const BOOT_PROTOCOLS = ["auto", "pvh", "linux64"] as const;

/** The properties of `microvm`; `auto` is what QEMU's microvm takes it for with KVM, without ACPI. */
const PROPERTIES: Readonly<Record<string, MachineProperty>> = {
  acpi: absent("ACPI"),
  "aux-ram-share": { ...flag("auxRamShare"), help: "Share auxiliary guest RAM, which CPR needs" },
  "auto-kernel-cmdline": {
    ...flag("autoKernelCmdline"),
    help: "Set off to disable adding virtio-mmio devices to the kernel cmdline",
  },
  graphics: absent("graphics"),
  ioapic2: absent("second IO-APIC"),
  "isa-serial": {
    ...flag("isaSerial"),
    help: "Set off to disable the instantiation an ISA serial port",
  },
  "memory-backend": {
    type: "string",
    help: "ID of the memory backend that is the machine's RAM",
    read: (_name, text) => ({ memoryBackend: text }),
  },
  pcie: absent("PCIe"),
  pic: { ...chip("pic", true), help: "Enable i8259 PIC" },
  pit: { ...chip("pit", true), help: "Enable i8254 PIT" },
  rtc: { ...chip("rtc", false), help: "Enable MC146818 RTC" },
  usb: absent("USB"),
  "x-boot": {
    type: BOOT_PROTOCOLS.join("|"),
    help: "Boot protocol of an ELF kernel",
    read: (name, text) => ({ xBoot: parseEnum(name, text, BOOT_PROTOCOLS) }),
  },
  "x-pause-clock": {
    ...flag("xPauseClock"),
    help: "Guest time stands still during a live update",
  },
};

function checkType(name: Keyval): void {
  if (name !== MACHINE_TYPE) throw new OptionError(`unsupported machine type: "${name}"`);
}

/** `accel=` takes alternatives, best first: `kvm:tcg`. */
function checkAccelerators(list: string): void {
  const names = list.split(":");
  if (!names.includes("kvm")) throw new OptionError(`invalid accelerator ${names[0]}`);
}

/** `-machine [type=]microvm[,PROPERTY=VALUE…]`; given more than once, the properties add up. */
export function machine(text: string, draft: Draft): void {
  const { type, ...properties } = parseKeyvalHelp(text, "type").values;
  if (type !== undefined) checkType(type);
  for (const [name, value] of Object.entries(properties)) {
    const property = Object.hasOwn(PROPERTIES, name) ? PROPERTIES[name] : undefined;
    if (typeof value === "string" && name === "accel") checkAccelerators(value);
    else if (typeof value === "string" && name === "kernel-irqchip") checkIrqchip(name, value);
    else if (typeof value === "string" && property) {
      draft.config.machine = { ...draft.config.machine, ...property.read(name, value) };
    } else throw new OptionError(`Property 'microvm-machine.${name}' not found`);
  }
}

/** The help that `-machine help` or `-machine microvm,help` asks for, if the text does. */
export function machineHelp(text: string): string | undefined {
  const { values, help } = parseKeyvalHelp(text, "type");
  if (!help) return undefined;
  if (values.type === undefined) {
    return `Supported machines are:\n${MACHINE_TYPE.padEnd(20)} microvm (x86_64) (default)`;
  }
  checkType(values.type);
  const lines = Object.entries(PROPERTIES).map(([name, { type, help }]) => ({ name, type, help }));
  return propertyHelp("microvm-machine", lines);
}

/** The interrupt chips are always KVM's. */
function checkIrqchip(name: string, text: string): void {
  if (parseEnum(name, text, ["on", "off", "split"]) !== "on") {
    throw new OptionError(`Parameter '${name}' does not accept value '${text}'`);
  }
}

/** `-accel kvm` */
export function accel(text: string): void {
  const { entries } = parseOpts(text, "accel");
  const name = entries.get("accel");
  if (name !== "kvm") throw new OptionError(`invalid accelerator ${name ?? ""}`);
  for (const [key, value] of entries) {
    if (key === "kernel-irqchip") checkIrqchip(key, String(value));
    else if (key !== "accel") throw new OptionError(`Property 'kvm-accel.${key}' not found`);
  }
}

/** The help that `-accel help` asks for, if the text does. */
export function accelHelp(text: string): string | undefined {
  return parseOpts(text, "accel").help ? "Accelerators supported:\nkvm" : undefined;
}

/** QEMU's older spelling of feature names has underscores. */
const featureName = (name: string) => name.replaceAll("_", "-");

/**
 * Reads `-cpu`'s argument: `qemu64,-cx16,+xsaveerptr,level=13`.
 *
 * @returns the model and its features in the order in which QEMU applies them: `name=value`, then
 * `+name`, then `-name`, so that a removed feature stays removed
 * @throws OptionError if there is no model
 */
export function parseCpu(text: string): CpuConfig {
  const [model, ...words] = text.split(",").filter((word) => word !== "");
  if (model === undefined) throw new OptionError("-cpu option cannot be empty", true);
  const values: [string, string | boolean][] = [];
  const added: [string, boolean][] = [];
  const removed: [string, boolean][] = [];
  for (const word of words) {
    const [, sign, name, value] = /^([+-]?)([^=]*)(?:=(.*))?$/s.exec(word)!;
    if (name === "") throw new OptionError(`Property '${model}-x86_64-cpu.' not found`);
    if (sign === "+") added.push([featureName(name), true]);
    else if (sign === "-") removed.push([featureName(name), false]);
    else values.push([featureName(name), value === undefined ? true : readBool(value) ?? value]);
  }
  return { model, features: [...values, ...added, ...removed] };
}

/** `-cpu` */
export function cpu(text: string, draft: Draft): void {
  draft.config.cpu = parseCpu(text);
}
