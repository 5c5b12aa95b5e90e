import assert from "node:assert/strict";
import { virtioBlk } from "../../../devices/virtio/blk.ts";
import { virtioNet } from "../../../devices/virtio/net.ts";
import { virtioRng } from "../../../devices/virtio/rng.ts";
import { virtioSerial } from "../../../devices/virtio/serial.ts";
import { Feature, InterruptCause, Status } from "../../../devices/virtio/virtio_state.ts";
import { withDefaults } from "../../../devices/device.ts";
import { RAM, type TestDriver } from "./drivers.ts";
import { MESSAGES, PciRig, Range, REGISTERS } from "./pci_rig.ts";
import { bit } from "./rig.ts";

const BUFFER = { gpa: RAM + 0xc_0000, length: 16, writable: true };

/** Registers a test that runs in every way in which devices run, with split and packed rings. */
function pciTest(
  name: string,
  run: (rig: PciRig, ringFeatures: bigint) => void,
  properties = {},
): void {
  for (const mode of ["kept", "shared", "saved"] as const) {
    for (const packed of [false, true]) {
      Deno.test(`${name} (${mode}, ${packed ? "packed" : "split"})`, () => {
        const rig = new PciRig(virtioRng, mode, { packed, ...properties });
        run(rig, packed ? bit(Feature.RING_PACKED) : 0n);
      });
    }
  }
}

/** Sets the entropy device up. */
function start(rig: PciRig, ring: bigint): TestDriver {
  rig.negotiate(ring);
  const driver = rig.setUp(0);
  rig.start();
  driver.wantInterrupt(0);
  return driver;
}

/** Has a request answered. */
function ask(rig: PciRig, driver: TestDriver): void {
  driver.add([BUFFER]);
  rig.notify(0);
  assert.equal(driver.take().length, 1);
  driver.wantInterrupt(0);
}

/** Switches messages on, with as many bits of the control word. */
function enableMessages(rig: PciRig, bits = 0x8000): void {
  rig.configure(rig.capability(0x11) + 2, bits, 2);
}

pciTest("a driver finds the structures by capabilities, and messages for every queue", (rig) => {
  assert.equal(rig.look(0), 0x1044_1af4);
  const places = [1, 2, 3, 4].map((type) => {
    const at = rig.capability(9, type);
    return [rig.look(at + 4, 1), rig.look(at + 8), rig.look(at + 12)];
  });
  assert.deepEqual(places, [
    [4, 0x0000, 0x1000],
    [4, 0x3000, 0x1000],
    [4, 0x1000, 0x1000],
    [4, 0x2000, 0x1000],
  ]);
  assert.equal(rig.look(rig.capability(9, 2) + 16), 4);
  const messages = rig.capability(0x11);
  assert.deepEqual([rig.look(messages + 2, 2), rig.look(messages + 4), rig.look(messages + 8)], [
    1,
    0x001,
    0x801,
  ]);
  assert.deepEqual(rig.context.bases.slice(1), [REGISTERS, MESSAGES]);
});

pciTest("the device works with its line, and reading why lowers it", (rig, ring) => {
  const driver = start(rig, ring);
  for (let round = 0; round < 5; round++) {
    ask(rig, driver);
    assert.equal(rig.look(6, 2) & 8, 8, "the status register shows the interrupt");
    assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
    assert.equal(rig.look(6, 2) & 8, 0);
  }
  rig.configure(4, 0x406, 2);
  ask(rig, driver);
  assert.equal(rig.context.levels[0], false, "the line is disabled");
  rig.configure(4, 6, 2);
  assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
});

