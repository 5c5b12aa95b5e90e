/**
 * Objects and their properties by QEMU's paths, for `qom-get` and `qom-set`.
 *
 * @module
 */
import type { ThrottleGroup } from "../../devices/block/throttle.ts";
import type { Balloon } from "../../devices/device.ts";
import type { DeviceInstance } from "../bus/device_set.ts";
import { userDeviceId } from "../machine/disks.ts";
import { deviceNotFound, QmpError } from "../monitor/errors.ts";
import { isJsonObject, type JsonValue } from "../monitor/json_value.ts";
import { changeLimits, groupLimitNames, groupLimits } from "../options/throttle.ts";
import { parseInteger } from "../options/values.ts";
import type { VirtualMachine } from "../virtual_machine.ts";

/** A property. */
interface Property {
  get(): JsonValue;
  /** @throws {Error} if it cannot be set to that */
  set?(value: JsonValue): void;
  /** Reads a value as it is typed. @throws {Error} */
  parse?(text: string): JsonValue;
}

/** An object. */
interface QomObject {
  /** Name of its type. */
  readonly type: string;
  readonly properties: ReadonlyMap<string, Property>;
}

/** A statistic that the guest has not told: -1 as an unsigned number. */
const NOT_TOLD = 0xffff_ffff_ffff_ffffn;
const U32_MAX = 0xffff_ffff;

const OBJECTS = "/objects/";
const PERIPHERAL = "/machine/peripheral/";
const ANONYMOUS = /^\/machine\/peripheral-anon\/device\[(\d+)\]$/;

/** A property's value. @throws {QmpError} in QEMU's words if there is none */
export function qomGet(vm: VirtualMachine, path: string, property: string): JsonValue {
  return find(vm, path, property).get();
}

/** Sets a property. @throws {QmpError} in QEMU's words if it cannot be set to that */
export function qomSet(
  vm: VirtualMachine,
  path: string,
  property: string,
  value: JsonValue,
): void {
  settable(vm, path, property).set(value);
}

/** The same, with a value as it is typed. @throws {QmpError} */
export function qomSetText(
  vm: VirtualMachine,
  path: string,
  property: string,
  text: string,
): void {
  const { set, parse } = settable(vm, path, property);
  set(parse ? parse(text) : text);
}

function settable(vm: VirtualMachine, path: string, name: string) {
  const { type } = resolve(vm, path);
  const { set, parse } = find(vm, path, name);
  if (set) return { set, parse };
  throw new QmpError(`Property '${type}.${name}' is not writable`);
}

function find(vm: VirtualMachine, path: string, name: string): Property {
  const { type, properties } = resolve(vm, path);
  const property = properties.get(name);
  if (property) return property;
  throw new QmpError(`Property '${type}.${name}' not found`);
}

/** A path, or as in QEMU a path's end. @throws {QmpError} if nothing is there */
function resolve(vm: VirtualMachine, path: string): QomObject {
  const device = findDevice(vm, path);
  if (device) return describe(vm, device);
  const group = vm.blocks.throttles.object(path.replace(OBJECTS, ""));
  if (group) return describeGroup(vm, group);
  throw deviceNotFound(path);
}

/** A throttle group: its limits together, and each of them, which is not set alone as in QEMU. */
function describeGroup({ machine }: VirtualMachine, group: ThrottleGroup): QomObject {
  const values = () => groupLimits(group.limits);
  const own = groupLimitNames.map((name): [string, Property] => [`x-${name}`, {
    get: () => values()[name],
    set() {
      throw new QmpError("Property cannot be set after initialization");
    },
  }]);
  return {
    type: "throttle-group",
    properties: new Map<string, Property>([
      ["type", { get: () => "throttle-group" }],
      ["limits", {
        get: values,
        set(value) {
          group.limits = changeLimits(group.limits, readLimits(value));
          // What waits may go on by now.
          for (const { id } of machine.devices.devices) {
            machine.devices.with(id, (device) => device.limitsChanged?.());
          }
        },
      }],
      ...own,
    ]),
  };
}

/** @throws {QmpError} in QEMU's words unless it is an object of limits */
function readLimits(value: JsonValue): ReadonlyMap<string, unknown> {
  if (!isJsonObject(value)) {
    throw new QmpError("Invalid parameter type for 'limits', expected: object");
  }
  for (const [name, one] of Object.entries(value)) {
    if (!groupLimitNames.includes(name)) throw new QmpError(`Parameter '${name}' is unexpected`);
    if (typeof one === "number") continue;
    throw new QmpError(`Invalid parameter type for '${name}', expected: integer`);
  }
  return new Map(Object.entries(value));
}

function findDevice({ config, machine }: VirtualMachine, path: string): DeviceInstance | undefined {
  const number = ANONYMOUS.exec(path)?.[1];
  const user = number === undefined
    ? config.devices.find(({ id }) => id !== undefined && [id, PERIPHERAL + id].includes(path))
    : config.devices.filter(({ id }) => id === undefined)[Number(number)];
  const id = user && userDeviceId(user, config.devices);
  return machine.devices.devices.find((device) => device.id === id);
}

function describe({ machine }: VirtualMachine, device: DeviceInstance): QomObject {
  const { type, id, properties } = device;
  const own = Object.entries(properties).filter(([name]) => !type.properties[name].internal)
    .map(([name, value]): [string, Property] => [name, {
      get: () => value,
      set() {
        throw new QmpError(
          `Attempt to set property '${name}' on device '${id}' (type '${type.name}') after it was` +
            " realized",
        );
      },
    }]);
  const withBalloon = <T>(action: (balloon: Balloon) => T) =>
    machine.devices.with(id, ({ balloon }) => action(balloon!));
  const isBalloon = machine.devices.with(id, ({ balloon }) => balloon !== undefined);
  return {
    type: type.name,
    properties: new Map<string, Property>([
      ["type", { get: () => type.name }],
      ...own,
      ...isBalloon ? balloonProperties(withBalloon) : [],
    ]),
  };
}

type WithBalloon = <T>(action: (balloon: Balloon) => T) => T;

const INTERVAL = "guest-stats-polling-interval";

function balloonProperties(withBalloon: WithBalloon): [string, Property][] {
  return [
    ["guest-stats", { get: () => withBalloon(guestStats) }],
    [INTERVAL, {
      get: () => withBalloon(({ pollInterval }) => pollInterval),
      set: (value) => {
        const seconds = readInterval(value);
        withBalloon((balloon) => balloon.pollInterval = seconds);
      },
      parse: (text) => parseInteger(INTERVAL, text),
    }],
  ];
}

function guestStats({ statistics: { stats, lastUpdate } }: Balloon): JsonValue {
  return {
    stats: Object.fromEntries(stats.map(([name, value]) => [name, value ?? NOT_TOLD])),
    "last-update": lastUpdate,
  };
}

/** @throws {QmpError} in QEMU's words */
function readInterval(value: JsonValue): number {
  if (typeof value !== "bigint" && !Number.isInteger(value)) {
    throw new QmpError(`Invalid parameter type for '${INTERVAL}', expected: integer`);
  }
  const seconds = Number(value);
  if (seconds < 0) throw new QmpError("timer value must be greater than zero");
  if (seconds > U32_MAX) throw new QmpError("timer value is too big");
  return seconds;
}
