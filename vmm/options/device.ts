/**
 * `-device` and `-global`.
 *
 * @module
 */
import { type DeviceType, type PropertyDeclaration, withDefaults } from "../../devices/device.ts";
import type { DeviceConfig, LoaderConfig } from "../config.ts";
import { userDeviceId } from "../machine/disks.ts";
import { virtioTransports } from "../machine/microvm.ts";
import { placePci } from "../machine/pci.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { fromJson, parseJsonOrOpts, parseOpts, type RawOptions } from "./grammar.ts";
import { propertyHelp, type PropertyLine } from "./property_help.ts";
import { compact, readOptions, readValue, type Schema } from "./schema.ts";

const unknownProperty = (driver: string) => (name: string) =>
  new OptionError(`Property '${driver}.${name}' not found`);

/** `loader` is no device of the guest's: it puts something into memory before the guest starts. */
const loaderSchema = (json: boolean) => ({
  driver: "string",
  id: "id",
  file: "string",
  addr: "uint64",
  "cpu-num": "uint32",
  "force-raw": "bool",
  // As text, a number may have all 64 bits.
  data: json ? "uint64" : "string",
  "data-len": "uint8",
  "data-be": "bool",
} as const satisfies Schema);

const LOADER_HELP: readonly PropertyLine[] = [
  { name: "file", type: "str", help: "file to load" },
  { name: "addr", type: "uint64", help: "guest address; an ELF file has its own" },
  { name: "cpu-num", type: "uint32", help: "CPU that starts at the file's entry point" },
  { name: "data", type: "uint64", help: "value to store" },
  { name: "data-be", type: "bool", help: "store it big-endian" },
  { name: "data-len", type: "uint8", help: "bytes of the value" },
  { name: "force-raw", type: "bool", help: "load an ELF file as bytes like any other" },
];

function readLoader(options: RawOptions): LoaderConfig {
  const values = readOptions(options, loaderSchema(options.json), unknownProperty("loader"));
  const { file, addr, "cpu-num": cpuNum, data, "data-len": dataLen } = values;
  if (file === undefined && data === undefined && dataLen === undefined && addr === undefined) {
    throw new OptionError("please include valid arguments");
  }
  if (file === undefined && data === undefined && dataLen === undefined && cpuNum === undefined) {
    throw new OptionError("cpu_num must be specified when setting a program counter");
  }
  if ((data === undefined) !== (dataLen === undefined)) {
    throw new OptionError("Both data and data-len must be specified");
  }
  return compact({
    file,
    addr,
    cpuNum,
    forceRaw: values["force-raw"],
    data: data === undefined ? undefined : readData(data),
    dataLen,
    dataBe: values["data-be"],
  });
}

/** A number of 64 bits, in C's spelling. */
function readData(value: string | number): bigint {
  const text = String(value);
  if (/^(0x[0-9a-f]+|0[0-7]*|[1-9]\d*)$/i.test(text)) {
    const data = BigInt(/^0[0-7]+$/.test(text) ? `0o${text.slice(1)}` : text);
    if (data < 2n ** 64n) return data;
  }
  throw new OptionError("Parameter 'data' expects uint64_t");
}

function readDriver(options: RawOptions): string {
  const driver = options.entries.get("driver");
  if (driver === undefined) throw new OptionError("Parameter 'driver' is missing");
  return String(driver);
}

/** QEMU's other names of PCI devices: without the bus, and without the interface of before virtio 1. */
function realDriver(driver: string, types: readonly DeviceType[]): string {
  const name = `${driver.replace(/-pci-non-transitional$/, "")}-pci`;
  return !driver.endsWith("-pci") && types.some((type) => type.name === name) ? name : driver;
}

/** Disks and cards of other machines: the bus that they are on. */
const otherDisks: Readonly<Record<string, string>> = {
  ...{ "ide-hd": "IDE", "ide-cd": "IDE", "scsi-hd": "SCSI", "scsi-cd": "SCSI" },
  ...{ nvme: "PCI", "usb-storage": "usb-bus" },
};
const otherCards: Readonly<Record<string, string>> = {
  ...{ e1000: "PCI", e1000e: "PCI", rtl8139: "PCI", pcnet: "PCI", ne2k_pci: "PCI", vmxnet3: "PCI" },
};

/** The bus that a device needs which is not here, and which device is here instead. */
function elsewhere(
  driver: string,
): { readonly bus: string; readonly model: string; readonly here: string } | undefined {
  const [isDisk, isCard] = [otherDisks, otherCards].map((one) => Object.hasOwn(one, driver));
  if (isDisk) return { bus: otherDisks[driver], model: driver, here: "virtio-blk-device" };
  if (isCard) return { bus: otherCards[driver], model: driver, here: "virtio-net-device" };
}

/** QEMU's other bridges to further buses. */
const bridges = ["ioh3420", "pcie-pci-bridge", "pci-bridge", "pxb-pcie"];