pciTest("with messages each queue has its own, and the configuration another", (rig, ring) => {
  rig.setVector(0, 0x40);
  rig.setVector(1, 0x41);
  enableMessages(rig);
  const driver = start(rig, ring);
  // The transport's reset takes vectors away: a driver sets them afterwards.
  assert.deepEqual([rig.peek(0x10, 2), rig.peek(0x1a, 2)], [0xffff, 0xffff]);
  ask(rig, driver);
  assert.deepEqual(rig.context.messages, []);
  rig.poke(0x10, 0, 2);
  rig.poke(0x1a, 1, 2);
  ask(rig, driver);
  assert.deepEqual(rig.context.messages, [[0xfee0_1000, 0x41]]);
  rig.call((device) => device.resized!());
  assert.deepEqual(rig.context.messages.slice(1), [[0xfee0_1000, 0x40]]);
  assert.deepEqual(rig.context.edges, [], "the line stays low");
  assert.equal(rig.peek(0x1000, 1), InterruptCause.CONFIG_CHANGE);
  rig.poke(0x1a, 2, 2);
  assert.equal(rig.peek(0x1a, 2), 0xffff, "a vector that there is not is refused");
});

pciTest("a message waits behind its mask, the function's, and for a master", (rig, ring) => {
  rig.setVector(1, 0x41, 1);
  enableMessages(rig, 0xc000);
  const driver = start(rig, ring);
  rig.poke(0x1a, 1, 2);
  const sent = () => rig.context.messages.splice(0).map(([, data]) => data);
  for (let round = 0; round < 2; round++) ask(rig, driver);
  assert.deepEqual(sent(), []);
  assert.equal(rig.message(0x800), 2, "its pending bit");
  rig.setVector(1, 0x42);
  assert.deepEqual(sent(), [], "all are masked still");
  enableMessages(rig);
  assert.deepEqual(sent(), [0x42], "one, however many there were");
  assert.equal(rig.message(0x800), 0);
  rig.setVector(1, 0x43, 1);
  ask(rig, driver);
  rig.setVector(1, 0x43);
  assert.deepEqual(sent(), [0x43]);
  rig.setVector(1, 0x44, 1);
  ask(rig, driver);
  rig.set(0x70, 0);
  rig.setVector(1, 0x44);
  assert.deepEqual(sent(), [], "a reset forgets what waits");
});

pciTest("a message to anywhere else than a local APIC goes nowhere", (rig, ring) => {
  enableMessages(rig);
  const driver = start(rig, ring);
  rig.poke(0x1a, 1, 2);
  for (const [low, high] of [[0xfed0_0000, 0], [0xfee0_0000, 1], [RAM, 0]]) {
    rig.setVector(1, 0x41);
    rig.call((device) => device.write(Range.MSIX, 16, 4, low));
    rig.call((device) => device.write(Range.MSIX, 20, 4, high));
    ask(rig, driver);
  }
  assert.deepEqual(rig.context.messages, []);
});

pciTest("a function that is no master reads no ring, and finds what waits later", (rig, ring) => {
  const driver = start(rig, ring);
  rig.configure(4, 2, 2);
  driver.add([BUFFER]);
  rig.notify(0);
  assert.deepEqual(driver.take(), []);
  rig.configure(4, 6, 2);
  rig.work();
  assert.equal(driver.take().length, 1);
});

pciTest("memories move, and are nowhere while they are not decoded", (rig) => {
  rig.configure(0x14, 0xffff_ffff);
  assert.equal(rig.look(0x14), 0xffff_f000);
  rig.configure(0x14, 0xc123_4000);
  rig.configure(0x20, 0xd000_0000);
  rig.configure(0x24, 0);
  assert.deepEqual(rig.context.bases.slice(1), [0xd000_0000, 0xc123_4000]);
  rig.configure(4, 4, 2);
  assert.deepEqual(rig.context.bases.slice(1), [undefined, undefined]);
});

