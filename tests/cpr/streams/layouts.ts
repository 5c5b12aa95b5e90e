/**
 * How saved state is laid out, as data that stays in the tests: a layout that changes without a new
 * version would be read as what it is not.
 *
 * @module
 */
import type { DeviceType } from "../../../devices/device.ts";
import type { SavedLayout } from "../../../devices/saved_state.ts";
import { type Field, type Fields, type Struct, struct } from "../../../ffi/struct.ts";

/** One layout: its fields' offsets and sizes, those of structs within it by path. */
export interface LayoutRecord {
  readonly version: number;
  readonly size: number;
  readonly fields: Readonly<Record<string, readonly [offset: number, size: number]>>;
}

/** Layouts by the names of their sections. */
export type LayoutRecords = Readonly<Record<string, readonly LayoutRecord[]>>;

/** Describes every version of every section that devices write. */
export function describeLayouts(types: readonly DeviceType[]): LayoutRecords {
  const records: Record<string, LayoutRecord[]> = {};
  for (const type of types) {
    const { name, state, subsections = [] } = type;
    const isMain = ([field]: [string, unknown]) => subsections.every((one) => one.field !== field);
    const main = struct(name, Object.fromEntries(Object.entries(state.fields).filter(isMain)));
    records[name] = versionsOf({ ...type, state: main });
    for (const part of subsections) records[`${name}/${part.field}`] = versionsOf(part);
  }
  return records;
}

/** Describes every version of a layout, the newest first. */
export function versionsOf({ version, state, older = [] }: SavedLayout): LayoutRecord[] {
  return [state, ...older.map((one) => one.state)].map((layout, i) => ({
    version: version - i,
    size: layout.size,
    fields: Object.fromEntries(fieldsOf(layout, "", 0)),
  }));
}

function fieldsOf(
  layout: Struct<Fields>,
  path: string,
  base: number,
): [string, readonly [number, number]][] {
  return Object.entries(layout.fields).flatMap(([name, field]) => {
    const offset = base + layout.offsets[name];
    if (isStruct(field)) return fieldsOf(field, `${path}${name}.`, offset);
    return [[path + name, [offset, field.size]]];
  });
}

function isStruct(field: Field<unknown>): field is Struct<Fields> {
  return "fields" in field;
}
