/**
 * What is in a saved section, by its name: the fields of the struct that it was saved from.
 *
 * @module
 */
import type { DeviceType } from "../../devices/device.ts";
import { deviceTypes } from "../../devices/registry.ts";
import type { SavedLayout } from "../../devices/saved_state.ts";
import {
  kvmClockData,
  kvmCpuidEntry2,
  kvmDebugregs,
  kvmIoapicState,
  kvmIrqchip,
  kvmMpState,
  kvmMsrEntry,
  kvmPicState,
  kvmPitState2,
  kvmRegs,
  kvmSregs,
  kvmVcpuEvents,
  kvmXcrs,
  lapicRegisters,
  xsaveHead,
} from "../../ffi/kvm/structs.ts";
import { type Fields, fieldsOf, isView, type Struct, struct, u64, u8 } from "../../ffi/struct.ts";
import { irqchips } from "../../vmm/accel/hardware.ts";
import { CHARDEV_STATE } from "../../vmm/chardev_handover.ts";
import type { VcpuPart } from "../../vmm/accel/accelerator.ts";
import { CAPABILITIES } from "./ram.ts";
import { type Section, StateError } from "../stream/stream.ts";
import { GLOBAL_STATE, globalState } from "./vm_state.ts";

/**
 * A value as JSON has it. Numbers of up to 32 bits are numbers. Numbers of 64 bits are strings,
 * `"0x…"` with as many digits as it takes, because JSON's readers keep 53 bits. Bytes are strings
 * of two hexadecimal digits each, without `0x`.
 */
export type Plain =
  | null
  | boolean
  | number
  | string
  | readonly Plain[]
  | { readonly [name: string]: Plain };

/** How many bytes are shown of what is not decoded. */
const SHOWN = 64;

/** What a struct's field reads as, for JSON. */
function plain(value: unknown): Plain {
  if (typeof value === "number") return value;
  if (typeof value === "bigint") {
    return value < 0n ? `-${plain(-value)}` : `0x${value.toString(16)}`;
  }
  if (value instanceof Uint8Array) return Uint8Array.from(value).toHex();
  if (isView(value)) {
    return Object.fromEntries([...fieldsOf(value)].map(([name, field]) => [name, plain(field)]));
  }
  return Array.from(value as Iterable<unknown>, plain);
}

type Data = Uint8Array<ArrayBuffer>;
/** Gives a section's fields. @throws {Error} if they are not what the name says */
type Decoder = (data: Data) => Plain;

/** Data that is exactly one struct. */
function one<F extends Fields>(layout: Struct<F>): Decoder {
  return (data) => {
    if (data.length !== layout.size) {
      throw new StateError(`${data.length} bytes, expected ${layout.size}`);
    }
    return plain(layout.view(data.buffer, data.byteOffset));
  };
}

/** Data that is a count in the first 4 of 8 bytes, and that many structs after it. */
function counted<F extends Fields>(layout: Struct<F>, data: Data): object[] {
  const head = new DataView(data.buffer, data.byteOffset, data.length);
  const count = data.length < 8 ? -1 : head.getUint32(0, true);
  if (data.length !== 8 + count * layout.size) {
    throw new StateError(`${data.length} bytes are not a table of '${layout.name}'`);
  }
  return Array.from(
    { length: count },
    (_, i) => layout.view(data.buffer, data.byteOffset + 8 + i * layout.size),
  );
}

/** MSRs by index. */
function msrs(data: Data): Plain {
  const entries = counted(kvmMsrEntry, data) as ReturnType<typeof kvmMsrEntry.view>[];
  return Object.fromEntries(
    entries.map(({ index, data }) => [`0x${index.toString(16)}`, plain(data)]),
  );
}

/** The states that every processor has; `extended` is what follows, without zeros at the end. */
function xsave(data: Data): Plain {
  const head = one(xsaveHead)(data.slice(0, xsaveHead.size));
  let { length } = data;
  while (length > xsaveHead.size && data[length - 1] === 0) length--;
  const extended = data.slice(xsaveHead.size, length).toHex();
  return { ...head as { [name: string]: Plain }, extended };
}

