/**
 * `-machine`, `-accel` and `-cpu`.
 *
 * @module
 */
import { encodeText } from "../../ffi/text.ts";
import { type AcceleratorName, acceleratorNames } from "../accel/accelerator.ts";
import { MACHINE_TYPE } from "../machine/microvm.ts";
import type { CpuConfig, MachineTypeConfig } from "../config.ts";
import { boot } from "./boot.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { type Keyval, type KeyvalObject, parseKeyvalHelp, parseOpts } from "./grammar.ts";
import { memory } from "./memory.ts";
import { propertyHelp } from "./property_help.ts";
import { smp } from "./smp.ts";
import { parseBool, parseEnum, parseUint, readBool } from "./values.ts";

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
  /** What the value changes of the machine; what it changes besides, it changes itself. */
  read(name: string, text: string, draft: Draft): Partial<MachineTypeConfig> | void;
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
    },
  };
}

/** A property of QEMU's microvm that names something which does not exist here. */
function refusing(type: string, reason: string): MachineProperty {
  return {
    type,
    help: `Refused: ${reason}`,
    read(name, text) {
      throw new OptionError(`Parameter '${name}' does not accept value '${text}': ${reason}`);
    },
  };
}

type Flag =
  | "auxRamShare"
  | "isaSerial"
  | "autoKernelCmdline"
  | "xPauseClock"
  | "dumpGuestCore"
  | "memMerge";

const flag = (key: Flag) => ({
  type: "bool",
  read: (name: string, text: string) => ({ [key]: parseBool(name, text) }),
});

/** A switch of something that is not there: either way nothing changes. */
const idle = { type: "bool", read: (name: string, text: string) => void parseBool(name, text) };

/** An option that can be said as the machine's property as well. */
const alias = (key: "kernel" | "initrd" | "append" | "bios") => ({
  type: "string",
  read: (_name: string, text: string, draft: Draft) => {
    draft.config[key] = text;
  },
});

/** What ACPI tables show of who made them. */
const oem = (key: "oemId" | "oemTableId", bytes: number) => ({
  type: "string",
  help: `Shown in ACPI tables, up to ${bytes} bytes`,
  read: (name: string, text: string) => {
    if (encodeText(text).length <= bytes) return { [key]: text };
    throw new OptionError(
      `User specified ${name} value is bigger than ${bytes} bytes in size`,
    );
  },
});

const chip = (key: "acpi" | "ioapic2" | "pcie" | "pit" | "pic" | "rtc", auto: boolean) => ({
  type: "OnOffAuto",
  read: (name: string, text: string) => ({ [key]: onOffAuto(name, text, auto) }),
});

const NOT_ENCRYPTED = "guest memory is not encrypted";
const NO_DEVICE_TREE = "guests find the machine without a device tree";

/** Options whose parameters can be said as the machine's: `-machine smp.cpus=2`. */
const NESTED: Readonly<Record<string, (text: string, draft: Draft) => void>> = {
  boot,
  memory,
  smp,
};

/** Parameters as the option's argument. */
function asArgument(name: string, parameters: KeyvalObject): string {
  return Object.entries(parameters).map(([key, value]) => {
    if (typeof value === "string") return `${key}=${value.replaceAll(",", ",,")}`;
    throw new OptionError(`Parameter '${name}.${key}' expects a value`);
  }).join(",");
}

const isObject = (value: Keyval): value is KeyvalObject =>
  typeof value === "object" && !Array.isArray(value);

const BOOT_PROTOCOLS = ["auto", "pvh", "linux64"] as const;

