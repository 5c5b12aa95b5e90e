import assert from "node:assert/strict";
import { pciConfig } from "../../devices/isa/pci_config.ts";
import { deviceTest } from "./fake_context.ts";

deviceTest("both probes find no PCI configuration mechanism", pciConfig, (rig) => {
  rig.write(3, 0x01);
  rig.write(0, 0x80000000, 4);
  assert.notEqual(rig.read(0, 4), 0x80000000);
  for (const offset of [3, 0, 2]) rig.write(offset, 0);
  assert.notEqual(rig.read(0), 0);
  assert.notEqual(rig.read(2), 0);
});

deviceTest("every access reads as ones", pciConfig, (rig) => {
  for (const range of [0, 1]) {
    assert.equal(rig.read(0, 1, range), 0xff);
    assert.equal(rig.read(2, 2, range), 0xffff);
    assert.equal(rig.read(0, 4, range), 0xffffffff);
  }
});
