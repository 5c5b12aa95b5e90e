import assert from "node:assert/strict";
import { e820Map, E820Type, ramRanges } from "../../vmm/firmware/e820.ts";
import { KVM_PAGES_END } from "../../vmm/machine/microvm.ts";
import { MIB } from "./boot_images.ts";

const GIB = 1024 * MIB;
const { RAM, RESERVED } = E820Type;

Deno.test("ramRanges() puts up to 3 GiB at 0 and the rest at 4 GiB", () => {
  assert.deepEqual(ramRanges(64 * MIB), [{ addr: 0, size: 64 * MIB }]);
  assert.deepEqual(ramRanges(3 * GIB), [{ addr: 0, size: 3 * GIB }]);
  assert.deepEqual(ramRanges(3 * GIB + 4096), [
    { addr: 0, size: 3 * GIB },
    { addr: 4 * GIB, size: 4096 },
  ]);
});

Deno.test("e820Map() lists RAM and reserved ranges", () => {
  assert.deepEqual(e820Map(64 * MIB), [
    { addr: 0, size: 0x9fc00, type: RAM },
    { addr: 0x9fc00, size: 0x400, type: RESERVED },
    { addr: 0xf0000, size: 0x10000, type: RESERVED },
    { addr: MIB, size: 63 * MIB, type: RAM },
    { addr: 0xfeffc000, size: 0x4000, type: RESERVED },
  ]);
  assert.deepEqual(e820Map(8 * GIB).slice(3), [
    { addr: MIB, size: 3 * GIB - MIB, type: RAM },
    { addr: 0xfeffc000, size: 0x4000, type: RESERVED },
    { addr: 4 * GIB, size: 5 * GIB, type: RAM },
  ]);
});

Deno.test("e820Map() never claims more RAM than there is, and no range overlaps another", () => {
  for (const size of [4096, 0x9fc00, 0xa0000, MIB, MIB + 4096, 3 * GIB, 3 * GIB + 1, 64 * GIB]) {
    const map = e820Map(size);
    const ram = map.filter((e) => e.type === RAM).reduce((sum, e) => sum + e.size, 0);
    assert.ok(ram <= size);
    map.slice(1).forEach((entry, i) => assert.ok(map[i].addr + map[i].size <= entry.addr));
  }
});

Deno.test("KVM's pages end where a firmware ROM of 16 MiB starts", () => {
  assert.equal(KVM_PAGES_END, 4 * GIB - 16 * MIB);
});