/** The properties of `microvm`; `auto` is what QEMU's microvm takes it for with KVM. */
const PROPERTIES: Readonly<Record<string, MachineProperty>> = {
  acpi: { ...chip("acpi", true), help: "Enable ACPI" },
  append: { ...alias("append"), help: "Linux kernel command line" },
  "aux-ram-share": { ...flag("auxRamShare"), help: "Share auxiliary guest RAM, which CPR needs" },
  "auto-kernel-cmdline": {
    ...flag("autoKernelCmdline"),
    help: "Set off to disable adding virtio-mmio devices to the kernel cmdline",
  },
  "bus-lock-ratelimit": {
    type: "uint64_t",
    help: "Limit of bus locks in VMs a second: 0, which is none",
    read: (name, text) => {
      if (parseUint(name, text, 64) === 0) return;
      throw new OptionError(
        `Parameter '${name}' does not accept value '${text}': bus locks are not counted`,
      );
    },
  },
  "confidential-guest-support": refusing("string", NOT_ENCRYPTED),
  "dt-compatible": refusing("string", NO_DEVICE_TREE),
  dtb: refusing("string", NO_DEVICE_TREE),
  "dump-guest-core": { ...flag("dumpGuestCore"), help: "Include guest memory in a core dump" },
  dumpdtb: refusing("string", NO_DEVICE_TREE),
  firmware: { ...alias("bios"), help: "Firmware image" },
  graphics: absent("graphics"),
  "igvm-cfg": refusing("string", NOT_ENCRYPTED),
  initrd: { ...alias("initrd"), help: "Linux initial ramdisk file" },
  ioapic2: { ...chip("ioapic2", true), help: "Enable second IO-APIC" },
  "isa-serial": {
    ...flag("isaSerial"),
    help: "Set off to disable the instantiation an ISA serial port",
  },
  kernel: { ...alias("kernel"), help: "Linux kernel image file" },
  "mem-merge": { ...flag("memMerge"), help: "Enable/disable memory merge support" },
  "memory-encryption": refusing("string", NOT_ENCRYPTED),
  "memory-backend": {
    type: "string",
    help: "ID of the memory backend that is the machine's RAM",
    read: (_name, text) => ({ memoryBackend: text }),
  },
  pcie: {
    type: "OnOffAuto",
    help: "Enable PCIe",
    read(name, text, draft) {
      draft.later("check", () => checkPcie(draft));
      return chip("pcie", false).read(name, text);
    },
  },
  "phandle-start": refusing("int", NO_DEVICE_TREE),
  pic: { ...chip("pic", true), help: "Enable i8259 PIC" },
  pit: { ...chip("pit", true), help: "Enable i8254 PIT" },
  rtc: { ...chip("rtc", false), help: "Enable MC146818 RTC" },
  shim: refusing("string", "there is no UEFI that would check a kernel"),
  smm: absent("system management mode"),
  "suppress-vmdesc": { ...idle, help: "Saved state describes itself by the version it is of" },
  usb: absent("USB"),
  "x-boot": {
    type: BOOT_PROTOCOLS.join("|"),
    help: "Boot protocol of an ELF kernel",
    read: (name, text) => ({ xBoot: parseEnum(name, text, BOOT_PROTOCOLS) }),
  },
  "x-oem-id": oem("oemId", 6),
  "x-oem-table-id": oem("oemTableId", 8),
  "x-option-roms": { ...idle, help: "There are no option ROMs" },
  "x-pause-clock": {
    ...flag("xPauseClock"),
    help: "Guest time stands still during a live update",
  },
};

/** Only ACPI tables tell of the bus. */
function checkPcie({ config: { machine } }: Draft): void {
  if (!machine.pcie || machine.acpi) return;
  throw new OptionError("Parameter 'pcie' does not accept value 'on': it needs acpi=on");
}

function checkType(name: Keyval): void {
  if (name === MACHINE_TYPE) return;
  throw new OptionError(`unsupported machine type: "${name}", the one there is is ${MACHINE_TYPE}`);
}

/** `accel=` takes alternatives, best first: `kvm:tcg`. */
function accelerators(list: string): AcceleratorName[] {
  return list.split(":").map(acceleratorName);
}

function acceleratorName(text: string): AcceleratorName {
  const name = acceleratorNames.find((name) => name === text);
  if (name === undefined) throw new OptionError(`invalid accelerator ${text}`);
  return name;
}

/** `-machine [type=]microvm[,PROPERTY=VALUE…]`; given more than once, the properties add up. */
export function machine(text: string, draft: Draft): void {
  const { type, ...properties } = parseKeyvalHelp(text, "type").values;
  if (type !== undefined) checkType(type);
  for (const [name, value] of Object.entries(properties)) {
    const property = Object.hasOwn(PROPERTIES, name) ? PROPERTIES[name] : undefined;
    if (typeof value === "string" && name === "accel") {
      draft.config.accelerators = accelerators(value);
    } else if (typeof value === "string" && name === "kernel-irqchip") checkIrqchip(name, value);
    else if (typeof value === "string" && property) {
      draft.config.machine = { ...draft.config.machine, ...property.read(name, value, draft) };
    } else if (Object.hasOwn(NESTED, name) && isObject(value)) {
      NESTED[name](asArgument(name, value), draft);
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

/** The interrupt chips are always the accelerator's. */
function checkIrqchip(name: string, text: string): void {
  if (parseEnum(name, text, ["on", "off", "split"]) !== "on") {
    throw new OptionError(`Parameter '${name}' does not accept value '${text}'`);
  }
}

/** `-accel kvm`; given more than once, the first that this host has. */
export function accel(text: string, draft: Draft): void {
  const { entries } = parseOpts(text, "accel");
  const name = acceleratorName(String(entries.get("accel") ?? ""));
  for (const [key, value] of entries) {
    if (key === "kernel-irqchip" && name === "kvm") checkIrqchip(key, String(value));
    else if (key === "thread" && name === "tcg") parseEnum(key, String(value), ["multi"]);
    else if (key !== "accel") throw new OptionError(`Property '${name}-accel.${key}' not found`);
  }
  draft.config.accelerators = [...draft.config.accelerators, name];
}

/** The help that `-accel help` asks for, if the text does. */
export function accelHelp(text: string): string | undefined {
  return parseOpts(text, "accel").help
    ? `Accelerators supported:\n${acceleratorNames.join("\n")}`
    : undefined;
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