/** A chip in its union of 512 bytes. */
function irqchip(id: string): Decoder {
  const layout: Struct<Fields> = id === "ioapic" ? kvmIoapicState : kvmPicState;
  return (data) => {
    const { chip_id } = one(kvmIrqchip)(data) as { chip_id: number };
    const chip = plain(layout.view(data.buffer, data.byteOffset + kvmIrqchip.offsets.chip));
    return { chip_id, chip };
  };
}

function json(data: Data): Plain {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
}

/** Decoders of a section's data, by its version. */
type Known = readonly (readonly [version: number, decode: Decoder])[];

/** What has not changed since version 1. */
const always = (decode: Decoder): Known => [[1, decode]];

/** Every version of a layout, the newest first. */
function layoutDecoders({ version, state, older = [] }: SavedLayout, newest = one(state)): Known {
  return [
    [version, newest],
    ...older.map((before, i) => [version - 1 - i, one(before.state)] as const),
  ];
}

/** A device's sections: what always comes, and its subsections. */
function deviceDecoders(type: DeviceType): [string, Known][] {
  const { name, state, subsections = [] } = type;
  const fields = Object.entries(state.fields)
    .filter(([field]) => subsections.every((one) => one.field !== field));
  return [
    [name, layoutDecoders(type, one(struct(name, Object.fromEntries(fields))))],
    ...subsections.map((part): [string, Known] => [
      `${name}/${part.field}`,
      layoutDecoders(part),
    ]),
  ];
}

const vcpuDecoders: Readonly<Record<VcpuPart, Decoder>> = {
  mp_state: one(kvmMpState),
  regs: one(kvmRegs),
  sregs: one(kvmSregs),
  xsave,
  xcrs: one(kvmXcrs),
  debugregs: one(kvmDebugregs),
  lapic: one(lapicRegisters),
  msrs,
  vcpu_events: one(kvmVcpuEvents),
};

const known: ReadonlyMap<string, Known> = new Map([
  [GLOBAL_STATE, layoutDecoders(globalState)],
  [CAPABILITIES, always(one(struct(CAPABILITIES, { "x-ignore-shared": u8 })))],
  ["machine", always(json)],
  ["firmware-files", always(json)],
  ["devices", always(json)],
  ["cpu/cpuid", always((data) => counted(kvmCpuidEntry2, data).map(plain))],
  ...Object.entries(vcpuDecoders).map(([part, decode]): [string, Known] => [
    `cpu/${part}`,
    always(decode),
  ]),
  ["cpu/tsc_offset", always(one(struct("tsc_offset", { tsc_offset: u64 })))],
  [CHARDEV_STATE, always(json)],
  ["kvmclock", always(one(kvmClockData))],
  ["pit", always(one(kvmPitState2))],
  ...deviceTypes.flatMap(deviceDecoders),
]);

function find({ name, id }: Section): Known | undefined {
  if (name !== "irqchip") return known.get(name);
  return irqchips.some((chip) => chip === id) ? always(irqchip(id)) : undefined;
}

/** The fields of a section, or why there are none and its first 64 bytes. */
export type SectionFields =
  | { readonly fields: Plain }
  | { readonly undecoded: string; readonly hex: string };

/** Decodes a section's data; what cannot be decoded is given as it is. */
export function sectionFields(section: Section): SectionFields {
  const raw = (undecoded: string) => ({
    undecoded,
    hex: section.data.slice(0, SHOWN).toHex(),
  });
  const found = find(section);
  if (!found) return raw("unknown section");
  const [, decode] = found.find(([version]) => version === section.version) ?? [];
  if (!decode) return raw(`version ${section.version}, newest known is ${found[0][0]}`);
  try {
    return { fields: decode(section.data) };
  } catch (error) {
    return raw((error as Error).message);
  }
}
