import assert from "node:assert/strict";
import type { SecondaryBus } from "../../devices/pci/bridge.ts";
import { rootPort } from "../../devices/pci/root_port.ts";
import { virtioRng } from "../../devices/virtio/rng.ts";
import { Rig, type RigMode } from "./fake_context.ts";

const ECAM = 0xe000_0000;
/** Where the port's capabilities are, as in QEMU's. */
const MSIX = 0x48;
const EXPRESS = 0x54;
const SLOT_CONTROL = EXPRESS + 0x18;
const SLOT_STATUS = EXPRESS + 0x1a;
const LINK_STATUS = EXPRESS + 0x12;
const MESSAGES = 0xc000_0000;

class PortRig extends Rig {
  constructor(mode: RigMode = "kept", properties = {}) {
    super(rootPort, mode, {
      ...{ "config-base": ECAM + 0x8000, "ecam-base": ECAM, irq: 17 },
      ...properties,
    });
  }

  get bus(): SecondaryBus {
    return this.device.provides as SecondaryBus;
  }

  look(offset: number, size = 4): number {
    return this.read(offset, size, 0);
  }

  configure(offset: number, value: number, size = 4): void {
    this.write(offset, value, size, 0);
  }

  /** Gives the port's message a place, and switches messages on. */
  enableMessages(): void {
    this.configure(4, 6, 2);
    [0xfee0_0000, 0, 0x55, 0].forEach((word, i) => this.write(4 * i, word, 4, 1));
    this.configure(MSIX + 2, 0x8000, 2);
  }
}

/** A function behind a port. */
class BehindPort extends Rig {
  constructor(port: PortRig) {
    super(
      virtioRng.pci,
      "kept",
      { irq: 17 },
      undefined,
      undefined,
      undefined,
      undefined,
      port.device,
    );
  }
}

/** Registers a test that runs in every way in which devices run. */
function portTest(name: string, run: (rig: PortRig) => void, properties = {}): void {
  for (const mode of ["kept", "shared", "saved"] as const) {
    Deno.test(`${name} (${mode})`, () => run(new PortRig(mode, properties)));
  }
}

portTest("a port is a bridge with the capabilities of QEMU's", (rig) => {
  const words = (from: number, to: number) =>
    Array.from({ length: (to - from) / 4 }, (_, i) => rig.look(from + 4 * i).toString(16));
  assert.deepEqual(words(0, 0x10), ["c1b36", "100000", "6040000", "10000"]);
  assert.deepEqual(words(0x18, 0x30), ["0", "0", "fff0", "1fff1", "0", "0"]);
  assert.deepEqual(words(0x40, 0x54), ["480d", "1b36", "5411", "0", "800"]);
  // Version, device, link: those of QEMU 7.2.
  assert.deepEqual(words(EXPRESS, EXPRESS + 0x10), ["1420010", "8000", "0", "5300604"]);
  assert.equal(rig.look(EXPRESS + 0x14), 0x0002_007b + 3 * 2 ** 19);
  assert.equal(rig.look(EXPRESS + 0x2c), 0x1e);
}, { slot: 3, port: 5 });

portTest("without hotplug the slot does not say that its device may come and go", (rig) => {
  assert.equal(rig.look(EXPRESS + 0x14), 0x0002_001b);
}, { hotplug: false });

portTest("a driver can write what it has to, and nothing else", (rig) => {
  for (let offset = 0; offset < 0x100; offset += 4) rig.configure(offset, 0xffff_ffff);
  const written: [number, number, number][] = [
    ...[[0x00, 4, 0x000c_1b36], [0x04, 2, 0x0546 & ~2 | 2], [0x0e, 1, 1]],
    ...[[0x10, 4, 0xffff_f000], [0x14, 4, 0], [0x18, 4, 0x00ff_ffff], [0x1c, 2, 0]],
    ...[[0x20, 4, 0xfff0_fff0], [0x24, 4, 0xfff1_fff1], [0x28, 4, 0xffff_ffff]],
    ...[[0x2c, 4, 0xffff_ffff], [0x30, 2, 0], [0x34, 1, 0x40], [0x3c, 4, 0x0003_01ff]],
    ...[[0x44, 4, 0x1b36], [SLOT_CONTROL, 2, 0x17ff], [EXPRESS + 8, 4, 0xf]],
  ] as [number, number, number][];
  for (const [offset, size, value] of written) {
    assert.equal(rig.look(offset, size), value, `0x${offset.toString(16)}`);
  }
  for (const offset of [0x100, 0xffc]) assert.equal(rig.look(offset), 0xffff_ffff);
});

