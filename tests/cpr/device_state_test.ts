/** State of devices whose layouts have changed: read in every version, written in the oldest. */
import assert from "node:assert/strict";
import { DeviceState } from "../../cpr/state/device_state.ts";
import { SectionTable } from "../../cpr/state/section_table.ts";
import { type Section, StateError } from "../../cpr/stream/stream.ts";
import { defineDevice, type DeviceType } from "../../devices/device.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { sizeWithout } from "../../devices/saved_state.ts";
import { copyFields, struct, u16, u32, u64, u8, type View } from "../../ffi/struct.ts";

const first = struct("lamp", { on: u8, level: u8 });
const second = struct("lamp", { on: u8, level: u16 });
const colour = struct("colour", { red: u8, blue: u8 });
const third = struct("lamp", { level: u16, on: u8, pad: u8, spent: u64, colour });
/** Of the same size as the first, with another meaning. */
const swapped = struct("lamp", { level: u8, on: u8 });

/** A lamp in its third version: levels of 16 bits came with the second, a meter with the third. */
const lamp = defineDevice({
  name: "lamp",
  help: "lamp",
  user: false,
  properties: {},
  version: 3,
  state: third,
  older: [
    {
      state: second,
      upgrade: (older: View<typeof second.fields>, newer: View<typeof third.fields>) => {
        copyFields(older, newer);
        newer.spent = 0n;
      },
      downgrade: (newer: View<typeof third.fields>, older: View<typeof second.fields>) => {
        copyFields(newer, older);
        return newer.spent === 0n;
      },
    },
    {
      state: first,
      upgrade: (older: View<typeof first.fields>, newer: View<typeof second.fields>) => {
        if (older.on > 1) throw new RangeError(`a lamp cannot be ${older.on}`);
        newer.on = older.on;
        newer.level = older.level << 8;
      },
      downgrade: (newer: View<typeof second.fields>, older: View<typeof first.fields>) => {
        older.on = newer.on;
        older.level = newer.level >> 8;
        return (newer.level & 0xff) === 0;
      },
    },
  ],
  subsections: [{
    field: "colour",
    version: 1,
    state: colour,
    needed: (state: View<typeof third.fields>) => state.colour.red !== 0 || state.colour.blue !== 0,
  }],
  ranges: () => [],
  irqs: () => [],
  create: () => ({ read: () => 0, write: () => {}, reset: () => {} }),
});

type Lamp = View<typeof third.fields>;

/** A device's state in a buffer of its own, and what is saved of it. */
function device(type: DeviceType, set: (state: Lamp) => void = () => {}) {
  const state = new Uint8Array(new SharedArrayBuffer(type.state.size));
  set(type.state.view(state.buffer) as Lamp);
  return new DeviceState({ type, id: "l", properties: {}, layout: type, state });
}

/** The sections of a lamp. */
function saved(set: (state: Lamp) => void): Section[] {
  const state = device(lamp, set);
  return [state.section, ...state.subsections().map(({ section }) => section)]
    .map(({ name, id, version, data }) => ({ name, id, version, data: data.slice() }));
}

/** The lamp that reads sections. */
function loaded([main, ...others]: Section[]): Lamp {
  const state = device(lamp, (old) => {
    // What was there before shows nowhere.
    Object.assign(old, { level: 0xffff, on: 1, pad: 0xff, spent: 99n });
    Object.assign(old.colour, { red: 9, blue: 9 });
  });
  const table = new SectionTable(others);
  state.fill(main, table);
  table.checkEmpty();
  return lamp.state.view(state.bytes.buffer) as Lamp;
}

const values = ({ level, on, spent, colour: { red, blue } }: Lamp) => [level, on, spent, red, blue];
const section = (version: number, ...data: number[]): Section => ({
  name: "lamp",
  id: "l",
  version,
  data: Uint8Array.from(data),
});

Deno.test("a device's state is written in the oldest version that says all of it", () => {
  assert.deepEqual(saved((lamp) => Object.assign(lamp, { on: 1, level: 0x1200 })), [
    section(1, 1, 0x12),
  ]);
  assert.deepEqual(saved((lamp) => Object.assign(lamp, { on: 1, level: 0x1234 })), [
    section(2, 1, 0, 0x34, 0x12),
  ]);
  assert.deepEqual(saved((lamp) => Object.assign(lamp, { level: 0x1200, spent: 3n })), [
    section(3, 0, 0x12, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0),
  ]);
});

Deno.test("a subsection is written when it is needed, and is off where it did not come", () => {
  const [main, colours, ...rest] = saved((lamp) => (lamp.on = 1, lamp.colour.blue = 7));
  assert.deepEqual(main, section(1, 1, 0));
  assert.deepEqual(colours, { ...section(1, 0, 7), name: "lamp/colour" });
  assert.deepEqual(rest, []);
  assert.deepEqual(values(loaded([main, colours])), [0, 1, 0n, 0, 7]);
  assert.deepEqual(values(loaded([main])), [0, 1, 0n, 0, 0]);
});

