import assert from "node:assert/strict";
import { isaDebugExit } from "../../devices/isa/debug_exit.ts";
import { deviceTest } from "./fake_context.ts";

deviceTest("a write exits with an odd status", isaDebugExit, (rig) => {
  rig.write(0, 0);
  rig.write(0, 0x10);
  rig.write(0, 0x1234, 2);
  rig.write(1, 0x7f);
  assert.deepEqual(rig.context.requests, [
    { kind: "debug-exit", status: 1 },
    { kind: "debug-exit", status: 0x21 },
    { kind: "debug-exit", status: 0x2469 },
    { kind: "debug-exit", status: 0xff },
  ]);
  assert.equal(rig.read(0), 0);
});

deviceTest("a write counts only where it meets the ports", isaDebugExit, (rig) => {
  rig.write(0, 0xabcd0003, 4);
  rig.write(1, 0x0705, 2);
  assert.deepEqual(rig.context.requests.map((request) => "status" in request && request.status), [
    7,
    11,
  ]);
});

deviceTest("a write of 4 bytes gives a positive status", isaDebugExit, (rig) => {
  rig.write(0, 0x7fffffff, 4);
  assert.deepEqual(rig.context.requests, [{ kind: "debug-exit", status: 0xffffffff }]);
}, { iosize: 4 });

Deno.test("`ranges()` covers `iosize` ports from `iobase`", () => {
  assert.deepEqual(isaDebugExit.ranges({ iobase: 0xf4, iosize: 4 }), [
    { space: "pio", base: 0xf4, size: 4, name: "isa-debug-exit" },
  ]);
  assert.throws(() => isaDebugExit.ranges({ iobase: 0xf4, iosize: 0 }), /at least 1, not 0/);
});