function unknownDriver(driver: string, types: readonly DeviceType[]): OptionError {
  if (bridges.includes(driver)) {
    return new OptionError(
      `'${driver}' is not a valid device model name: the only bridges are of pcie-root-port`,
    );
  }
  if (driver.endsWith("-pci-transitional")) {
    const [name] = driver.split("-transitional");
    return new OptionError(`'${driver}' is not a valid device model name: virtio 1 is ${name}`);
  }
  const other = elsewhere(driver);
  return new OptionError(
    other && types.some(({ name }) => name === other.here)
      ? `No '${other.bus}' bus found for device '${other.model}': say ${other.here}`
      : `'${driver}' is not a valid device model name`,
  );
}

function findType(driver: string, types: readonly DeviceType[]): DeviceType {
  const type = types.find(({ name }) => name === driver);
  if (!type) throw unknownDriver(driver, types);
  if (!type.user) throw new OptionError("Parameter 'driver' expects a pluggable device type");
  return type;
}

function readDevice(options: RawOptions, types: readonly DeviceType[]): DeviceConfig {
  const driver = realDriver(readDriver(options), types);
  const type = findType(driver, types);
  const { driver: _driver, id, ...properties } = readOptions(
    options,
    { driver: "string", id: "id", ...schemaOf(type) },
    unknownProperty(driver),
  );
  return compact({ driver, id: id as string | undefined, properties: properties as Properties });
}

type Properties = DeviceConfig["properties"];
type Types = readonly DeviceType[];

/** The properties that users set. */
function settable({ properties }: DeviceType): [string, PropertyDeclaration][] {
  return Object.entries(properties).filter(([, { internal }]) => !internal);
}

function schemaOf(type: DeviceType): Schema {
  return Object.fromEntries(
    settable(type).map(([name, declaration]) => [name, declaration.type]),
  );
}

/**
 * Reads a device: `isa-debug-exit,iobase=0xf4,iosize=4`, JSON text, or `device_add`'s arguments.
 *
 * @param types the device types there are
 * @returns the device, with the properties that were given
 * @throws OptionError in QEMU's words
 */
export function parseDevice(
  input: string | Readonly<Record<string, unknown>>,
  types: readonly DeviceType[],
): DeviceConfig {
  const options = typeof input === "string" ? parseJsonOrOpts(input, "driver") : fromJson(input);
  return readDevice(options, types);
}

/** What `-device help` prints. */
function deviceTypesHelp(types: readonly DeviceType[]): string {
  const lines = types.filter(({ user }) => user)
    .map(({ name, bus, help }) => `name "${name}",${bus ? ` bus ${bus},` : ""} desc "${help}"`);
  return [...lines, 'name "loader", desc "Generic Loader"'].join("\n");
}

/** The help that `-device help` or `-device DRIVER,help` asks for, if the text does. */
export function deviceHelp(text: string, types: readonly DeviceType[]): string | undefined {
  const options = parseJsonOrOpts(text, "driver");
  if (!options.help) return undefined;
  if (!options.entries.has("driver")) return deviceTypesHelp(types);
  const driver = realDriver(readDriver(options), types);
  if (driver === "loader") return propertyHelp(driver, LOADER_HELP);
  const lines = settable(findType(driver, types)).map(([name, { type, help, default: value }]) => ({
    name,
    type: type === "link"
      ? "link"
      : ["string", "chardev", "drive", "netdev"].includes(type)
      ? "str"
      : type,
    help,
    default: value,
  }));
  return propertyHelp(driver, lines);
}

/** `-device` */
export function device(text: string, draft: Draft): void {
  const { config, types } = draft;
  const options = parseJsonOrOpts(text, "driver");
  if (readDriver(options) === "loader") {
    const loader = readLoader(options);
    config.loaders = [...config.loaders, loader];
    draft.later("check", () => {
      if ((loader.cpuNum ?? 0) >= config.smp.cpus) {
        throw new OptionError(`Specified boot CPU#${loader.cpuNum} is nonexistent`);
      }
    });
    return;
  }
  const device = readDevice(options, types);
  if (device.id !== undefined && config.devices.some(({ id }) => id === device.id)) {
    throw new OptionError(`Duplicate ID '${device.id}' for device`);
  }
  if (device.driver === "isa-serial") draft.defaultSerial = false;
  const index = config.devices.length;
  config.devices = [...config.devices, device];
  draft.later("check", () => {
    checkPlace(index, draft);
    bindChardevs(config.devices[index], draft);
    bindDrives(config.devices[index], draft);
    bindNetdevs(config.devices[index], draft);
    bindLinks(config.devices[index], draft);
    checkValues(config.devices[index], draft);
  });
}

/** @throws OptionError if a property's value is none that the device takes */
function checkValues({ driver, properties }: DeviceConfig, { types }: Draft): void {
  const type = findType(driver, types);
  try {
    type.check?.(withDefaults(type, properties));
  } catch (error) {
    throw new OptionError((error as Error).message);
  }
}

