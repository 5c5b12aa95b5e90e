import assert from "node:assert/strict";
import { isaDebugcon } from "../../devices/isa/debugcon.ts";
import { deviceTest } from "./fake_context.ts";

deviceTest("the port reads as its `readback`", isaDebugcon, (rig) => {
  assert.equal(rig.read(0), 0xe9);
  assert.equal(rig.read(0, 4), 0xffffffe9);
});

deviceTest("the port reads as its `readback` when that is set", isaDebugcon, (rig) => {
  assert.equal(rig.read(0), 0x42);
}, { readback: 0x42 });

deviceTest("written bytes go to the host at once", isaDebugcon, (rig) => {
  for (const c of "SeaBIOS") rig.write(0, c.charCodeAt(0));
  rig.write(0, 0x4241, 2);
  assert.equal(rig.sink.text, "SeaBIOSA");
  assert.deepEqual(rig.sink.offered, new Array(8).fill(1));
});

deviceTest("written bytes wait in order while the host takes none", isaDebugcon, (rig) => {
  rig.sink.budget = 10;
  const written: number[] = [];
  for (let i = 0; i < 300; i++) {
    written.push(i & 0xff);
    rig.write(0, i & 0xff);
  }
  rig.call((device) => device.reset());
  assert.equal(rig.sink.sent.length, 10);
  rig.writable(100);
  rig.write(0, 0x77);
  rig.writable();
  assert.deepEqual(rig.sink.sent, [...written, 0x77]);
});

deviceTest(
  "written bytes beyond 1 KiB of backlog are lost, not the older ones",
  isaDebugcon,
  (rig) => {
    rig.sink.budget = 0;
    for (let i = 0; i < 1200; i++) rig.write(0, i & 0xff);
    rig.writable();
    assert.deepEqual(rig.sink.sent, Array.from({ length: 1024 }, (_, i) => i & 0xff));
  },
);

deviceTest("written bytes keep their order when the host takes some again", isaDebugcon, (rig) => {
  rig.sink.budget = 0;
  rig.write(0, 1);
  rig.sink.budget = Infinity;
  rig.write(0, 2);
  rig.writable();
  assert.deepEqual(rig.sink.sent, [1, 2]);
});

Deno.test("`ranges()` puts the port where `iobase` says", () => {
  assert.deepEqual(isaDebugcon.ranges({ iobase: 0x402 }), [
    { space: "pio", base: 0x402, size: 1, name: "isa-debugcon" },
  ]);
  assert.throws(() => isaDebugcon.ranges({ iobase: 0x10000 }), RangeError);
});
