import assert from "node:assert/strict";
import {
  Command,
  CONFIG_SIZE,
  ConfigLayout,
  ConfigSpace,
  configState,
} from "../../devices/pci/config_space.ts";
import { hostBridge } from "../../devices/pci/host_bridge.ts";
import { deviceTest } from "./fake_context.ts";

const bars = [
  { bar: 1, size: 0x1000, wide: false },
  { bar: 4, size: 0x4000, wide: true },
] as const;

/** A function with two base addresses and two capabilities. */
function makeFunction() {
  const layout = new ConfigLayout({
    ...{ vendorId: 0x1af4, deviceId: 0x1044, revision: 1, classCode: 0x02_0001 },
    ...{ subsystemVendorId: 0x1234, subsystemId: 0x5678, hasInterrupt: true, bars },
    capabilities: [
      { id: 0x11, body: Uint8Array.of(1, 0x80, 2), writable: Uint8Array.of(0, 0xc0, 0) },
      { id: 9, body: Uint8Array.of(4, 5) },
    ],
  });
  const state = configState.alloc();
  return { layout, config: new ConfigSpace(state.view, layout), bytes: state.bytes };
}

Deno.test("a header says what a function is, and where its capabilities are", () => {
  const { config, layout } = makeFunction();
  assert.equal(config.read(0, 4), 0x1044_1af4);
  assert.equal(config.read(8, 4), 0x0200_0101);
  assert.equal(config.read(0x2c, 4), 0x5678_1234);
  assert.equal(config.read(0x3d, 1), 1);
  assert.equal(config.read(6, 2), 0x10);
  assert.deepEqual(layout.capabilities, [0x40, 0x48]);
  assert.equal(config.read(0x34, 1), 0x40);
  assert.equal(config.read(0x40, 4), 0x8001_4811);
  assert.equal(config.read(0x48, 4), 0x0504_0009);
  assert.equal(config.read(6, 2, true), 0x18, "an interrupt is shown in the status");
});

Deno.test("only what can be written is", () => {
  const { config } = makeFunction();
  const before = Array.from({ length: 64 }, (_, i) => config.read(4 * i, 4));
  for (let at = 0; at < 2 * CONFIG_SIZE; at += 4) config.write(at, 4, 0xffff_ffff);
  const changed = before.flatMap((value, i) => {
    const now = config.read(4 * i, 4);
    return now === value ? [] : [[4 * i, now]];
  });
  assert.deepEqual(changed, [
    [0x04, 0x0010_0546],
    [0x0c, 0x0000_00ff],
    [0x14, 0xffff_f000],
    [0x20, 0xffff_c00c],
    [0x24, 0xffff_ffff],
    [0x3c, 0x0000_01ff],
    [0x40, 0xc001_4811],
  ]);
  config.reset();
  assert.deepEqual(Array.from({ length: 64 }, (_, i) => config.read(4 * i, 4)), before);
});

Deno.test("a base address counts while memory is decoded and there is one", () => {
  const { config } = makeFunction();
  const bases = () => bars.map((bar) => config.base(bar));
  config.write(0x14, 4, 0xc000_1fff);
  config.write(0x20, 2, 0x4000);
  config.write(0x24, 4, 0xc0);
  assert.deepEqual(bases(), [undefined, undefined]);
  config.write(4, 2, Command.MEMORY);
  assert.deepEqual(bases(), [0xc000_1000, 0xc0_0000_4000]);
  config.write(0x14, 4, 0xfff);
  config.write(0x20, 4, 0);
  config.write(0x27, 1, 0xff);
  assert.deepEqual(bases(), [undefined, 0xff00_00c0 * 2 ** 32]);
});

Deno.test("whatever a stream says was written, nothing else than that can be written is other", () => {
  const { config, bytes } = makeFunction();
  bytes.fill(0xff);
  assert.equal(config.read(0, 4), 0x1044_1af4);
  assert.equal(config.read(4, 4), 0x0010_0546);
  assert.equal(config.read(0x40, 4), 0xc001_4811);
});

Deno.test("capabilities that do not fit are refused", () => {
  const capability = { id: 9, body: new Uint8Array(64) };
  assert.throws(
    () =>
      new ConfigLayout({
        ...{ vendorId: 1, deviceId: 1, revision: 0, classCode: 0, subsystemVendorId: 0 },
        ...{ subsystemId: 0, hasInterrupt: false, bars: [] },
        capabilities: [capability, capability, capability],
      }),
    { message: "Capability 9 ends at 268, after 256" },
  );
});

deviceTest(
  "the root bus's own function is QEMU's, and has nothing to decode",
  hostBridge,
  (rig) => {
    assert.equal(rig.read(0, 4), 0x0008_1b36);
    assert.equal(rig.read(8, 4), 0x0600_0000);
    rig.write(4, 0xffff, 2);
    assert.equal(rig.read(4, 4), 0x0000_0144);
    assert.equal(rig.read(0x100, 4), 0xffff_ffff);
    assert.equal(rig.read(0xffe, 2), 0xffff);
  },
);
