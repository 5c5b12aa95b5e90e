/**
 * `vmgenid`: the Virtual Machine Generation ID, by which a guest learns that it goes on from a copy of
 * its state that another one may go on from as well: keys and random numbers must be made anew
 * (Microsoft's "Virtual Machine Generation ID"; Linux's drivers/virt/vmgenid.c).
 *
 * The id is read from memory of the device's own, which need not be RAM. Over a live update it stays;
 * a guest that is started from a file gets another one.
 *
 * @module
 */
import { bytes, struct, type View } from "../../ffi/struct.ts";
import { defineDevice, type Device, type DeviceType, type PropertyValue } from "../device.ts";
import { readLittleEndian } from "../little_endian.ts";

/** Where it is; its page is nobody else's. */
export const VMGENID_ADDRESS = 0xfea1_0000;
const PAGE = 0x1000;
const GUID_SIZE = 16;

const state = struct("vmgenid", { guid: bytes(GUID_SIZE) });

/**
 * Reads the property `guid`.
 *
 * @returns the GUID's bytes, as in memory; undefined for `auto`
 * @throws {RangeError} in QEMU's words
 */
export function parseGuid(value: PropertyValue): Uint8Array | undefined {
  if (value === "auto") return undefined;
  const text = String(value);
  if (!/^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i.test(text)) {
    throw new RangeError(`Property 'vmgenid.guid' doesn't take value '${text}'`);
  }
  return swapFields(Uint8Array.fromHex(text.replaceAll("-", "")));
}

/** A GUID's bytes as text. */
export function guidText(guid: Uint8Array): string {
  const hex = swapFields(guid).toHex();
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** A GUID's first three fields are numbers, little-endian in memory and not in its text. */
function swapFields(guid: Uint8Array): Uint8Array {
  const [a, b, c] = [guid.slice(0, 4), guid.slice(4, 6), guid.slice(6, 8)];
  return Uint8Array.of(...a.reverse(), ...b.reverse(), ...c.reverse(), ...guid.slice(8));
}

class VmGenId implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #given: Uint8Array;

  /** @param given the GUID that this VMM has for the guest */
  constructor(view: View<typeof state.fields>, given: Uint8Array) {
    this.#state = view;
    this.#given = given;
  }

  read(_range: number, offset: number, size: number): number {
    return readLittleEndian(this.#state.guid, offset, size);
  }

  /** The memory is read-only. */
  write(): void {}

  /** The generation is that of the VM, not of a boot. */
  reset(): void {
    if (this.#state.guid.every((byte) => byte === 0)) this.startGeneration();
  }

  startGeneration(): boolean {
    const { guid } = this.#state;
    const isNew = guid.some((byte, i) => byte !== this.#given[i]);
    guid.set(this.#given.subarray(0, GUID_SIZE));
    return isNew;
  }
}

/** The `vmgenid` device type. */
export const vmgenid: DeviceType = defineDevice({
  name: "vmgenid",
  help: "Virtual Machine Generation ID, told by ACPI",
  user: true,
  bus: "main-system-bus",
  properties: {
    guid: { type: "string", default: "auto", help: "GUID of this generation, or auto" },
  },
  version: 1,
  state,
  check: ({ guid }) => void parseGuid(guid),
  ranges: ({ guid }) => {
    parseGuid(guid);
    return [{ space: "mmio", base: VMGENID_ADDRESS, size: PAGE, name: "vmgenid" }];
  },
  irqs: () => [],
  create: (view, context) => new VmGenId(view, context.content),
});
