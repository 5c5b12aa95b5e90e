import assert from "node:assert/strict";
import { ioapic } from "../../devices/ioapic.ts";
import { deviceTest, type Rig } from "./fake_context.ts";

const MASK = 1 << 16;
const LEVEL = 1 << 15;
const LOGICAL = 1 << 11;

function readIndirect(rig: Rig, index: number): number {
  rig.write(0x00, index, 4);
  return rig.read(0x10, 4);
}

function writeIndirect(rig: Rig, index: number, value: number): void {
  rig.write(0x00, index, 4);
  rig.write(0x10, value >>> 0, 4);
}

const writeLow = (rig: Rig, pin: number, value: number) =>
  writeIndirect(rig, 0x10 + 2 * pin, value);
const writeHigh = (rig: Rig, pin: number, value: number) =>
  writeIndirect(rig, 0x11 + 2 * pin, value);
const drive = (rig: Rig, pin: number, level: boolean) =>
  rig.call((device) => device.setInput!(pin, level));
/** Data of the messages since the last call. */
const sent = (rig: Rig) => rig.context.messages.splice(0).map(([, data]) => data);

deviceTest("after power-on there are 24 inputs, all masked", ioapic, (rig) => {
  assert.equal(readIndirect(rig, 1), 0x170011);
  assert.equal(readIndirect(rig, 0), 0);
  for (let pin = 0; pin < 24; pin++) {
    assert.equal(readIndirect(rig, 0x10 + 2 * pin), MASK);
    assert.equal(readIndirect(rig, 0x11 + 2 * pin), 0);
    drive(rig, pin, true);
  }
  assert.equal(readIndirect(rig, 0x40), 0xffffffff);
  assert.equal(readIndirect(rig, 3), 0xffffffff);
  writeIndirect(rig, 0x40, 0);
  assert.deepEqual(sent(rig), []);
});

deviceTest("registers keep what can be written", ioapic, (rig) => {
  writeIndirect(rig, 0, 0xff000000);
  assert.equal(readIndirect(rig, 0), 0x0f000000);
  writeLow(rig, 3, 0xffffffff);
  assert.equal(readIndirect(rig, 0x16), ~0x5000 >>> 0);
  writeHigh(rig, 3, 0x85000000);
  assert.equal(readIndirect(rig, 0x17), 0x85000000);
  assert.equal(rig.read(0, 1), 0x17);
  rig.call((device) => device.reset());
  assert.equal(readIndirect(rig, 0x16), MASK);
  assert.equal(readIndirect(rig, 0x17), 0);
});

deviceTest("an input sends its entry's message, physical or logical", ioapic, (rig) => {
  writeHigh(rig, 5, 0x02000000);
  writeLow(rig, 5, 0x41);
  drive(rig, 5, true);
  drive(rig, 5, false);
  writeLow(rig, 5, 0x141 | LOGICAL);
  drive(rig, 5, true);
  drive(rig, 24, true);
  assert.deepEqual(rig.context.messages, [[0xfee02000, 0x41], [0xfee02004, 0x141]]);
});

deviceTest("an input that is set again has something new to tell", ioapic, (rig) => {
  writeLow(rig, 0, 0x50 | LEVEL);
  drive(rig, 0, true);
  drive(rig, 0, true);
  drive(rig, 0, false);
  assert.deepEqual(sent(rig), [0x50, 0x50]);
});

deviceTest("what comes behind a mask is sent once when it goes", ioapic, (rig) => {
  writeLow(rig, 7, 0x60 | MASK);
  drive(rig, 7, true);
  drive(rig, 7, true);
  drive(rig, 7, false);
  assert.deepEqual(sent(rig), []);
  writeLow(rig, 7, 0x60);
  writeLow(rig, 7, 0x60 | MASK);
  writeLow(rig, 7, 0x60);
  assert.deepEqual(sent(rig), [0x60]);
});

deviceTest("the state is written from the first change on", ioapic, (rig) => {
  const needed = () => ioapic.needed!(ioapic.state.view(rig.bytes.slice().buffer, 0));
  rig.write(0, 0x10, 4);
  assert.equal(needed(), false);
  writeLow(rig, 23, 0);
  assert.equal(needed(), true);
});