Deno.test("addresses get behind a port as its registers say", () => {
  const rig = new PortRig();
  let places = 0;
  rig.bus.attach(() => places++);
  rig.call((device) => device.reset());
  assert.equal(rig.bus.configBase, undefined);
  for (
    const [secondary, subordinate, base] of [[1, 1, 1], [0x80, 0xff, 0x80], [0xff, 0xff, 0xff]]
  ) {
    rig.configure(0x18, subordinate * 65536 + secondary * 256);
    assert.equal(rig.bus.configBase, ECAM + base * 0x10_0000);
  }
  // Bus 0 is the root bus; nothing is between 3 and 2.
  for (const wrong of [0x0001_0000, 0, 0x0002_0300]) {
    rig.configure(0x18, wrong);
    assert.equal(rig.bus.configBase, undefined);
  }
  rig.configure(0x20, 0xc020_c010);
  assert.equal(rig.bus.passes(0xc010_0000, 0x1000), false, "memory is not decoded");
  rig.configure(4, 2, 2);
  const passes = [[0xc010_0000, 0x20_0000], [0xc02f_f000, 0x1000], [0xc010_0000, 0x1000]];
  const fails = [[0xc00f_f000, 0x1000], [0xc00f_f000, 0x2000], [0xc02f_f000, 0x2000], [0, 0x1000]];
  for (const [base, size] of passes) assert.ok(rig.bus.passes(base, size), base.toString(16));
  for (const [base, size] of fails) assert.equal(rig.bus.passes(base, size), false);
  const high = 0xc0_0000_0000;
  assert.equal(rig.bus.passes(high, 0x4000), false);
  rig.configure(0x24, 0x0010_0000);
  rig.configure(0x28, 0xc0);
  rig.configure(0x2c, 0xc0);
  assert.ok(rig.bus.passes(high + 0x1f_c000, 0x4000));
  assert.equal(rig.bus.passes(high + 0x1f_d000, 0x4000), false);
  assert.ok(places > 8, "a function asks anew");
  rig.call((device) => device.reset());
  assert.deepEqual([rig.bus.configBase, rig.bus.passes(high, 1)], [undefined, false]);
});

Deno.test("a slot is on with a function in it at power-on, and off without", () => {
  const rig = new PortRig();
  assert.deepEqual([rig.look(SLOT_CONTROL), rig.look(LINK_STATUS, 2)], [0x0000_07c0, 0x0011]);
  rig.bus.attach(() => {});
  rig.call((device) => device.reset());
  assert.deepEqual([rig.look(SLOT_CONTROL), rig.look(LINK_STATUS, 2)], [0x0040_01c0, 0x2011]);
});

portTest("every command is completed, which interrupts if a driver wants it to", (rig) => {
  rig.enableMessages();
  rig.configure(SLOT_CONTROL, 0x07c0, 2);
  assert.equal(rig.look(SLOT_STATUS, 2), 0x10);
  assert.deepEqual(rig.context.messages, []);
  rig.configure(SLOT_CONTROL, 0x07f0, 2);
  assert.deepEqual(rig.context.messages, [[0xfee0_0000, 0x55]]);
  rig.configure(SLOT_CONTROL, 0x07f8, 2);
  assert.equal(rig.context.messages.length, 1, "once until it was cleared");
  rig.configure(SLOT_STATUS, 0x0010, 2);
  assert.equal(rig.look(SLOT_STATUS, 2), 0);
  rig.configure(SLOT_CONTROL, 0x07f0, 2);
  assert.equal(rig.context.messages.length, 2);
  assert.deepEqual(rig.context.edges, [], "the line stays low");
});

