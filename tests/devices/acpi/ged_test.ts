import assert from "node:assert/strict";
import { acpiGed } from "../../../devices/acpi/ged.ts";
import { deviceTest, type Rig } from "../fake_context.ts";

const EVENTS = 0;
const REGISTERS = 1;
const press = (rig: Rig) => rig.call((device) => device.pressPowerButton!());

deviceTest("the power button interrupts once a press, and is told once", acpiGed, (rig) => {
  assert.equal(rig.read(0, 4, EVENTS), 0);
  press(rig);
  assert.deepEqual(rig.context.edges, ["+0", "-0"]);
  assert.equal(rig.read(0, 4, EVENTS), 2);
  assert.equal(rig.read(0, 4, EVENTS), 0);
  press(rig);
  press(rig);
  assert.equal(rig.context.edges.length, 6);
  assert.equal(rig.read(0, 4, EVENTS), 2);
});

deviceTest("part of the selector tells nothing, and takes nothing away", acpiGed, (rig) => {
  press(rig);
  for (const [offset, size] of [[0, 1], [0, 2], [1, 1], [2, 2]]) {
    assert.equal(rig.read(offset, size, EVENTS), 0);
  }
  rig.write(0, 0, 4, EVENTS);
  assert.equal(rig.read(0, 4, EVENTS), 2);
});

deviceTest("a press that was not read yet is gone after `reset()`", acpiGed, (rig) => {
  press(rig);
  rig.call((device) => device.reset());
  assert.equal(rig.read(0, 4, EVENTS), 0);
});

deviceTest(
  "the sleep control register turns off for SLP_TYP 5 with SLP_EN only",
  acpiGed,
  (rig) => {
    for (const value of [0, 0x14, 0x20, 0x3c, 0x40]) rig.write(0, value, 1, REGISTERS);
    assert.deepEqual(rig.context.requests, []);
    rig.write(0, 0x34, 1, REGISTERS);
    assert.deepEqual(rig.context.requests, [{ kind: "shutdown", reason: "guest-shutdown" }]);
    assert.equal(rig.read(0, 1, REGISTERS), 0);
  },
);

deviceTest("the reset register resets for its one value", acpiGed, (rig) => {
  rig.write(2, 0x41, 1, REGISTERS);
  rig.write(1, 0x42, 1, REGISTERS);
  assert.deepEqual(rig.context.requests, []);
  rig.write(2, 0x42, 1, REGISTERS);
  assert.deepEqual(rig.context.requests, [{ kind: "reset", reason: "guest-reset" }]);
});

deviceTest("the state is written only while a press waits", acpiGed, (rig) => {
  const state = () => acpiGed.state.view(rig.bytes.slice().buffer, 0);
  assert.equal(acpiGed.needed!(state()), false);
  press(rig);
  assert.equal(acpiGed.needed!(state()), true);
});

deviceTest("SLP_TYP 3 sleeps until `wake()`, which the status register tells", acpiGed, (rig) => {
  const isAsleep = () => rig.call((device) => device.isAsleep!());
  assert.equal(isAsleep(), false);
  rig.write(0, 0x2c, 1, REGISTERS);
  assert.deepEqual(rig.context.requests, [{ kind: "suspend" }]);
  assert.equal(isAsleep(), true);
  assert.equal(rig.read(1, 1, REGISTERS), 0);
  rig.call((device) => device.wake!());
  assert.equal(isAsleep(), false);
  assert.equal(rig.read(1, 1, REGISTERS), 0x80);
  rig.write(1, 0x7f, 1, REGISTERS);
  assert.equal(rig.read(1, 1, REGISTERS), 0x80);
  rig.write(1, 0x80, 1, REGISTERS);
  assert.equal(rig.read(1, 1, REGISTERS), 0);
});

deviceTest("`reset()` ends sleep", acpiGed, (rig) => {
  rig.write(0, 0x2c, 1, REGISTERS);
  rig.call((device) => device.reset());
  assert.equal(rig.call((device) => device.isAsleep!()), false);
});