/** @throws OptionError in QEMU's words if the devices before one have all the places for its kind */
function checkPlace(index: number, { config, types }: Draft): void {
  checkSlot(index, config, types);
  const isVirtio = ({ driver }: DeviceConfig) => findType(driver, types).bus === "virtio-bus";
  const device = config.devices[index];
  if (!isVirtio(device)) return;
  const before = config.devices.slice(0, index).filter(isVirtio).length;
  if (before < virtioTransports(config.machine).length) return;
  throw new OptionError(`No 'virtio-bus' bus found for device '${device.driver}'`);
}

/** @throws OptionError in QEMU's words if a PCI device cannot be where it shall, with those before it */
function checkSlot(index: number, { devices, machine }: Draft["config"], types: Types): void {
  if (findType(devices[index].driver, types).bus !== "PCI") return;
  const requests = devices.slice(0, index + 1).map((device) => ({
    type: device.driver,
    id: userDeviceId(device, devices),
    properties: device.properties,
  }));
  try {
    placePci(requests, machine);
  } catch (error) {
    throw new OptionError((error as Error).message);
  }
}

/** Binds the device to the disks that its properties name. */
function bindDrives({ driver, properties }: DeviceConfig, draft: Draft): void {
  for (const [name, { type }] of Object.entries(findType(driver, draft.types).properties)) {
    if (type !== "drive") continue;
    const drive = String(properties[name] ?? "");
    if (drive === "") throw new OptionError(`${name} property not set`);
    if (draft.useDrive(drive)) continue;
    throw new OptionError(`Property '${driver}.${name}' can't find value '${drive}'`);
  }
}

/** Binds the device to the network that its properties name. */
function bindNetdevs({ driver, properties }: DeviceConfig, draft: Draft): void {
  for (const [name, value] of Object.entries(properties)) {
    if (findType(driver, draft.types).properties[name].type !== "netdev") continue;
    const problem = draft.useNetdev(String(value));
    if (problem === undefined) continue;
    throw new OptionError(
      problem === "not found"
        ? `Property '${driver}.${name}' can't find value '${value}'`
        : `Property '${driver}.${name}' can't take value '${value}', it's in use`,
    );
  }
}

/** The objects that its properties name are there, and of the kind that each is for. */
function bindLinks({ driver, properties }: DeviceConfig, { config, types }: Draft): void {
  const { iothreads, rngs, objects, throttleGroups } = config;
  const kinds = { iothread: iothreads, "rng-backend": rngs };
  const all = [...iothreads, ...rngs, ...objects, ...throttleGroups];
  for (const [name, value] of Object.entries(properties)) {
    const { to } = findType(driver, types).properties[name];
    if (to === undefined || kinds[to].some(({ id }) => id === value)) continue;
    throw new OptionError(
      all.some(({ id }) => id === value)
        ? `Invalid parameter type for '${name}', expected: ${to}`
        : `Device '${value}' not found`,
    );
  }
}

/** Binds the device to the backends that its properties name. */
function bindChardevs({ driver, properties }: DeviceConfig, draft: Draft): void {
  for (const [name, value] of Object.entries(properties)) {
    if (findType(driver, draft.types).properties[name].type !== "chardev") continue;
    const problem = draft.useChardev(String(value));
    if (problem === undefined) continue;
    throw new OptionError(
      problem === "not found"
        ? `Property '${driver}.${name}' can't find value '${value}'`
        : `Property '${driver}.${name}' can't take value '${value}', it's in use`,
    );
  }
}

type Global = readonly [driver: string, property: string, value: string];

function readGlobal(text: string): Global {
  const [, driver, property, value] = /^([^.=]+)\.([^=]+)=(.*)$/s.exec(text) ?? [];
  if (driver !== undefined) return [driver, property, value];
  const values = readOptions(parseOpts(text), {
    driver: "string",
    property: "string",
    value: "string",
  });
  if (
    values.driver === undefined || values.property === undefined || values.value === undefined
  ) {
    throw new OptionError("options 'driver', 'property', and 'value' are required");
  }
  return [values.driver, values.property, values.value];
}

/**
 * `-global DRIVER.PROPERTY=VALUE`: a device property's default, or one of `migration`'s settings,
 * which the migration code checks.
 */
export function global(text: string, draft: Draft): void {
  const { config, types } = draft;
  const entry = readGlobal(text);
  const [driver, property, value] = entry;
  config.globals = [...config.globals, entry];
  if (driver === "migration") return;
  const type = types.find(({ name }) => name === driver);
  if (!type) throw new OptionError(`global ${driver}.${property} has invalid class name`);
  const declaration = Object.fromEntries(settable(type))[property];
  if (!declaration) throw unknownProperty(driver)(property);
  readValue(property, declaration.type, value, false);
}

/** Gives `-device`s the properties that `-global` set and they did not; of equal ones the last. */
export function applyGlobals({ config, types }: Draft): void {
  config.devices = config.devices.map((device) => {
    const type = findType(device.driver, types);
    const defaults = config.globals
      .filter(([driver]) => driver === device.driver)
      .map(([_, name, value]) =>
        [name, readValue(name, type.properties[name].type, value, false)] as const
      );
    const properties = { ...Object.fromEntries(defaults), ...device.properties };
    return { ...device, properties };
  });
}