portTest("without messages the line is high until the event is cleared", (rig) => {
  rig.configure(SLOT_CONTROL, 0x07f0, 2);
  assert.equal(rig.context.levels[0], true);
  assert.equal(rig.look(6, 2) & 8, 8, "the status register shows the interrupt");
  rig.configure(4, 0x400, 2);
  assert.equal(rig.context.levels[0], false, "the line is disabled");
  rig.configure(4, 0, 2);
  rig.configure(SLOT_CONTROL, 0x0010_07f0);
  assert.equal(rig.context.levels[0], true, "one write of both completes a command as well");
  rig.configure(SLOT_STATUS, 0xff, 1);
  assert.equal(rig.context.levels[0], false);
});

Deno.test("the driver gives a function up by switching its slot off", () => {
  const rig = new PortRig();
  rig.bus.attach(() => {});
  rig.call((device) => device.reset());
  rig.configure(0x18, 0x0001_0100);
  rig.configure(SLOT_CONTROL, 0x05c0, 2);
  assert.equal(rig.bus.configBase, undefined, "without power nothing answers");
  assert.deepEqual([rig.context.requests, rig.look(LINK_STATUS, 2)], [[], 0x0011]);
  rig.configure(SLOT_CONTROL, 0x01c0, 2);
  assert.equal(rig.bus.configBase, ECAM + 0x10_0000);
  rig.configure(SLOT_CONTROL, 0x07c0, 2);
  assert.deepEqual(rig.context.requests, [{ kind: "slot-change" }]);
  assert.equal(rig.look(SLOT_STATUS, 2), 0x18, "it is no longer present");
  rig.configure(SLOT_CONTROL, 0x01c0, 2);
  rig.configure(SLOT_CONTROL, 0x07c0, 2);
  assert.equal(rig.context.requests.length, 1);
});

Deno.test("a function behind a port is where the port lets it be", () => {
  const port = new PortRig();
  const rig = new BehindPort(port);
  port.call((device) => device.reset());
  const bases = () => rig.context.bases;
  assert.deepEqual(bases(), [undefined, undefined, undefined]);
  port.configure(0x18, 0x0002_0200);
  assert.deepEqual(bases(), [ECAM + 0x20_0000, undefined, undefined]);
  rig.write(0x14, MESSAGES + 0x1000, 4, 0);
  rig.write(0x20, MESSAGES + 0x10_0000, 4, 0);
  rig.write(4, 6, 2, 0);
  assert.deepEqual(bases().slice(1), [undefined, undefined], "the port has no windows yet");
  port.configure(0x20, 0xc000_c000);
  port.configure(4, 6, 2);
  assert.deepEqual(bases().slice(1), [undefined, MESSAGES + 0x1000]);
  port.configure(0x20, 0xc010_c000);
  assert.deepEqual(bases().slice(1), [MESSAGES + 0x10_0000, MESSAGES + 0x1000]);
  port.configure(SLOT_CONTROL, 0x07c0, 2);
  assert.deepEqual(bases(), [undefined, undefined, undefined]);
});

portTest("whatever a driver writes, the port goes on", (rig) => {
  // Numerical Recipes' generator: the same writes each time.
  let seed = 1;
  const random = (limit: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 2 ** 32 * limit);
  };
  for (let round = 0; round < 5000; round++) {
    const size = 2 ** random(3);
    const range = random(8) === 0 ? 1 : 0;
    const offset = random(4) === 0 ? random(4096) : random(256);
    rig.write(offset, random(2 ** 32) % 2 ** (8 * size), size, range);
    const value = rig.read(random(4096), size, range);
    assert.ok(Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size));
    assert.equal(rig.look(0), 0x000c_1b36);
    if (random(50) === 0) rig.call((device) => device.slot!.fill());
    if (random(50) === 0) rig.call((device) => device.slot!.pressButton());
  }
  rig.call((device) => device.reset());
  assert.deepEqual([rig.look(SLOT_CONTROL), rig.bus.configBase], [0x0000_07c0, undefined]);
});