pciTest("a window in configuration space reaches the memories without an address", (rig) => {
  rig.configure(4, 0, 2);
  const window = rig.capability(9, 5);
  const aim = (bar: number, offset: number, length: number) => {
    rig.configure(window + 4, bar, 1);
    rig.configure(window + 8, offset);
    rig.configure(window + 12, length);
  };
  aim(4, 0x14, 1);
  rig.configure(window + 16, Status.ACKNOWLEDGE, 1);
  assert.equal(rig.look(window + 16, 1), Status.ACKNOWLEDGE);
  assert.equal(rig.peek(0x14, 1), Status.ACKNOWLEDGE);
  aim(4, 0x12, 2);
  assert.equal(rig.look(window + 16, 2), 1, "one queue");
  aim(1, 8, 4);
  rig.configure(window + 16, 0x1234_5678);
  assert.equal(rig.message(8), 0x1234_5678);
  const wrong = [[4, 0x14, 2], [4, 0x13, 4], [4, 0x4000, 1], [3, 0, 1], [255, 0, 1], [1, 0xfff, 4]];
  for (const [bar, offset, length] of [...wrong, [4, 0xffff_fffc, 4], [4, 0x14, 0]]) {
    aim(bar, offset, length);
    rig.configure(window + 16, 0x80, 1);
    assert.equal(rig.look(window + 16, 1), 0);
  }
  assert.equal(rig.peek(0x14, 1), Status.ACKNOWLEDGE);
});

pciTest("registers are accessed as wholes; a queue that there is not reads as none", (rig) => {
  rig.poke(0x14, Status.ACKNOWLEDGE, 1);
  for (const [offset, size] of [[0x14, 2], [0x12, 4], [0x13, 1], [0x20, 2], [0x24, 1], [0x3c, 4]]) {
    assert.equal(rig.peek(offset, size), 0);
    rig.poke(offset, 0, size);
  }
  assert.equal(rig.peek(0x14, 1), Status.ACKNOWLEDGE);
  for (const index of [1, 0x7fff, 0xffff]) {
    rig.poke(0x16, index, 2);
    rig.poke(0x1c, 1, 2);
    rig.poke(0x20, 0x1000, 4);
    assert.deepEqual([0x18, 0x1c, 0x1e].map((offset) => rig.peek(offset, 2)), [0, 0, 0]);
    assert.equal(rig.peek(0x1a, 2), 0xffff);
  }
  // What a function that becomes a master rings.
  rig.context.rung.clear();
  for (const offset of [0x3004, 0x3001, 0x3ffc, 0x1ffc]) rig.poke(offset, 0, 2);
  assert.deepEqual([...rig.context.rung], []);
});

pciTest("without vectors there are no messages", (rig, ring) => {
  assert.throws(() => rig.capability(0x11));
  const driver = start(rig, ring);
  ask(rig, driver);
  assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
}, { vectors: 0 });

Deno.test("each kind has its class and as many messages as QEMU's, and memories for them", () => {
  const ofKind = (type: typeof virtioBlk.pci, properties = {}) => {
    const all = withDefaults(type, { mac: "52:54:00:12:34:56", ...properties });
    return type.ranges(all).map(({ size }) => size);
  };
  assert.deepEqual(ofKind(virtioBlk.pci), [0x1000, 0x4000, 0x1000]);
  assert.deepEqual(ofKind(virtioBlk.pci, { vectors: 128 }), [0x1000, 0x4000, 0x1000]);
  assert.deepEqual(ofKind(virtioBlk.pci, { vectors: 129 }), [0x1000, 0x4000, 0x2000]);
  assert.deepEqual(ofKind(virtioBlk.pci, { "num-queues": 1024 }), [0x1000, 0x4000, 0x8000]);
  assert.deepEqual(ofKind(virtioSerial.pci, { vectors: 0 }), [0x1000, 0x4000]);
  const serial = new PciRig(virtioSerial);
  assert.deepEqual([serial.look(0), serial.look(8)], [0x1043_1af4, 0x0780_0001]);
  assert.equal(serial.look(serial.capability(0x11) + 2, 2), 1);
  const net = new PciRig(virtioNet, "kept", { mac: "52:54:00:12:34:56" });
  assert.deepEqual([net.look(0), net.look(8)], [0x1041_1af4, 0x0200_0001]);
  assert.equal(net.look(net.capability(0x11) + 2, 2), 3);
});
