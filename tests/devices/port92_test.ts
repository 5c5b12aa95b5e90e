import assert from "node:assert/strict";
import { port92 } from "../../devices/isa/port92.ts";
import { deviceTest } from "./fake_context.ts";

deviceTest("A20 reads as on after `reset()` and keeps what is written", port92, (rig) => {
  assert.equal(rig.read(0), 0x02);
  rig.write(0, 0x00);
  assert.equal(rig.read(0), 0x00);
  rig.write(0, 0x02);
  assert.equal(rig.read(0), 0x02);
  assert.deepEqual(rig.context.requests, []);
  rig.write(0, 0x00);
  rig.call((device) => device.reset());
  assert.equal(rig.read(0), 0x02);
});

deviceTest("bit 0 requests a reset when it rises", port92, (rig) => {
  rig.write(0, 0x03);
  rig.write(0, 0x01);
  assert.deepEqual(rig.context.requests, [{ kind: "reset", reason: "guest-reset" }]);
  rig.write(0, 0x02);
  rig.write(0, 0x03);
  assert.equal(rig.context.requests.length, 2);
});

deviceTest("a wide access reaches port 0x92 only", port92, (rig) => {
  assert.equal(rig.read(0, 2), 0xff02);
  rig.write(0, 0x0100, 2);
  assert.equal(rig.read(0), 0x00);
  assert.deepEqual(rig.context.requests, []);
});
