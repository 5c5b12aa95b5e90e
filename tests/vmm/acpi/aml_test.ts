import assert from "node:assert/strict";
import {
  buffer,
  dwordField,
  eisaId,
  integer,
  join,
  memoryRegion,
  name,
  packageOf,
  path,
  scope,
  string,
} from "../../../vmm/firmware/acpi/aml.ts";
import {
  interrupt,
  io,
  irqNoFlags,
  memory32Fixed,
  resources,
} from "../../../vmm/firmware/acpi/resources.ts";

const hex = (bytes: Uint8Array) => bytes.toHex();

Deno.test("integer() takes as few bytes as there can be", () => {
  assert.deepEqual(
    [0, 1, 2, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000n].map((value) =>
      hex(integer(value))
    ),
    [
      "00",
      "01",
      "0a02",
      "0aff",
      "0b0001",
      "0bffff",
      "0c00000100",
      "0cffffffff",
      "0e0000000001000000",
    ],
  );
  assert.throws(() => integer(-1), new RangeError("-1 is no integer of AML"));
  assert.throws(() => integer(1n << 64n), RangeError);
});

Deno.test("path() pads segments, and says how many there are from two on", () => {
  assert.equal(hex(path("GED")), hex(new TextEncoder().encode("GED_")));
  assert.equal(hex(path("\\_SB.PWRB")), `5c2e${hex(new TextEncoder().encode("_SB_PWRB"))}`);
  assert.equal(hex(path("^^A.B.C")), `5e5e2f03${hex(new TextEncoder().encode("A___B___C___"))}`);
  assert.equal(hex(path("\\")), "5c00");
  for (const wrong of ["lower", "TOOLONG", "1AB", "A..B"]) {
    assert.throws(() => path(wrong), RangeError);
  }
});

Deno.test("eisaId() packs three letters and four digits", () => {
  assert.equal(hex(eisaId("PNP0501")), "0c41d00501");
  assert.equal(hex(eisaId("PNP0B00")), "0c41d00b00");
  assert.throws(() => eisaId("PNP501"), new RangeError("'PNP501' is no EISA id"));
});

Deno.test("the length of a term counts itself, in one to four bytes", () => {
  const lengthOf = (size: number) => {
    const bytes = buffer(new Uint8Array(size));
    const more = bytes[1] >> 6;
    let length = bytes[1] & (more === 0 ? 0x3f : 0xf);
    for (let i = 0; i < more; i++) length |= bytes[2 + i] << (4 + 8 * i);
    return { more, right: length === bytes.length - 1 };
  };
  assert.deepEqual(
    // 60 and its integer of two bytes are the last that fit into 63.
    [0, 60, 61, 4000, 5000, 1 << 20].map(lengthOf),
    [0, 0, 1, 1, 2, 3].map((more) => ({ more, right: true })),
  );
});

Deno.test("terms have their parts in AML's order", () => {
  assert.equal(hex(name("_UID", integer(1))), "085f55494401");
  assert.equal(hex(string("GED")), "0d47454400");
  assert.throws(() => string("é"), RangeError);
  assert.equal(hex(packageOf(integer(5), integer(0))), "1205020a0500");
  assert.equal(hex(scope("\\", name("A", integer(0)))), "10095c0008415f5f5f00");
  assert.equal(hex(memoryRegion("R", 0x10, 4)), "5b80525f5f5f000a100a04");
  assert.equal(hex(dwordField("R", ["F", 32])), "5b810b525f5f5f43465f5f5f20");
  assert.equal(hex(join()), "");
});

Deno.test("resource descriptors say where and which", () => {
  assert.equal(hex(io(0x3f8, 8)), "4701f803f8030108");
  assert.equal(hex(irqNoFlags(4)), "221000");
  assert.equal(hex(irqNoFlags(8)), "220001");
  assert.equal(hex(memory32Fixed(0xfeb00000, 0x200)), "86090001" + "0000b0fe" + "00020000");
  assert.equal(hex(interrupt(16, "level")), "890600010110000000");
  assert.equal(hex(interrupt(9, "edge")), "890600030109000000");
  assert.equal(hex(resources(irqNoFlags(4))), "11080a05" + "221000" + "7900");
});
