import assert from "node:assert/strict";
import { guidText, parseGuid, vmgenid } from "../../../devices/acpi/vmgenid.ts";
import { deviceTest, type Rig } from "../fake_context.ts";

const GUID = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
const guid = parseGuid(GUID)!;

const seen = (rig: Rig) => Uint8Array.from({ length: 16 }, (_, i) => rig.read(i)).toHex();

Deno.test("parseGuid() takes a GUID or auto; three fields are little-endian in memory", () => {
  assert.equal(guid.toHex(), "af6e4e32d1d1f64bbf41b9bb6c91fb87");
  assert.equal(guidText(guid), GUID);
  assert.equal(parseGuid("auto"), undefined);
  for (const wrong of ["", "324e6eaf", `${GUID}0`, GUID.replace("3", "g")]) {
    const message = `Property 'vmgenid.guid' doesn't take value '${wrong}'`;
    assert.throws(() => parseGuid(wrong), { message });
    assert.throws(() => vmgenid.ranges({ guid: wrong }), { message });
  }
});

deviceTest(
  "the guest reads the id in any size, and cannot write it",
  vmgenid,
  (rig) => {
    assert.equal(seen(rig), guid.toHex());
    assert.equal(rig.read(0, 4), 0x324e6eaf);
    assert.equal(rig.read(8, 2), 0x41bf);
    assert.equal(rig.read(0, 8), 0x4bf6d1d1 * 2 ** 32 + 0x324e6eaf);
    assert.equal(rig.read(16, 4), 0);
    rig.write(0, 0xffffffff, 4);
    rig.call((device) => device.reset());
    assert.equal(seen(rig), guid.toHex());
  },
  {},
  guid,
);

deviceTest(
  "state that was loaded keeps its id until a generation is started",
  vmgenid,
  (rig) => {
    rig.load(new Uint8Array(16).fill(7));
    rig.call((device) => device.reset());
    assert.equal(seen(rig), "07".repeat(16));
    assert.equal(rig.call((device) => device.startGeneration!()), true);
    assert.equal(seen(rig), guid.toHex());
    assert.equal(rig.call((device) => device.startGeneration!()), false);
  },
  {},
  guid,
);