Deno.test("a device's state is read in every version", () => {
  assert.deepEqual(values(loaded([section(1, 1, 0x12)])), [0x1200, 1, 0n, 0, 0]);
  assert.deepEqual(values(loaded([section(2, 1, 0xee, 0x34, 0x12)])), [0x1234, 1, 0n, 0, 0]);
  const newest = section(3, 0, 0x12, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0);
  assert.deepEqual(values(loaded([newest])), [0x1200, 1, 3n, 0, 0]);
});

Deno.test("a device's state that came is what goes, through all versions and back", () => {
  for (const level of [0, 0x1200, 0x1234]) {
    for (const spent of [0n, 5n]) {
      for (const blue of [0, 1]) {
        const before = device(lamp, (one) => {
          Object.assign(one, { on: 1, level, spent });
          one.colour.blue = blue;
        });
        const sections = [before.section, ...before.subsections().map(({ section }) => section)];
        assert.deepEqual(values(loaded(sections)), [level, 1, spent, 0, blue]);
      }
    }
  }
});

Deno.test("a version raised without a change of size is not read as what it is not", () => {
  const ways = {
    upgrade: (older: View<typeof first.fields>, newer: View<typeof swapped.fields>) =>
      copyFields(older, newer),
    downgrade: (newer: View<typeof swapped.fields>, older: View<typeof first.fields>) => {
      copyFields(newer, older);
      return newer.level < 0x80;
    },
  };
  const type: DeviceType = {
    ...lamp,
    ...{ version: 2, state: swapped, older: [{ state: first, ...ways }], subsections: [] },
  };
  const state = device(type);
  state.fill(section(1, 1, 0x12), undefined);
  assert.deepEqual([...state.bytes], [0x12, 1]);
  state.fill(section(2, 0x12, 1), undefined);
  assert.deepEqual([...state.bytes], [0x12, 1]);
});

Deno.test("a device's state of a wrong version, size or meaning is refused by name", () => {
  const cases: [Section[], string][] = [
    [[section(0)], "Unsupported version 0 for 'lamp' l, newest known is 3"],
    [[section(4, 1, 2)], "Unsupported version 4 for 'lamp' l, newest known is 3"],
    [[section(0xffff_ffff)], "Unsupported version 4294967295 for 'lamp' l, newest known is 3"],
    [[section(1, 1, 2, 3)], "Section 'lamp' l has 3 bytes, expected 2"],
    [[section(2, 1, 2)], "Section 'lamp' l has 2 bytes, expected 4"],
    [[section(3, 1, 2)], "Section 'lamp' l has 2 bytes, expected 16"],
    [[section(1, 2, 0)], "Version 1 of section 'lamp' l is refused: a lamp cannot be 2"],
    [
      [section(1, 1, 0), { ...section(2, 1, 2), name: "lamp/colour" }],
      "Unsupported version 2 for 'lamp/colour' l, newest known is 1",
    ],
    [
      [section(1, 1, 0), { ...section(1, 1), name: "lamp/colour" }],
      "Section 'lamp/colour' l has 1 bytes, expected 2",
    ],
  ];
  for (const [sections, message] of cases) {
    assert.throws(() => loaded(sections), (error: Error) => {
      assert.ok(error instanceof StateError);
      assert.equal(error.message, message);
      return true;
    });
  }
  const type: DeviceType = { ...lamp, older: lamp.older!.slice(0, 1) };
  assert.throws(() => device(type).fill(section(1, 1, 0), undefined), {
    message: "Version 1 of section 'lamp' l is too old",
  });
});

Deno.test("every device type says how it was in version 1, and subsections lie at its end", () => {
  const types: readonly DeviceType[] = [...deviceTypes, lamp];
  for (const { name, version, state, older = [], subsections = [] } of types) {
    assert.equal(version - older.length, 1, name);
    const main = Object.entries(state.fields)
      .filter(([field]) => !subsections.some((one) => one.field === field));
    assert.equal(
      struct(name, Object.fromEntries(main)).size,
      sizeWithout(state, subsections),
      name,
    );
    for (const part of subsections) {
      assert.equal(part.version - (part.older?.length ?? 0), 1, `${name}/${part.field}`);
      assert.equal(part.state, state.fields[part.field], `${name}/${part.field}`);
    }
  }
});

Deno.test("`copyFields()` copies what both have, whatever the order", () => {
  const from = first.alloc({ on: 1, level: 9 });
  const to = struct("to", { other: u32, level: u32, on: u8 }).alloc({ other: 5 });
  copyFields(from.view, to.view);
  assert.deepEqual([to.view.other, to.view.level, to.view.on], [5, 9, 1]);
});
