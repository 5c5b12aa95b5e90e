/**
 * What a guest has found of its virtio devices, which does not change while it runs: which there are,
 * where they are, and those of their properties that drivers see.
 *
 * @module
 */
import type { PropertyDeclaration, PropertyValue } from "../../devices/device.ts";
import { withDefaults } from "../../devices/device.ts";
import { type DeviceRequest, findDeviceType } from "../../vmm/bus/device_set.ts";

/** A device as it is saved: its type, its bus, and properties that differ from their defaults. */
type Identity = Readonly<Record<string, PropertyValue>>;
/** Devices by their ids. */
export type DeviceIdentities = Readonly<Record<string, Identity>>;

/** What a command line alone does not say: it is found when the backend is opened. */
const foundLater = ["read-only", "vnet-hdr"];
/** Types whose values are names of the host's things. */
const backends: readonly PropertyDeclaration["type"][] = ["chardev", "drive", "netdev", "link"];

/**
 * Describes the virtio devices among some.
 *
 * @param devices all devices
 * @param opened whether their backends are open: what is found only then is left out otherwise
 */
export function deviceIdentities(
  devices: Iterable<Pick<DeviceRequest, "type" | "id" | "properties" | "parent">>,
  opened: boolean,
): DeviceIdentities {
  const identities: Record<string, Identity> = {};
  for (const { type: name, id, properties, parent } of devices) {
    const type = findDeviceType(name);
    if (!type.bus?.startsWith("virtio") && type.bus !== "PCI") continue;
    const all = withDefaults(type, properties);
    const seen = Object.entries(type.properties).filter((
      [name, { type, unseen, default: usual }],
    ) =>
      !unseen && !backends.includes(type) && all[name] !== undefined && all[name] !== usual &&
      (opened || !foundLater.includes(name))
    ).map(([name]) => [name, all[name]]);
    identities[id] = {
      type: name,
      ...parent !== undefined && { parent },
      ...Object.fromEntries(seen),
    };
  }
  return identities;
}

/**
 * Says in which device two machines differ.
 *
 * @param own this VM's
 * @param saved the guest's, as it was read
 * @returns undefined if they are the same
 */
export function differentDevice(
  own: DeviceIdentities,
  saved: Readonly<Record<string, unknown>>,
): string | undefined {
  const here = (id: string) => Object.hasOwn(own, id) ? own[id] : undefined;
  const there = (id: string) => Object.hasOwn(saved, id) ? Object(saved[id]) : undefined;
  for (const id of Object.keys(saved)) {
    if (here(id)) continue;
    return `Device ${quote(id)} (${show(there(id).type)}) of the saved VM is missing in this VM:` +
      " start it with the same -device";
  }
  for (const [id, identity] of Object.entries(own)) {
    const other = there(id);
    if (!other) {
      return `Device ${quote(id)} (${identity.type}) of this VM is missing in the saved VM: start` +
        " this one without it";
    }
    for (const name of new Set([...Object.keys(identity), ...Object.keys(other)])) {
      const [ours, theirs] = [identity, other].map((one) => valueOf(identity.type, one, name));
      if (ours === theirs) continue;
      return `Device ${quote(id)} differs: this VM has ${quote(name).slice(1, -1)} ${ours}, the` +
        ` saved VM has ${theirs}; start with the same -device options, in the same order`;
    }
  }
}

/** A property's value as messages have it, its default where it is not given. */
function valueOf(type: PropertyValue, identity: Identity, name: string): string {
  const properties = findDeviceType(String(type)).properties;
  const declaration = Object.hasOwn(properties, name) ? properties[name] : undefined;
  const value = Object.hasOwn(identity, name) ? identity[name] : declaration?.default;
  if (typeof value === "boolean") return value ? "on" : "off";
  return name.endsWith("-base") && typeof value === "number"
    ? `0x${value.toString(16)}`
    : show(value);
}

/** A value from JSON on one line. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "none";
  return typeof value === "string" && value !== "" ? text.slice(1, -1) : text;
}

function quote(id: string): string {
  return `'${show(id)}'`;
}
